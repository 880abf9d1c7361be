"""What killed writers leave is found and removed, beside others that go on; what is in order is left alone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta

import pytest

from everthread.engines._segments import reconciling
from everthread.engines._segments.log import Fence
from everthread.engines._segments.names import place_of, recency_folder
from everthread.engines.memory import MemoryStore
from everthread.engines.objects import ObjectStore
from everthread.model import Drift, NewMessage, Retention, ThreadKey
from everthread.testing import Clock
from tests.engines.segment_scripts import (
    AT_ONCE,
    DELETING,
    KEY,
    REWRITING,
    SCRIPT,
    Call,
    appending,
    message,
    observed,
    opened,
    operations_of,
    payloads_in,
    rewriting,
    run,
)
from tests.engines.storages import KilledError, MemoryStorage, WatchedStorage, killed_at

LEFT_BY = {
    "changes": {reconciling.UNREFERENCED},
    "deletion": {reconciling.REMAINS},
    "rewriting": {reconciling.UNREFERENCED, reconciling.REPLACED},
}
SCRIPTS = pytest.mark.parametrize("script", [SCRIPT, DELETING, REWRITING], ids=["changes", "deletion", "rewriting"])


async def found(storage: MemoryStorage, *, fence: Fence = AT_ONCE) -> dict[str, int]:
    async with opened(storage, fence=fence) as store:
        return {drift.what: drift.count for drift in await store.reconcile(KEY.tenant)}


@SCRIPTS
@pytest.mark.parametrize("fence", [AT_ONCE, Fence()], ids=["at once", "after an hour"])
async def test_what_calls_that_were_finished_leave_is_no_drift(script: Sequence[Call], fence: Fence) -> None:
    storage = MemoryStorage()
    async with opened(storage, fence=fence) as store:
        for call in script:
            await call(store)
            assert await store.reconcile(KEY.tenant) == ()
    objects = dict(storage.objects)
    async with opened(storage, fence=fence) as store:
        assert await store.reconcile(KEY.tenant, mend=True) == ()
    assert storage.objects == objects


@SCRIPTS
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_what_a_killed_writer_left_is_gone_after_mending_and_the_thread_is_as_it_was(
    script: Sequence[Call], after: bool, request: pytest.FixtureRequest
) -> None:
    seen: set[str] = set()
    for step in range(await operations_of(script)):
        storage = MemoryStorage()
        dying = ObjectStore(killed_at(storage, step, after=after), clock=lambda: 1_000_000.0, fence=AT_ONCE)
        await run(dying, script)
        before = await found(storage)
        async with opened(storage, fence=AT_ONCE) as store:
            messages, thread = tuple(await store.read(KEY)), await store.get_thread(KEY)
            mended = await store.reconcile(KEY.tenant, mend=True)
            assert {drift.what: drift.count for drift in mended} == before, f"killed at operation {step}"
            assert await store.reconcile(KEY.tenant) == ()
            assert (tuple(await store.read(KEY)), await store.get_thread(KEY)) == (messages, thread)
            assert (await store.list_threads(KEY.tenant)).items == (() if thread is None else (thread,))
        seen.update(before)
    assert seen == {reconciling.UNLISTED, reconciling.STALE, *LEFT_BY[request.node.callspec.id.rpartition("-")[2]]}


@SCRIPTS
async def test_writers_do_not_notice_that_it_is_mended_at_their_every_step(script: Sequence[Call]) -> None:
    async with MemoryStore(clock=lambda: 1_000_000.0) as oracle:
        await run(oracle, script)
        expected = await observed(oracle)
    storage = MemoryStorage()

    async def mend(_: str) -> None:
        async with opened(storage) as other:
            drifts = await other.reconcile(KEY.tenant, mend=True)
        # What was written for an entry that is still to come is nothing left behind.
        assert reconciling.UNREFERENCED not in {drift.what for drift in drifts}

    async with opened(WatchedStorage(storage, before=mend, after=mend)) as store:
        await run(store, script)
        assert await observed(store) == expected


async def test_a_thread_that_lost_its_place_in_the_listing_gets_it_again() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
        await store.append(ThreadKey("other", KEY.tenant), [message(0)])
        threads = (await store.list_threads(KEY.tenant)).items
    for folder, name in list(storage.objects):
        if folder.startswith("r/"):
            del storage.objects[folder, name]
    async with opened(storage) as store:
        assert await store.reconcile(KEY.tenant, mend=True) == (Drift(reconciling.UNLISTED, 2, mended=True),)
        assert (await store.list_threads(KEY.tenant)).items == threads


async def test_a_place_that_is_taken_while_one_looks_is_no_drift() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
    ((marker, value),) = [(name, value) for name, value in storage.objects.items() if name[0].startswith("r/")]
    del storage.objects[marker]

    async def land(what: str) -> None:
        # The newest entry, whether there is a newer one, and the marker, which is there a moment later.
        if watched.calls["get"] >= 3:
            storage.objects[marker] = value

    watched = WatchedStorage(storage, after=land)
    async with opened(watched) as store:
        assert await store.reconcile(KEY.tenant) == ()


async def test_a_place_in_the_listing_without_a_thread_is_removed() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
    folder = recency_folder(place_of(KEY).tenant)
    await storage.create(folder, "ffffffffff00~nobody~0", b"")
    assert await found(storage, fence=Fence()) == {}, "a write may be under way"
    assert await found(storage) == {reconciling.STALE: 1}
    async with opened(storage, fence=AT_ONCE) as store:
        await store.reconcile(KEY.tenant, mend=True)
        assert len((await store.list_threads(KEY.tenant)).items) == 1
    assert len([of for of, _ in storage.objects if of == folder]) == 1


async def test_what_a_killed_deletion_left_is_erased_however_young() -> None:
    storage = MemoryStorage()

    async def die(what: str) -> None:
        if what == "list":
            raise KilledError

    watched = WatchedStorage(storage)
    async with opened(watched) as dying:
        for number in range(3):
            await dying.append(KEY, [NewMessage(b'"secret %d"' % number)])
        await dying.compact(KEY)
        await dying.put_document(KEY, "d", b'"secret"')
        await dying.append(KEY, [NewMessage(b'"secret"')])
        watched.before = die
        with pytest.raises(KilledError):
            await dying.delete_thread(KEY)
    assert await found(storage, fence=Fence()) == {reconciling.REMAINS: 4}, "turns, a document, two entries"
    async with opened(storage) as store:
        await store.reconcile(KEY.tenant, mend=True)
        assert b"secret" not in payloads_in(storage)
        assert await store.get_thread(KEY) is None


async def test_names_that_a_deletion_kept_for_an_hour_are_freed() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(3):
            await appending(number)(store)
        await store.delete_thread(KEY)
        await store.reconcile(KEY.tenant, mend=True)
        assert len(storage.objects) == 4
    async with opened(storage, fence=AT_ONCE) as store:
        assert await store.reconcile(KEY.tenant, mend=True) == ()
        assert len(storage.objects) == 1


async def test_the_former_payloads_of_a_killed_rewrite_are_erased_however_young() -> None:
    storage = MemoryStorage()

    async def die(what: str) -> None:
        if what == "list":
            raise KilledError

    watched = WatchedStorage(storage)
    async with opened(watched) as dying:
        await appending(1)(dying)
        watched.before = die
        with contextlib.suppress(KilledError):
            await rewriting(100)(dying)
    assert await found(storage, fence=Fence()) == {reconciling.REPLACED: 1}
    async with opened(storage) as store:
        await store.reconcile(KEY.tenant, mend=True)
        assert message(100).payload not in payloads_in(storage)
        assert len(await store.read(KEY)) == 2


async def test_an_expired_thread_is_no_drift_and_stays_gone() -> None:
    clock = Clock()
    async with ObjectStore(MemoryStorage(), clock=clock) as store:
        await store.append(KEY, [message(0)], retention=Retention(expire_after=timedelta(seconds=1)))
        clock.advance(2)
        assert await store.reconcile(KEY.tenant, mend=True) == ()
        assert await store.get_thread(KEY) is None


async def test_a_damaged_thread_is_told_and_stops_nothing() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for name in "ab":
            await store.append(ThreadKey(name), [message(0)])
    ((folder, name),) = [each for each in storage.objects if each[0] == place_of(ThreadKey("a")).entries]
    await storage.put(folder, name, b"{}")
    async with opened(storage) as store:
        assert await store.reconcile(mend=True) == (Drift(reconciling.DAMAGED, 1),)
        assert len(await store.read(ThreadKey("b"))) == 1


async def test_other_tenants_are_left_alone() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
    storage.objects = {each: value for each, value in storage.objects.items() if not each[0].startswith("r/")}
    async with opened(storage) as store:
        assert await store.reconcile("another", mend=True) == ()
        assert await store.reconcile("", mend=True) == ()
