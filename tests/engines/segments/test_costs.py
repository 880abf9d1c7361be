"""What the segment log costs, in calls of the storage and in bytes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from everthread.contract import REMEMBERED_APPENDS
from everthread.engines._segments.names import prefix_of
from everthread.engines._segments.storage import Storage
from everthread.engines.objects import ObjectStore
from everthread.listing import undo
from everthread.model import ThreadKey
from everthread.testing import Clock
from tests.engines.segments.scripts import (
    KEY,
    appending,
    message,
    opened,
)
from tests.engines.storages import MemoryStorage, WatchedStorage


async def long_thread(storage: Storage, messages: int) -> None:
    async with opened(storage) as store:
        turns = messages // 500
        for number in range(turns):
            await store.append(KEY, [message(number * 1000 + at, size=200) for at in range(500)])
        await store.compact(KEY)


@pytest.mark.parametrize("messages", [500, 20_000])
async def test_an_append_costs_the_same_at_any_length(messages: int) -> None:
    storage = MemoryStorage()
    await long_thread(storage, messages)
    watched = WatchedStorage(storage)
    async with opened(watched) as store:
        await store.append(KEY, [message(1)])
        # A process that has not seen the thread: where the log ends, the newest entry, then the entry and its marker.
        assert watched.calls - Counter(delete=1) == Counter(list=1, get=1, create=2)
        watched.calls.clear()
        await store.append(KEY, [message(2)])
        assert watched.calls["create"] == 2
        assert watched.calls.keys() <= {"create", "delete"}
        assert watched.calls["delete"] <= 1


async def test_an_append_waits_for_one_round_trip() -> None:
    storage, waves = MemoryStorage(), 0
    async with opened(storage) as store:
        await store.append(KEY, [message(0)])
    together = asyncio.Barrier(2)

    async def meet(what: str) -> None:
        nonlocal waves
        if what == "create":
            # Only if both are sent at the same time does either come through.
            await together.wait()
            waves += 1

    watched = WatchedStorage(storage, before=meet)
    async with opened(watched) as store:
        await store.get_thread(KEY)
        await asyncio.wait_for(store.append(KEY, [message(1)]), 60)
        assert waves == 2


async def test_waiting_appends_to_one_thread_share_an_entry() -> None:
    watched = WatchedStorage(MemoryStorage())
    async with opened(watched) as store:
        await store.append(KEY, [message(0)])
        watched.calls.clear()
        await asyncio.gather(*(appending(number)(store) for number in range(1, 65)))
        assert watched.calls["create"] == 2
        assert len(await store.read(KEY)) == 129


async def test_reading_the_newest_messages_needs_few_objects() -> None:
    storage = MemoryStorage()
    await long_thread(storage, 20_000)
    watched = WatchedStorage(storage)
    async with opened(watched) as store:
        assert len(await store.read_last(KEY, 20)) == 20
        assert watched.calls["get"] <= 2
        watched.calls.clear()
        assert len(await store.read_last(KEY, 20)) == 20
        assert watched.calls == {"get": 1}


@pytest.mark.parametrize("threads", [60, 600])
async def test_a_page_costs_the_same_for_any_number_of_threads(threads: int) -> None:
    watched = WatchedStorage(MemoryStorage())
    clock = Clock()
    async with ObjectStore(watched, clock=clock) as store:
        for number in range(threads):
            clock.advance(1)
            await store.append(ThreadKey(f"thread {number}"), [message(number)])
    watched.calls.clear()
    async with ObjectStore(watched, clock=clock) as store:
        assert len((await store.list_threads(limit=20)).items) == 20
        # As many as the listing's chunks hold, which are of five here.
        assert watched.calls["get"] <= 25
        assert watched.calls["list"] <= 40


async def test_the_state_that_entries_carry_stays_small() -> None:
    storage = MemoryStorage()
    await long_thread(storage, 20_000)
    async with opened(storage) as store:
        for number in range(REMEMBERED_APPENDS):
            await appending(number, count=1)(store)
        await asyncio.sleep(0)
    sizes = sorted(len(data) for (folder, _), (data, _, _) in storage.objects.items() if folder[0] == "t")
    assert sizes[len(sizes) // 2] < 6000


async def test_an_append_costs_the_same_after_many_undos() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(300):
            await store.append(KEY, [message(number)])
            await store.append(KEY, [message(0)])
            await undo(store, KEY)
        await store.compact(KEY)
        await store.append(KEY, [message(300)])
        name = min(name for folder, name in storage.objects if folder == prefix_of(KEY).entries)
        assert len(storage.objects[prefix_of(KEY).entries, name][0]) < 1000


@pytest.mark.parametrize("documents", [30, 300])
async def test_a_page_of_names_costs_the_same_for_any_number_of_documents(documents: int) -> None:
    watched = WatchedStorage(MemoryStorage())
    async with opened(watched) as store:
        for number in range(documents):
            await store.put_document(KEY, f"run.step.{number:04}", b"1")
            await store.put_document(KEY, f"other:{number}", b"1")
        watched.calls.clear()
        names = await store.list_documents(KEY, prefix="run.step.", after="run.step.0015", limit=3)
        assert names == ("run.step.0016", "run.step.0017", "run.step.0018")
        # The newest state; the page; no shortened name begins like "runstep". A listing has chunks of five here.
        assert watched.calls["get"] == 1
        assert watched.calls["list"] <= 5
