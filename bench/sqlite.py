"""SQLite: the standard library's driver in this thread, and everthread, with and without an fsync for each commit."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

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
                    "everthread, from encoded messages": partial(ours, Path(folder, f"given-{how}.db"), how, Given),
                    "everthread, from dictionaries": partial(ours, Path(folder, f"ours-{how}.db"), how, Ours),
                },
            )
            for how in ("full", "normal")
        ]


class Bare:
    """One row a message, the payload encoded beforehand: the least that any store on sqlite3 does."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute("CREATE TABLE messages (thread TEXT, payload BLOB)")
        self._db.execute("CREATE INDEX by_thread ON messages (thread)")

    async def append(self, thread: str, turn: Turn) -> object:
        self._db.execute("BEGIN IMMEDIATE")
        rows = [(thread, payload) for payload in turn.payloads]
        self._db.executemany("INSERT INTO messages VALUES (?, ?)", rows)
        return self._db.execute("COMMIT")

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        query = "SELECT payload FROM messages WHERE thread = ? ORDER BY rowid DESC LIMIT ?"
        return self._db.execute(query, (thread, count)).fetchall()[::-1]

    def close(self) -> None:
        self._db.close()


class Ours:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), [new_message(value) for value in turn.values])

    async def read_last(self, thread: str, count: int) -> Sequence[Message]:
        return (await self._store.read_last(ThreadKey(thread), count)).messages


class Given(Ours):
    """Messages that were encoded and checked beforehand, as the bare driver's are."""

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), turn.messages)


@contextlib.asynccontextmanager
async def bare(path: Path, synchronous: str) -> AsyncIterator[Bare]:
    with contextlib.closing(Bare(path, synchronous)) as contender:
        yield contender


@contextlib.asynccontextmanager
async def ours(path: Path, synchronous: str, kind: type[Ours]) -> AsyncIterator[Ours]:
    async with open_store(f"sqlite:///{path}", synchronous=synchronous) as store:
        yield kind(store)
