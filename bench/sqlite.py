"""SQLite: the driver of the standard library in this thread and in another, and everthread; with fsync and without."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bench.workload import Group, Turn
from everthread import Message, Store, ThreadKey, new_message, open_store


@contextlib.contextmanager
def groups() -> Iterator[Sequence[Group]]:
    with tempfile.TemporaryDirectory(prefix="everthread-bench-") as folder:
        yield [
            Group(
                f"SQLite, synchronous={how.upper()}",
                {
                    "sqlite3, in this thread": partial(bare, Path(folder, f"bare-{how}.db"), how),
                    "sqlite3, in a thread": partial(bare_in_a_thread, Path(folder, f"thread-{how}.db"), how),
                    "everthread, from encoded messages": partial(ours, Path(folder, f"given-{how}.db"), how, Given),
                    "everthread, from dictionaries": partial(ours, Path(folder, f"ours-{how}.db"), how, Ours),
                },
            )
            for how in ("full", "normal")
        ]


class Bare:
    """Insert one row for each encoded message: the minimum of any store on sqlite3."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute("CREATE TABLE messages (thread TEXT, payload BLOB)")
        self._db.execute("CREATE INDEX by_thread ON messages (thread)")

    async def append(self, thread: str, turn: Turn) -> object:
        return self.insert(thread, turn)

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        return self.select(thread, count)

    def insert(self, thread: str, turn: Turn) -> object:
        self._db.execute("BEGIN IMMEDIATE")
        rows = [(thread, payload) for payload in turn.payloads]
        self._db.executemany("INSERT INTO messages VALUES (?, ?)", rows)
        return self._db.execute("COMMIT")

    def select(self, thread: str, count: int) -> Sequence[object]:
        query = "SELECT payload FROM messages WHERE thread = ? ORDER BY rowid DESC LIMIT ?"
        return self._db.execute(query, (thread, count)).fetchall()[::-1]

    def close(self) -> None:
        self._db.close()


class BareInAThread:
    """Do the same with one hop to a thread for each call: the minimum of a store that never blocks the loop."""

    def __init__(self, bare: Bare, thread: ThreadPoolExecutor) -> None:
        self._bare = bare
        self._thread = thread

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._run(self._bare.insert, thread, turn)

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        return await self._run(self._bare.select, thread, count)

    async def _run(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


class Ours:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), [new_message(value) for value in turn.values])

    async def read_last(self, thread: str, count: int) -> Sequence[Message]:
        return (await self._store.read_last(ThreadKey(thread), count)).messages


class Given(Ours):
    """Append messages that were encoded and checked before, as the bare driver does."""

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), turn.messages)


@contextlib.asynccontextmanager
async def bare(path: Path, synchronous: str) -> AsyncIterator[Bare]:
    with contextlib.closing(Bare(path, synchronous)) as contender:
        yield contender


@contextlib.asynccontextmanager
async def bare_in_a_thread(path: Path, synchronous: str) -> AsyncIterator[BareInAThread]:
    with contextlib.closing(Bare(path, synchronous)) as contender, ThreadPoolExecutor(1) as thread:
        yield BareInAThread(contender, thread)


@contextlib.asynccontextmanager
async def ours(path: Path, synchronous: str, kind: type[Ours]) -> AsyncIterator[Ours]:
    async with open_store(f"sqlite:///{path}", synchronous=synchronous) as store:
        yield kind(store)
