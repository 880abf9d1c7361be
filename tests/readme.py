"""The examples of the README and of some pages, run unchanged but for the address of the Redis server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
_OTHERS = ("integrations/agent-framework-betas.md", "how-to/search-by-meaning.md")
_PAGES = README + "".join((ROOT / "docs" / name).read_text() for name in _OTHERS)
REDIS_URL_IN_README = "redis://localhost:6379/0"


def example(name: str, *, redis_url: str = REDIS_URL_IN_README) -> str:
    """Return the code below the marker of this name."""
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```python\n(.*?)```", _PAGES, re.DOTALL)
    assert found is not None, f"no page has an example {name!r}"
    return found[1].replace(REDIS_URL_IN_README, redis_url)


def install_line(name: str) -> list[str]:
    """Return the requirements of the command below the marker of this name."""
    found = re.search(rf"<!-- install: {re.escape(name)} -->\n```sh\npip install (.*)\n```", _PAGES)
    assert found is not None, f"no page has an install line {name!r}"
    return shlex.split(found[1])


def uv(*arguments: str) -> None:
    """Run uv."""
    subprocess.run([sys.executable, "-m", "uv", *arguments], check=True, timeout=500)


def installed(requirements: list[str], wheel: Path, folder: Path) -> str:
    """Return the Python of a new environment with these requirements, where everthread is the wheel."""
    environment = folder / "venv"
    uv("venv", "--quiet", str(environment))
    python = str(environment / "bin" / "python")
    built = [re.sub(r"^everthread(\[.*\])?$", rf"everthread\1 @ {wheel.as_uri()}", each) for each in requirements]
    uv("pip", "install", "--quiet", "--python", python, *built)
    return python


def run_example(code: str, folder: Path, *, python: str = sys.executable, **environment: str) -> str:
    """Run the code in a process of its own in this folder, and return its output."""
    ran = subprocess.run(
        [python, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
