"""Storages for tests of the segment log: one in memory, and one around another that counts, fails and watches."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from everthread.engines._segments.storage import Found, Listed, Storage

R = TypeVar("R")


class KilledError(Exception):
    """The process is gone: this operation and all that follow do nothing."""


class MemoryStorage(Storage):
    """Objects in a dictionary."""

    max_object_bytes = 64 * 1024 * 1024

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], tuple[bytes, str, float]] = {}
        self._tags = itertools.count()

    @property
    def location(self) -> str:
        return "test:"

    async def open(self, *, read_only: bool = False) -> None: ...

    async def close(self) -> None: ...

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        if (folder, name) in self.objects:
            return False
        await self.put(folder, name, data)
        return True

    async def put(self, folder: str, name: str, data: bytes) -> None:
        self.objects[folder, name] = (data, str(next(self._tags)), time.time())

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        if (folder, name) not in self.objects or self.objects[folder, name][1] != tag:
            return False
        await self.put(folder, name, data)
        return True

    async def get(self, folder: str, name: str) -> Found | None:
        found = self.objects.get((folder, name))
        return None if found is None else Found(found[0], found[1])

    async def delete(self, folder: str, names: Collection[str]) -> None:
        for name in names:
            self.objects.pop((folder, name), None)

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        names = sorted(name for of, name in self.objects if of == folder and name > after)
        for at in range(0, len(names), 5):
            chunk = [name for name in names[at : at + 5] if (folder, name) in self.objects]
            yield [Listed(name, self.objects[folder, name][2], len(self.objects[folder, name][0])) for name in chunk]

    async def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        names = {of.removeprefix(f"{folder}/") for of, _ in self.objects if of.startswith(f"{folder}/")}
        for name in sorted(names):
            yield [name]


Hook = Callable[[str], Awaitable[None]]


async def _nothing(_: str) -> None: ...


class WatchedStorage(Storage):
    """A storage that calls a hook before and after each operation; a hook may raise.

    Attributes:
        calls: How often each operation was called.
    """

    def __init__(
        self, inner: MemoryStorage | WatchedStorage, *, before: Hook = _nothing, after: Hook = _nothing
    ) -> None:
        self.inner = inner
        self.before = before
        self.after = after
        self.calls: Counter[str] = Counter()
        self.max_object_bytes = inner.max_object_bytes

    @property
    def location(self) -> str:
        return self.inner.location

    async def open(self, *, read_only: bool = False) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        return await self._watched("create", self.inner.create, folder, name, data)

    async def put(self, folder: str, name: str, data: bytes) -> None:
        await self._watched("put", self.inner.put, folder, name, data)

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        return await self._watched("replace", self.inner.replace, folder, name, data, tag)

    async def get(self, folder: str, name: str) -> Found | None:
        return await self._watched("get", self.inner.get, folder, name)

    async def delete(self, folder: str, names: Collection[str]) -> None:
        await self._watched("delete", self.inner.delete, folder, names)

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        chunks = self.inner.list(folder, after=after)
        while True:
            self.calls["list"] += 1
            await self.before("list")
            chunk = await anext(chunks, None)
            await self.after("list")
            if chunk is None:
                return
            yield chunk

    async def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        async for names in self.inner.folders(folder):
            self.calls["folders"] += 1
            await self.before("folders")
            yield names
            await self.after("folders")

    async def _watched(self, what: str, call: Callable[..., Awaitable[R]], *arguments: object) -> R:
        self.calls[what] += 1
        await self.before(what)
        result = await call(*arguments)
        await self.after(what)
        return result


def killed_at(inner: MemoryStorage, step: int, *, after: bool) -> WatchedStorage:
    """A storage whose process is killed before or after its operation number ``step``."""
    done = itertools.count()
    dead = False

    async def before(_: str) -> None:
        nonlocal dead
        dead = dead or (next(done) == step and not after)
        if dead:
            raise KilledError

    async def afterwards(_: str) -> None:
        nonlocal dead
        # Operations that were under way at the same time do not come back either.
        dead = dead or storage.calls.total() > step
        if dead:
            raise KilledError

    storage = WatchedStorage(inner, before=before, after=afterwards if after else _nothing)
    return storage
