"""Drives the example client of `examples/lab11` in a process of its own, as somebody who pipes what they type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def talk(generation: str, redis_url: str | None, *typed: str, python: str = sys.executable) -> tuple[int, str]:
    """Runs the client until its input ends; returns its exit code, and all that it printed."""
    hidden = {"REDIS_URL", "AOAI_ENDPOINT", "AOAI_DEPLOYMENT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    if redis_url is not None:
        environment["REDIS_URL"] = redis_url
    done = subprocess.run(
        [python, "-m", f"{generation}.app"],
        cwd=ROOT / "examples" / "lab11",
        input="".join(f"{line}\n" for line in typed),
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def holds_a_conversation_across_processes(generation: str, redis_url: str, other: str) -> None:
    """Two processes, one thread: the second loads it, and the agent knows what it was told in the first."""
    code, first = talk(generation, redis_url, "2", "1", f"I am Ana and I love trains ({other})", "nonsense", "0")
    assert code == 0, first
    assert "This thread is empty." in first
    assert "Please type 1" in first
    assert "Goodbye." in first
    code, second = talk(
        generation, redis_url, "3", "1", "1", "What is my name?", "4", "2", "3", "", "3", "99", "3", "x"
    )
    assert code == 0, second
    assert f"1. I am Ana and I love trains ({other}) (2 messages)" in second
    assert f"- USER: I am Ana and I love trains ({other})" in second
    assert "Ana" in second.partition("TravelPlanner: ")[2].partition("\n")[0]
    assert "This thread is empty." in second
    assert second.count("Nothing was loaded.") == 3
    assert "Goodbye." in second


def refuses_what_it_cannot_reach(generation: str) -> None:
    """One clear message, no traceback, no password."""
    code, said = talk(generation, None)
    assert (code, said.count("\n")) == (2, 1)
    code, said = talk(generation, "redis://:s3cret@127.0.0.1:1/0", "1", "hello", "0")
    assert code == 1
    assert "127.0.0.1:1" in said
    assert "s3cret" not in said
    assert "Traceback" not in said
