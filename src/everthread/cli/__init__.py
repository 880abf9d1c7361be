"""The command line. `main` is the console script; everything else is imported when a command needs it."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs ``everthread`` with the process's arguments and exits.

    Without the extra it needs, it says how to install it and exits with 1.
    """
    try:
        from everthread.cli.group import everthread
    except ImportError as error:
        if error.name != "click":
            raise
        sys.exit("The command line needs click: pip install 'everthread[cli]'")
    everthread()
