"""Listings of the segment log while threads move in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from everthread.engines._segments.names import recency_folder
from everthread.engines.objects import ObjectStore
from everthread.model import Thread, ThreadKey
from everthread.testing import Clock
from tests.engines.segments.scripts import message, opened
from tests.engines.storages import MemoryStorage, WatchedStorage

KEYS = [ThreadKey(f"{i:02}") for i in range(12)]


async def with_threads(storage: MemoryStorage, clock: Clock) -> None:
    async with ObjectStore(storage, clock=clock) as store:
        for key in KEYS:
            clock.advance(1)
            await store.append(key, [message(0)])


async def shown(storage: MemoryStorage, meanwhile: Callable[[int], Awaitable[None]], *, limit: int) -> list[Thread]:
    """The first page of a listing; `meanwhile` is called after each request for names."""
    requests = 0

    async def act(what: str) -> None:
        nonlocal requests
        if what == "list":
            requests += 1
            await meanwhile(requests)

    async with opened(WatchedStorage(storage, after=act)) as store:
        return list((await store.list_threads(limit=limit)).items)


async def test_a_listing_shows_a_thread_that_moves_after_its_marker() -> None:
    storage, clock = MemoryStorage(), Clock()
    await with_threads(storage, clock)
    clock.advance(1)

    async def move(request: int) -> None:
        if request == 1:
            # The store is closed at once, which removes the former marker.
            async with ObjectStore(storage, clock=clock) as store:
                await store.append(KEYS[-2], [message(1)])

    threads = await shown(storage, move, limit=3)
    assert [thread.key for thread in threads] == [KEYS[-2], KEYS[-1], KEYS[-3]]


async def test_a_listing_of_many_requests_shows_a_moving_thread() -> None:
    # A request gives five names here: the oldest thread is in the third.
    storage, clock = MemoryStorage(), Clock()
    await with_threads(storage, clock)

    async def move(request: int) -> None:
        if request == 1:
            clock.advance(1)
            async with ObjectStore(storage, clock=clock) as store:
                await store.append(KEYS[0], [message(1)])

    threads = await shown(storage, move, limit=50)
    assert [thread.key for thread in threads] == [KEYS[0], *KEYS[:0:-1]]


async def test_a_moving_thread_keeps_few_markers_however_often_it_moves() -> None:
    storage, clock = MemoryStorage(), Clock()
    async with ObjectStore(storage, clock=clock) as store:
        for _ in range(100):
            clock.advance(1)
            await store.append(KEYS[0], [message(0)])
            markers = [name for folder, name in storage.objects if folder == recency_folder("~")]
            assert len(markers) <= 4
    assert len([name for folder, name in storage.objects if folder == recency_folder("~")]) == 1


async def test_a_former_marker_outlives_earlier_listings() -> None:
    storage, clock = MemoryStorage(), Clock()
    async with ObjectStore(storage, clock=clock) as store:
        await store.append(KEYS[0], [message(0)])
        (first,) = [name for folder, name in storage.objects if folder == recency_folder("~")]
        for _ in range(10):
            clock.advance(1)
            await store.append(KEYS[0], [message(0)])
            assert (recency_folder("~"), first) in storage.objects
        assert len((await store.list_threads()).items) == 1


async def test_a_thread_without_a_new_marker_is_on_a_later_page() -> None:
    storage, clock = MemoryStorage(), Clock()
    await with_threads(storage, clock)
    markers = {each for each in storage.objects if each[0].startswith("r/")}
    clock.advance(1)
    async with ObjectStore(storage, clock=clock) as store:
        await store.append(KEYS[0], [message(1)])
    moved = {each for each in storage.objects if each[0].startswith("r/")}
    for each in moved - markers:
        del storage.objects[each]
    for each in markers - moved:
        storage.objects[each] = (b"", "0", 0.0)
    async with ObjectStore(storage, clock=clock) as store:
        first = await store.list_threads(limit=4)
        rest = await store.list_threads(limit=50, cursor=first.cursor)
    assert sorted(thread.key for thread in [*first, *rest]) == KEYS


async def test_a_thread_whose_newest_entry_is_damaged_stops_no_listing() -> None:
    storage, clock = MemoryStorage(), Clock()
    await with_threads(storage, clock)
    (damaged,) = [each for each in storage.objects if each[0] == "t/~/05"]
    await storage.put(*damaged, b"{")
    storage.objects = {each: (data, tag, 0.0) for each, (data, tag, _) in storage.objects.items()}
    async with ObjectStore(storage, clock=clock) as store:
        for _ in range(2):
            assert {thread.key for thread in await store.list_threads()} == {*KEYS} - {KEYS[5]}
        assert len([each for each in storage.objects if each[0].startswith("r/")]) == len(KEYS)
