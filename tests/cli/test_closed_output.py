"""Output into a closed pipe ends a command quietly; output that cannot be written is one line."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from everthread import ThreadKey, new_message, open_store
from tests.cli.driving import PATIENCE, PROGRAM, environment

PRINTING = (
    ("threads",),
    ("threads", "--json"),
    ("show", "trip"),
    ("show", "trip", "--raw"),
    ("rename", "trip", "Rome"),
    ("tag", "trip", "a=1"),
    ("fork", "trip", "--json"),
    ("undo", "trip", "--yes"),
    ("delete", "trip", "--yes"),
    ("delete-tenant", "acme", "--dry-run"),
    ("prune", "--max-messages", "1", "--yes"),
    ("prune", "--max-messages", "1", "--yes", "--json"),
    ("summarize", "trip", "--dry-run"),
    ("search", "hello"),
    ("export", "-"),
    ("export", "-", "--format", "markdown"),
    ("doctor",),
    ("config", "path"),
    ("config", "show", "--json"),
    ("completion", "bash"),
    ("new-key", "k1"),
    ("--help",),
    ("threads", "--help"),
    ("--version",),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which the default store has a thread, and the configuration a named store."""
    (tmp_path / "config.toml").write_text('[stores.a]\nurl = "memory:"\n')

    async def write() -> None:
        async with open_store(f"sqlite:///{tmp_path}/threads.db") as store:
            await store.append(ThreadKey("trip"), [new_message({"role": "user", "content": "hello"})] * 3)
            await store.append(ThreadKey("trip", "acme"), [new_message({"role": "user", "content": "hello"})])

    asyncio.run(write())
    return tmp_path


def settings(home: Path) -> dict[str, str]:
    places = {"EVERTHREAD_STORE": f"sqlite:///{home}/threads.db", "EVERTHREAD_CONFIG": f"{home}/config.toml"}
    return environment(home, **places)


def writing_to(output: int, home: Path, *arguments: str) -> tuple[int, str]:
    run = subprocess.run(
        [PROGRAM, *arguments],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        env=settings(home),
        check=False,
    )
    return run.returncode, run.stderr


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_closed_pipe_ends_a_command_quietly(command: tuple[str, ...], home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert writing_to(writing, home, *command) == (141, "")
    finally:
        os.close(writing)


def test_an_error_into_a_closed_pipe_ends_quietly(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [PROGRAM, "threads", "--nonsense"]
        assert subprocess.run(command, stderr=writing, env=settings(home), check=False).returncode == 141
    finally:
        os.close(writing)


def test_a_reader_that_ends_first_ends_the_command(home: Path) -> None:
    async def write() -> None:
        async with open_store(f"sqlite:///{home}/threads.db") as store:
            message = new_message({"role": "user", "content": "x" * 200})
            for number in range(40):
                await store.append(ThreadKey(f"t{number}"), [message] * 100)

    asyncio.run(write())
    # Much more than a pipe holds: without its end the command would wait for a reader for ever.
    line = f"set -o pipefail; {PROGRAM} export - | head -1 | wc -l"
    run = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE, env=settings(home), check=False
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (141, "1", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize(
    "command", [("threads",), ("threads", "--json"), ("show", "trip"), ("export", "-"), ("--help",)], ids=" ".join
)
def test_a_full_disk_is_one_line(command: tuple[str, ...], home: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        status, told = writing_to(full.fileno(), home, *command)
    assert (status, told) == (1, "Error: No space left on device.\n")
