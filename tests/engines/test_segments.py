"""The segment log: crashes at every step, readers at every step, what it costs, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from everthread.contract import REMEMBERED_APPENDS, Store
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.log import Fence
from everthread.engines._segments.storage import Storage
from everthread.engines.memory import MemoryStore
from everthread.engines.objects import ObjectStore
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    OutcomeUnknownError,
    SchemaError,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from everthread.model import NewMessage, Retention, ThreadKey
from everthread.testing import Clock, Harness, ImportSuite, RewriteSuite, StoreContractSuite
from tests.engines.storages import KilledError, MemoryStorage, WatchedStorage, killed_at

KEY = ThreadKey("a thread", "a tenant")
AT_ONCE = Fence(trust_s=0, grace_s=-1)
"""Remembers nothing and removes at once: for one writer at a time only."""

Call = Callable[[Store], Awaitable[object]]


class SegmentHarness(Harness):
    def __init__(self, **options: Any) -> None:
        self.storage = MemoryStorage()
        self.options = options

    def open(self, **options: Any) -> Store:
        return ObjectStore(self.storage, **self.options, **options)

    def another(self) -> SegmentHarness:
        return SegmentHarness(**self.options)


class TestInMemory(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness()


@pytest.mark.campaign
class TestWithoutMemoryOfItsOwn(StoreContractSuite):
    """Each call looks at the storage as a new process would."""

    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness(fence=Fence(trust_s=0, grace_s=3600), cache_bytes=0)


@pytest.mark.campaign
class TestCompactingOften(StoreContractSuite):
    """Objects are joined again and again under everything that the suite does."""

    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness(sizes=Sizes(compact_after=2, full_messages=12, join_segments=1), cache_bytes=0)


def message(number: int, size: int = 20, **links: Any) -> NewMessage:
    return NewMessage(b'"%s"' % str(number).zfill(size).encode(), **links)


def appending(number: int, count: int = 2, **options: Any) -> Call:
    turn = [message(number * 100 + at) for at in range(count)]
    return lambda store: store.append(KEY, turn, append_id=str(number), **options)


async def compacting(store: Store) -> None:
    if isinstance(store, ObjectStore):
        await store.compact(KEY)


def tool_turns() -> list[Call]:
    """A call and its result in turns of their own, so that they come to lie in different objects."""
    call, result = message(1, calls=("c",)), message(2, results=("c",))
    return [
        lambda store: store.append(KEY, [message(0), call], append_id="call"),
        lambda store: store.append(KEY, [message(0)], append_id="between"),
        lambda store: store.append(KEY, [result, message(0)], append_id="result"),
    ]


SCRIPT: list[Call] = [
    *(appending(number) for number in range(3)),
    lambda store: store.update_thread(KEY, title="t", metadata={"big": "x" * 5000}, expected_revision=0),
    *tool_turns(),
    compacting,
    lambda store: store.put_document(KEY, "a document", b"1", expected_revision=0),
    *(appending(number, retention=Retention(max_messages=9)) for number in range(10, 14)),
    lambda store: store.truncate(KEY, stop=18),
    compacting,
    lambda store: store.put_document(KEY, "a document", b"2", expected_revision=1),
    *(appending(number) for number in range(20, 23)),
    lambda store: store.truncate(KEY, start=13),
    compacting,
]

DELETING: list[Call] = [
    *(appending(number) for number in range(3)),
    lambda store: store.put_document(KEY, "d", b"1", expected_revision=0),
    compacting,
    lambda store: store.delete_thread(KEY),
    appending(4),
    lambda store: store.put_document(KEY, "e", b"1", expected_revision=0),
]


async def observed(store: Store) -> object:
    """All that can be seen of the thread."""
    thread = await store.get_thread(KEY)
    names = await store.list_documents(KEY)
    documents = [await store.get_document(KEY, name) for name in names]
    listed = (await store.list_threads(KEY.tenant)).items
    return thread, tuple(await store.read(KEY)), documents, listed


async def repeated(store: Store, call: Call) -> None:
    """Does again what may have been done already."""
    with contextlib.suppress(ConflictError):
        await call(store)


@contextlib.asynccontextmanager
async def opened(storage: Storage, **options: Any) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(storage, clock=lambda: 1_000_000.0, **options) as store:
        yield store


async def run(store: Store, script: Sequence[Call]) -> int:
    """Runs a script until it is killed; returns how many calls were finished."""
    for done, call in enumerate(script):
        try:
            await call(store)
        except KilledError:
            return done
    return len(script)


async def operations_of(script: Sequence[Call]) -> int:
    storage = WatchedStorage(MemoryStorage())
    async with opened(storage, fence=AT_ONCE) as store:
        await run(store, script)
    return storage.calls.total()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("script", [SCRIPT, DELETING], ids=["changes", "deletion"])
async def test_killed_at_any_step_and_run_again_it_is_as_if_it_had_never_been_killed(
    script: Sequence[Call], after: bool
) -> None:
    async with MemoryStore(clock=lambda: 1_000_000.0) as oracle:
        await run(oracle, script)
        expected = await observed(oracle)
    for step in range(await operations_of(script)):
        storage = MemoryStorage()
        dying = ObjectStore(killed_at(storage, step, after=after), clock=lambda: 1_000_000.0, fence=AT_ONCE)
        try:
            done = await run(dying, script)
        finally:
            with contextlib.suppress(KilledError):
                await dying.aclose()
        async with opened(storage, fence=AT_ONCE) as store:
            if done < len(script):
                await repeated(store, script[done])
            await run(store, script[done + 1 :])
            assert await observed(store) == expected, f"killed at operation {step}"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_any_step_a_call_is_done_or_not_begun(after: bool) -> None:
    seen: list[object] = []
    async with MemoryStore(clock=lambda: 1_000_000.0) as oracle:
        for call in SCRIPT:
            seen.append(tuple(await oracle.read(KEY)))
            await call(oracle)
        seen.append(tuple(await oracle.read(KEY)))
    for step in range(await operations_of(SCRIPT)):
        storage = MemoryStorage()
        dying = ObjectStore(killed_at(storage, step, after=after), clock=lambda: 1_000_000.0, fence=AT_ONCE)
        done = await run(dying, SCRIPT)
        async with opened(storage) as store:
            assert tuple(await store.read(KEY)) in seen[done : done + 2], f"killed at operation {step}"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_thread_whose_writer_was_killed_is_listed(after: bool) -> None:
    script = [appending(1), appending(2), lambda store: store.truncate(KEY, start=1), appending(3)]
    for step in range(await operations_of(script)):
        storage = MemoryStorage()
        await run(ObjectStore(killed_at(storage, step, after=after), fence=AT_ONCE), script)
        async with opened(storage) as store:
            thread = await store.get_thread(KEY)
            assert (await store.list_threads(KEY.tenant)).items == (() if thread is None else (thread,))


async def test_readers_at_every_step_of_a_compaction_see_no_gap_and_no_double() -> None:
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
                await asyncio.wait_for(appending(10_000 + number)(late), 20)
        stop.set()
        assert await writing < 600
        assert len({m.payload for m in await other.read(KEY)}) == (await other.read_last(KEY, 1)).next_seq


async def test_a_result_is_not_cut_from_its_call_when_joined_objects_lie_between_them() -> None:
    call, result = message(2, calls=("c",)), message(3, results=("c",))
    turns = [[message(0), message(1), call], [result], [message(4)], [message(5)]]
    for cut in range(6):
        async with opened(MemoryStorage(), sizes=Sizes(full_messages=3)) as store, MemoryStore() as oracle:
            for turn in turns:
                await store.append(KEY, turn)
                await oracle.append(KEY, turn)
            await store.compact(KEY)
            assert await store.truncate(KEY, start=cut) == await oracle.truncate(KEY, start=cut)


# Lost answers


async def test_an_append_whose_answer_was_lost_takes_effect_once() -> None:
    for which in (1, 2):
        creations = 0

        async def lose(what: str, which: int = which) -> None:
            nonlocal creations
            creations += what == "create"
            if what == "create" and creations == which:
                raise StoreUnavailableError("no answer")

        storage = MemoryStorage()
        async with opened(storage) as store:
            await store.append(KEY, [message(0)])
        async with opened(WatchedStorage(storage, after=lose)) as store:
            await store.append(KEY, [message(1)])
            assert [m.payload for m in await store.read(KEY)] == [message(0).payload, message(1).payload]


async def test_a_write_that_gets_no_answer_is_of_unknown_outcome_and_may_be_repeated() -> None:
    async def lose(what: str) -> None:
        if what == "create":
            raise StoreUnavailableError("no answer")

    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(0)(store)
    async with opened(WatchedStorage(storage, before=lose)) as store:
        with pytest.raises(OutcomeUnknownError):
            await appending(1)(store)
    async with opened(storage) as store:
        await appending(1)(store)
        await appending(1)(store)
        assert len(await store.read(KEY)) == 4


async def test_a_late_write_loses_against_the_repetition_of_it() -> None:
    """A request that hangs in the network while its sender gives up and another process repeats it."""
    storage, late = MemoryStorage(), asyncio.Event()

    async def hang(what: str) -> None:
        if what == "create":
            late.set()
            await asyncio.Event().wait()

    hanging = WatchedStorage(storage, before=hang)
    store = ObjectStore(hanging)
    stuck = asyncio.create_task(appending(1)(store))
    await late.wait()
    async with opened(storage) as other:
        await appending(1)(other)
        assert await storage.create("t/x/y", "0", b"") is True
        assert len(await other.read(KEY)) == 2
    stuck.cancel()


# What stays behind


def payloads_in(storage: MemoryStorage) -> bytes:
    return b"".join(data for data, _, _ in storage.objects.values())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_nothing_superfluous_stays_after_a_kill_and_a_later_compaction(after: bool) -> None:
    async def swept(storage: MemoryStorage) -> dict[str, int]:
        async with opened(storage, fence=AT_ONCE) as store:
            await store.compact(KEY)
            await store.list_threads(KEY.tenant)
        folders = [folder[0] for folder, _ in storage.objects]
        return {folder: folders.count(folder) for folder in "tsdr"}

    clean = MemoryStorage()
    async with opened(clean, fence=AT_ONCE) as store:
        await run(store, SCRIPT)
    expected = await swept(clean)
    for step in range(await operations_of(SCRIPT)):
        storage = MemoryStorage()
        dying = ObjectStore(killed_at(storage, step, after=after), clock=lambda: 1_000_000.0, fence=AT_ONCE)
        done = await run(dying, SCRIPT)
        async with opened(storage, fence=AT_ONCE) as store:
            if done < len(SCRIPT):
                await repeated(store, SCRIPT[done])
            await run(store, SCRIPT[done + 1 :])
        assert await swept(storage) == expected, f"killed at operation {step}"


async def test_a_deleted_thread_leaves_no_content_and_an_empty_listing() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(100):
            await store.append(KEY, [NewMessage(b'"secret"')], default_title="secret", append_id=f"secret{number}")
        await store.put_document(KEY, "secret", b'"secret"')
        await store.update_thread(KEY, metadata={"secret": "secret" * 1000})
        await store.compact(KEY)
        assert await store.delete_thread(KEY)
    assert b"secret" not in payloads_in(storage)
    assert {folder[0] for folder, _ in storage.objects} == {"t"}


async def test_an_expired_thread_is_removed_by_the_next_listing() -> None:
    storage, clock = MemoryStorage(), Clock()
    async with ObjectStore(storage, clock=clock) as store:
        await store.append(KEY, [NewMessage(b'"secret"')], retention=Retention(expire_after=timedelta(seconds=1)))
        clock.advance(2)
        assert not (await store.list_threads(KEY.tenant)).items
    assert b"secret" not in payloads_in(storage)


async def test_compacting_empties_what_was_trimmed() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [NewMessage(b'"secret"')])
        await store.append(KEY, [message(1)], retention=Retention(max_messages=1))
        await store.compact(KEY)
        assert b"secret" not in payloads_in(storage)
        assert [m.seq for m in await store.read(KEY)] == [1]


async def test_names_of_entries_are_freed_only_after_the_grace_time() -> None:
    storage = MemoryStorage()
    async with opened(storage) as late:
        await appending(0)(late)
        async with opened(storage) as store:
            for number in range(1, 2 * Sizes().compact_after):
                await appending(number)(store)
            await store.compact(KEY)
        # The one that has seen nothing of all this creates no entry that was there before.
        await appending(999)(late)
        assert [m.seq for m in await late.read(KEY)] == list(range(4 * Sizes().compact_after + 2))


async def test_a_long_thread_is_kept_in_few_objects_of_bounded_size() -> None:
    storage = MemoryStorage()
    async with opened(storage, fence=AT_ONCE) as store:
        for number in range(1500):
            await appending(number, count=4)(store)
            if number % Sizes().compact_after == 0:
                # Lets compaction, which runs beside, keep up with a storage that takes no time.
                await store.compact(KEY)
        expected = [message(number * 100 + at).payload for number in range(1500) for at in range(4)]
        assert [m.payload for m in await store.read(KEY)] == expected
    segments = [data.count(b"\n") for (folder, _), (data, _, _) in storage.objects.items() if folder[0] == "s"]
    assert len(segments) < 20
    assert max(segments) <= Sizes().full_messages + 1


# Costs


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
        await asyncio.wait_for(store.append(KEY, [message(1)]), 10)
        assert waves == 2


async def test_waiting_appends_to_one_thread_share_an_entry() -> None:
    watched = WatchedStorage(MemoryStorage())
    async with opened(watched) as store:
        await store.append(KEY, [message(0)])
        watched.calls.clear()
        await asyncio.gather(*(appending(number)(store) for number in range(1, 65)))
        assert watched.calls["create"] == 2
        assert len(await store.read(KEY)) == 129


async def test_the_newest_messages_of_a_long_thread_are_read_from_few_objects() -> None:
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
async def test_a_page_of_threads_costs_the_same_however_many_there_are(threads: int) -> None:
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


# Records


async def test_an_entry_of_a_newer_layout_is_refused() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [message(0)])
    await spoil(storage, lambda data: data.replace(b'"v":1', b'"v":2', 1))
    async with opened(storage) as store:
        with pytest.raises(SchemaError):
            await store.append(KEY, [message(1)])


@pytest.mark.parametrize("cut", [1, 30, 10_000])
async def test_an_entry_that_was_cut_short_is_an_error_and_never_skipped(cut: int) -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [message(0)])
    await spoil(storage, lambda data: data[:-cut] or b"\n")
    async with opened(storage) as store:
        for call in (store.read(KEY), store.append(KEY, [message(1)]), store.get_thread(KEY)):
            with pytest.raises(CorruptRecordError, match="t/"):
                await call


async def test_a_segment_that_is_missing_is_an_error_and_never_skipped() -> None:
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


async def test_metadata_that_is_refused_leaves_nothing() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [message(0)])
        with pytest.raises(ConflictError):
            await store.update_thread(KEY, metadata={"a": "x" * 9000}, expected_revision=5)
        with pytest.raises(ThreadNotFoundError):
            await store.update_thread(ThreadKey("none"), metadata={"a": "x" * 9000})
    assert b"xxx" not in payloads_in(storage)
