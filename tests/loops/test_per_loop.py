"""A store for each event loop: what it opens it closes, however the loops end. In a process of its own, to count."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import empty_place

ROOT = Path(__file__).parents[2]
SLOW = pytest.mark.slow
PLACES = ["redis", *(pytest.param(engine, marks=SLOW) for engine in ("sqlite", "postgres", "objects"))]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("engine", PLACES)
def test_nothing_is_left_of_a_loop(request: pytest.FixtureRequest, engine: str, loop: str) -> None:
    url = empty_place(request, engine)
    command = [sys.executable, "-W", "always::ResourceWarning", "-m", "tests.loops.counting", url, loop]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr
    assert "ResourceWarning" not in done.stderr
