"""Threads with positions that no message has, since turns were undone before their objects were joined."""

from __future__ import annotations

import random

import msgspec
import pytest

from everthread.contract import Store
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.log import Fence
from everthread.engines._segments.names import prefix_of
from everthread.engines.memory import MemoryStore
from everthread.engines.objects import ObjectStore
from everthread.model import Retention, Rewrite
from everthread.testing import Clock
from tests.engines.segments.scripts import KEY, message
from tests.engines.storages import MemoryStorage


async def with_holes(store: Store, turns: int = 30) -> None:
    """Keeps every third turn of one or two messages."""
    for turn in range(turns):
        first = (await store.append(KEY, [message(turn)] * (1 + turn % 2))).first_seq
        if turn % 3:
            await store.truncate(KEY, stop=first)


def small(storage: MemoryStorage, clock: Clock) -> ObjectStore:
    """A store that joins whatever there is at each compaction."""
    return ObjectStore(storage, sizes=Sizes(compact_after=10_000), fence=Fence(listing_s=0), cache_bytes=0, clock=clock)


async def same(store: Store, reference: Store) -> None:
    """Compares a thread with the reference engine's, from every side."""
    assert await store.get_thread(KEY) == await reference.get_thread(KEY)
    end = (await reference.read(KEY)).next_seq
    for start in range(0, end + 2, 3):
        assert await store.read(KEY, start=start) == await reference.read(KEY, start=start)
        for count in (1, 4):
            assert await store.read(KEY, start=start, limit=count) == await reference.read(
                KEY, start=start, limit=count
            )
            assert await store.read_last(KEY, count, before=start) == await reference.read_last(
                KEY, count, before=start
            )


@pytest.mark.parametrize("seed", range(6))
async def test_a_joined_thread_with_holes_is_as_in_memory(seed: int) -> None:
    chance, clock = random.Random(seed), Clock()
    storage = MemoryStorage()
    async with small(storage, clock) as store, MemoryStore(clock=clock) as reference:
        for each in (store, reference):
            await with_holes(each)
        await store.compact(KEY)
        await same(store, reference)
        for step in range(6):
            end = (await reference.read(KEY)).next_seq
            start, stop = chance.randrange(end // 3), end - chance.randrange(end // 3)
            await store.truncate(KEY, start=start) if step % 2 else await store.truncate(KEY, stop=stop)
            await reference.truncate(KEY, start=start) if step % 2 else await reference.truncate(KEY, stop=stop)
            await same(store, reference)
            for each in (store, reference):
                await with_holes(each, 6)
            await store.compact(KEY)
            await same(store, reference)
        for each in (store, reference):
            await each.append(KEY, [message(1)], retention=Retention(max_messages=9))
        await same(store, reference)
        old = (await reference.read_last(KEY, 5)).messages[0]
        for each in (store, reference):
            assert await each.rewrite(KEY, [Rewrite(old.seq, old.payload, message(7, size=50).payload)]) == 1
        await same(store, reference)


async def test_runs_that_an_older_release_left_are_merged() -> None:
    storage, clock = MemoryStorage(), Clock()
    async with small(storage, clock) as store, MemoryStore(clock=clock) as reference:
        for each in (store, reference):
            await with_holes(each)
        await store.compact(KEY)
        prefix = prefix_of(KEY)
        view = await store._threads.current(prefix)
        assert view.state is not None
        (run,) = view.state.runs
        block = await store._threads.block(prefix, run)
        parts = [block.run(group.first, group.stop, run.name) for group in block.groups]
        former = msgspec.structs.replace(view.state, runs=[part for part in parts if part is not None])
        name = min(name for folder, name in storage.objects if folder == prefix.entries)
        line = {"v": 1, "nonce": "0", "state": former}
        await storage.put(prefix.entries, name, msgspec.json.encode(line).replace(b",0]", b"]") + b"\n")
        async with small(storage, clock) as other:
            await same(other, reference)
            await other.compact(KEY)
            view = await other._threads.current(prefix)
            assert view.state is not None
            assert len(view.state.runs) == 1
            await same(other, reference)
