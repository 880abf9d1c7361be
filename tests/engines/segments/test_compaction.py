"""The segment log while it is compacted: readers and writers at every step, and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable

from everthread.engines._segments.compaction import Sizes
from everthread.engines.memory import MemoryStore
from everthread.engines.objects import ObjectStore
from everthread.errors import (
    StoreUnavailableError,
)
from everthread.model import Retention
from tests.engines.segments.scripts import (
    AT_ONCE,
    KEY,
    appending,
    message,
    opened,
)
from tests.engines.storages import MemoryStorage, WatchedStorage


async def test_compaction_shows_readers_no_gap_and_no_duplicate() -> None:
    storage = MemoryStorage()
    async with opened(storage) as warm, opened(storage) as store:
        for number in range(40):
            await appending(number)(store)
        expected = tuple(await warm.read(KEY))
        looks = 0

        async def look(_: str) -> None:
            nonlocal looks
            looks += 1
            async with opened(storage) as cold:
                assert tuple(await cold.read(KEY)) == tuple(await warm.read(KEY)) == expected
                assert tuple(await cold.read_last(KEY, 7)) == expected[-7:]

        async with opened(WatchedStorage(storage, before=look, after=look), fence=AT_ONCE) as compactor:
            await compactor.compact(KEY)
        assert looks > 100
        assert tuple(await store.read(KEY)) == expected


async def test_appends_at_every_step_of_a_compaction_are_kept() -> None:
    storage, numbers = MemoryStorage(), itertools.count(100)
    async with opened(storage) as store:
        for number in range(10):
            await appending(number, count=1)(store)

        async def interfere(what: str) -> None:
            if what in {"create", "put"}:
                await appending(next(numbers), count=1, retention=Retention(max_messages=30))(store)

        async with opened(WatchedStorage(storage, before=interfere)) as compactor:
            # Each try is overtaken, so it ends by giving up; whatever it did must not be seen.
            compactor_done = asyncio.create_task(compactor.compact(KEY))
            with contextlib.suppress(StoreUnavailableError):
                await compactor_done
        page = await store.read(KEY)
        assert [m.seq for m in page] == list(range(page.next_seq - 30, page.next_seq))


async def test_many_stores_that_append_and_compact_at_once_lose_nothing() -> None:
    storage = MemoryStorage()

    async def turn(what: str) -> None:
        await asyncio.sleep(0)

    stores = [ObjectStore(WatchedStorage(storage, before=turn, after=turn)) for _ in range(4)]

    async def work(which: int, store: ObjectStore) -> None:
        for number in range(100):
            await appending(which * 1000 + number)(store)
            if number % 20 == which:
                await store.compact(KEY)

    await asyncio.gather(*(work(which, store) for which, store in enumerate(stores)))
    page = await stores[0].read(KEY)
    for store in stores:
        await store.aclose()
    assert [m.seq for m in page] == list(range(800))
    assert len({m.payload for m in page}) == 800
    assert all(m.turn == m.seq - m.seq % 2 for m in page)


async def test_a_writer_without_pause_does_not_keep_others_out() -> None:
    storage = MemoryStorage()

    async def travel(_: str) -> None:
        await asyncio.sleep(0.002)

    async with opened(WatchedStorage(storage, before=travel)) as busy, opened(storage) as other:
        await appending(0)(busy)
        stop = asyncio.Event()

        async def write() -> int:
            for number in itertools.count(1):
                if stop.is_set():
                    return number
                await appending(number)(busy)
            return 0

        writing = asyncio.create_task(write())
        async with opened(WatchedStorage(storage, before=travel)) as late:
            for number in range(5):
                await asyncio.wait_for(appending(10_000 + number)(late), 60)
        stop.set()
        assert await writing < 600
        assert len({m.payload for m in await other.read(KEY)}) == (await other.read_last(KEY, 1)).next_seq


async def test_a_result_stays_with_its_call_across_joined_objects() -> None:
    call, result = message(2, calls=("c",)), message(3, results=("c",))
    turns = [[message(0), message(1), call], [result], [message(4)], [message(5)]]
    for cut in range(6):
        async with opened(MemoryStorage(), sizes=Sizes(full_messages=3)) as store, MemoryStore() as oracle:
            for turn in turns:
                await store.append(KEY, turn)
                await oracle.append(KEY, turn)
            await store.compact(KEY)
            assert await store.truncate(KEY, start=cut) == await oracle.truncate(KEY, start=cut)


async def test_a_result_stays_with_its_call_across_concurrent_compactions() -> None:
    storage = MemoryStorage()
    prepared, overtaken = asyncio.Event(), asyncio.Event()
    call, result = message(3, calls=("c",)), message(4, results=("c",))

    def at_the_entry(then: Callable[[], Awaitable[object]]) -> WatchedStorage:
        """A storage for a compaction, whose first creation is an object and whose second is the entry."""
        creations = itertools.count()

        async def before(what: str) -> None:
            if what == "create" and next(creations) == 1:
                await then()

        return WatchedStorage(storage, before=before)

    async def wait() -> None:
        prepared.set()
        await overtaken.wait()

    async def let_the_first_go_on() -> None:
        overtaken.set()
        await first

    async with opened(storage) as store, opened(at_the_entry(wait)) as slow, MemoryStore() as oracle:
        for each in (message(0), message(1), message(2), call):
            await store.append(KEY, [each])
        first = asyncio.create_task(slow.compact(KEY))
        await prepared.wait()
        await store.append(KEY, [result])
        async with opened(at_the_entry(let_the_first_go_on)) as other:
            await other.compact(KEY)
        for each in (message(0), message(1), message(2), call, result):
            await oracle.append(KEY, [each])
        assert await store.truncate(KEY, start=4) == await oracle.truncate(KEY, start=4)
