"""Records that are damaged, missing or of another layout are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from everthread.errors import (
    CorruptRecordError,
    SchemaError,
)
from tests.engines.segments.scripts import (
    KEY,
    appending,
    message,
    opened,
)
from tests.engines.storages import MemoryStorage


async def test_an_entry_of_a_newer_layout_is_refused() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [message(0)])
    await spoil(storage, lambda data: data.replace(b'"v":1', b'"v":3', 1))
    async with opened(storage) as store:
        with pytest.raises(SchemaError):
            await store.append(KEY, [message(1)])


@pytest.mark.parametrize("cut", [1, 30, 10_000])
async def test_a_truncated_entry_is_an_error(cut: int) -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [message(0)])
    await spoil(storage, lambda data: data[:-cut] or b"\n")
    async with opened(storage) as store:
        for call in (store.read(KEY), store.append(KEY, [message(1)]), store.get_thread(KEY)):
            with pytest.raises(CorruptRecordError, match="t/"):
                await call


async def test_a_missing_segment_is_an_error() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(5):
            await appending(number)(store)
        await store.compact(KEY)
    for name in [name for name in storage.objects if name[0][0] == "s"]:
        del storage.objects[name]
    async with opened(storage) as store:
        with pytest.raises(CorruptRecordError):
            await store.read(KEY)


async def spoil(storage: MemoryStorage, how: Callable[[bytes], bytes]) -> None:
    for (folder, name), (data, _, _) in list(storage.objects.items()):
        if folder[0] == "t":
            await storage.put(folder, name, how(data))
