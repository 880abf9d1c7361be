"""The README's examples, run as they stand but for the address of the Redis server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REDIS_URL_IN_README = "redis://localhost:6379/0"


def example(name: str, *, redis_url: str = REDIS_URL_IN_README) -> str:
    """The code that stands below the marker of this name."""
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"README.md has no example {name!r}"
    return found[1].replace(REDIS_URL_IN_README, redis_url)


def run_example(code: str, folder: Path, **environment: str) -> str:
    """What the code prints, run in a process of its own in this folder."""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
