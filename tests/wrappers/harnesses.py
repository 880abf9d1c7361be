"""Where wrapped stores are tested: around the memory engine and around SQLite, opened twice on the same threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.engines.sqlite import SqliteStore
from everthread.testing import Harness

Wrap = Callable[[Store], Store]
Place = Callable[..., Store]
"""Opens a store on one place; takes the options of any engine."""


def memory_place() -> Place:
    threads: Threads = {}
    return lambda **options: MemoryStore(threads, **options)


def sqlite_places(folder: Path) -> Callable[[], Place]:
    names = itertools.count()

    def place() -> Place:
        path = folder / f"{next(names)}.db"
        return lambda **options: SqliteStore(path, synchronous="normal", **options)

    return place


class WrappedHarness(Harness):
    """Each opening wraps another store on the same place."""

    def __init__(self, fresh_place: Callable[[], Place], wrap: Wrap) -> None:
        self._fresh_place = fresh_place
        self._wrap = wrap
        self.place = fresh_place()

    def open(self, **options: Any) -> Store:
        return self._wrap(self.place(**options))

    def another(self) -> Self:
        return type(self)(self._fresh_place, self._wrap)
