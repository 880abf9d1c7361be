"""The command line. `main` is the console script; it imports each module when a command needs it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``everthread`` with the process's arguments and exit; without click, print how to install it."""
    try:
        from everthread.cli.group import everthread
    except ImportError as error:
        if error.name != "click":
            raise
        sys.exit("The command line needs click: pip install 'everthread[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    everthread()
