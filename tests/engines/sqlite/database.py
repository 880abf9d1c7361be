"""A look into the files of SQLite, turns for tests, and another program that writes."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from everthread import (
    NewMessage,
    ThreadKey,
)

KEY = ThreadKey("a")


def tool_turn(number: int) -> list[NewMessage]:
    call = f"call {number}"
    return [
        NewMessage(b'"question"'),
        NewMessage(b'"call"', calls=(call,)),
        NewMessage(b'"result"', results=(call,)),
        NewMessage(b'"answer"'),
    ]


def look(path: Path, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def log_frames(path: Path) -> list[bool]:
    """The pages in the write-ahead log in their order, and whether each ends a transaction.

    Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    data = path.with_name(path.name + "-wal").read_bytes()
    salts = data[16:24]
    frames = [data[at : at + 24] for at in range(32, len(data), 24 + 4096)]
    return [struct.unpack(">I", frame[4:8])[0] != 0 for frame in frames if frame[8:16] == salts]


@contextlib.contextmanager
def other_writer(path: Path) -> Iterator[None]:
    """Another connection that keeps the lock for as long as the block runs."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    yield
    db.execute("ROLLBACK")
    db.close()


def run_python(script: str) -> str:
    """Runs a script in a Python of its own; it must end well within a minute."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_at_the_same_time(script: str, processes: int) -> None:
    """Runs ``main(number)`` of a script in several processes, which wait for one another before they begin."""
    run_python(f"{textwrap.dedent(script)}\nprocesses = {processes}\n{_FORKED}")


_FORKED = """
import asyncio, os, sys

begin, go = os.pipe()
children = []
for number in range(processes):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(begin, 1)  # until the parent closes its end
        try:
            asyncio.run(main(number))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
