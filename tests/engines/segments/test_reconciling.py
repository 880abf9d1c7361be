"""Reconciliation finds and deletes the remains of killed writers, and leaves healthy threads alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta

import pytest

from everthread.engines._segments import reconcile as reconciling
from everthread.engines._segments.log import Fence
from everthread.engines._segments.names import prefix_of, recency_folder
from everthread.engines.memory import MemoryStore
from everthread.engines.objects import ObjectStore
from everthread.model import Inconsistency, NewMessage, Retention, ThreadKey
from everthread.testing import Clock
from tests.engines.segments.scripts import (
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
async def test_finished_calls_leave_no_inconsistency(script: Sequence[Call], fence: Fence) -> None:
    storage = MemoryStorage()
    async with opened(storage, fence=fence) as store:
        for call in script:
            await call(store)
            assert await store.reconcile(KEY.tenant) == ()
    objects = dict(storage.objects)
    async with opened(storage, fence=fence) as store:
        assert await store.reconcile(KEY.tenant, repair=True) == ()
    assert storage.objects == objects


@SCRIPTS
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_repair_deletes_remains_of_a_killed_writer_only(
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
            repaired = await store.reconcile(KEY.tenant, repair=True)
            assert {drift.what: drift.count for drift in repaired} == before, f"killed at operation {step}"
            assert await store.reconcile(KEY.tenant) == ()
            assert (tuple(await store.read(KEY)), await store.get_thread(KEY)) == (messages, thread)
            assert (await store.list_threads(KEY.tenant)).items == (() if thread is None else (thread,))
        seen.update(before)
    assert seen == {reconciling.UNLISTED, reconciling.STALE, *LEFT_BY[request.node.callspec.id.rpartition("-")[2]]}


@SCRIPTS
async def test_repair_at_every_step_does_not_disturb_writers(script: Sequence[Call]) -> None:
    async with MemoryStore(clock=lambda: 1_000_000.0) as oracle:
        await run(oracle, script)
        expected = await observed(oracle)
    storage = MemoryStorage()

    async def repair(_: str) -> None:
        async with opened(storage) as other:
            drifts = await other.reconcile(KEY.tenant, repair=True)
        # What was written for an entry that is still to come is nothing left behind.
        assert reconciling.UNREFERENCED not in {drift.what for drift in drifts}

    async with opened(WatchedStorage(storage, before=repair, after=repair)) as store:
        await run(store, script)
        assert await observed(store) == expected


async def test_repair_lists_threads_without_markers_again() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
        await store.append(ThreadKey("other", KEY.tenant), [message(0)])
        threads = (await store.list_threads(KEY.tenant)).items
    for folder, name in list(storage.objects):
        if folder.startswith("r/"):
            del storage.objects[folder, name]
    async with opened(storage) as store:
        assert await store.reconcile(KEY.tenant, repair=True) == (
            Inconsistency(reconciling.UNLISTED, 2, repaired=True),
        )
        assert (await store.list_threads(KEY.tenant)).items == threads


async def test_a_marker_that_arrives_during_the_pass_is_in_order() -> None:
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
    folder = recency_folder(prefix_of(KEY).tenant)
    await storage.create(folder, "ffffffffff00~nobody~0", b"")
    assert await found(storage, fence=Fence()) == {}, "a write may be under way"
    assert await found(storage) == {reconciling.STALE: 1}
    async with opened(storage, fence=AT_ONCE) as store:
        await store.reconcile(KEY.tenant, repair=True)
        assert len((await store.list_threads(KEY.tenant)).items) == 1
    assert len([of for of, _ in storage.objects if of == folder]) == 1


@pytest.mark.slow
async def test_repair_erases_young_remains_of_a_killed_deletion() -> None:
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
        await store.reconcile(KEY.tenant, repair=True)
        assert b"secret" not in payloads_in(storage)
        assert await store.get_thread(KEY) is None


async def test_names_that_a_deletion_kept_for_an_hour_are_freed() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(3):
            await appending(number)(store)
        await store.delete_thread(KEY)
        await store.reconcile(KEY.tenant, repair=True)
        assert len(storage.objects) == 4
    async with opened(storage, fence=AT_ONCE) as store:
        assert await store.reconcile(KEY.tenant, repair=True) == ()
        assert len(storage.objects) == 1


@pytest.mark.slow
async def test_repair_erases_young_payloads_of_a_killed_rewrite() -> None:
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
        await store.reconcile(KEY.tenant, repair=True)
        assert message(100).payload not in payloads_in(storage)
        assert len(await store.read(KEY)) == 2


async def test_an_expired_thread_is_in_order() -> None:
    clock = Clock()
    async with ObjectStore(MemoryStorage(), clock=clock) as store:
        await store.append(KEY, [message(0)], retention=Retention(expire_after=timedelta(seconds=1)))
        clock.advance(2)
        assert await store.reconcile(KEY.tenant, repair=True) == ()
        assert await store.get_thread(KEY) is None


async def test_a_damaged_thread_is_reported_beside_others() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for name in "ab":
            await store.append(ThreadKey(name), [message(0)])
    ((folder, name),) = [each for each in storage.objects if each[0] == prefix_of(ThreadKey("a")).entries]
    await storage.put(folder, name, b"{}")
    async with opened(storage) as store:
        assert await store.reconcile(repair=True) == (Inconsistency(reconciling.DAMAGED, 1),)
        assert len(await store.read(ThreadKey("b"))) == 1


async def test_other_tenants_are_left_alone() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
    storage.objects = {each: value for each, value in storage.objects.items() if not each[0].startswith("r/")}
    async with opened(storage) as store:
        assert await store.reconcile("another", repair=True) == ()
        assert await store.reconcile("", repair=True) == ()


class StoppedStorage(WatchedStorage):
    """A storage that stops one kind of operation in one kind of folder until it may continue."""

    def __init__(self, inner: MemoryStorage, operation: str, folder: str) -> None:
        super().__init__(inner)
        self._stop = operation, folder
        self.reached = asyncio.Event()
        self.may_continue = asyncio.Event()

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        await self._stopped("create", folder)
        return await super().create(folder, name, data)

    async def delete(self, folder: str, names: Collection[str]) -> None:
        await self._stopped("delete", folder)
        await super().delete(folder, names)

    async def _stopped(self, operation: str, folder: str) -> None:
        if (operation, folder[:1]) == self._stop:
            self.reached.set()
            await self.may_continue.wait()


def age(storage: MemoryStorage) -> None:
    """Let all objects be two hours older."""
    storage.objects = {each: (data, tag, at - 7200) for each, (data, tag, at) in storage.objects.items()}


@contextlib.asynccontextmanager
async def stopped(storage: MemoryStorage, call: Call, operation: str, folder: str) -> AsyncIterator[asyncio.Event]:
    """Run a call until it reaches an operation; set the event to let it continue."""
    watched = StoppedStorage(storage, operation, folder)
    async with opened(watched) as store:
        task = asyncio.create_task(call(store))
        await watched.reached.wait()
        try:
            yield watched.may_continue
        finally:
            watched.may_continue.set()
            await task


async def test_an_append_without_its_marker_yet_is_in_order() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
    age(storage)
    async with stopped(storage, appending(2), "create", "r"):
        for repair in (False, True):
            async with opened(storage) as store:
                assert await store.reconcile(KEY.tenant, repair=repair) == ()
        assert len([folder for folder, _ in storage.objects if folder.startswith("t/")]) == 2
        age(storage)
        assert await found(storage, fence=Fence()) == {reconciling.UNLISTED: 1, reconciling.STALE: 1}, "its writer died"
    assert await found(storage, fence=Fence()) == {}


async def test_the_former_marker_of_an_idle_thread_is_in_order() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
    age(storage)
    async with opened(storage) as store:
        await appending(2)(store)
        assert len([folder for folder, _ in storage.objects if folder.startswith("r/")]) == 2
        assert await found(storage, fence=Fence()) == {}


async def test_a_truncation_before_it_drops_objects_is_in_order() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(3):
            await appending(number)(store)
        await store.compact(KEY)
        await appending(4)(store)
    age(storage)
    async with stopped(storage, lambda store: store.truncate(KEY, start=6), "delete", "s"):
        assert await found(storage, fence=Fence()) == {}
        age(storage)
        assert await found(storage, fence=Fence()) == {reconciling.UNREFERENCED: 1}, "its writer died"


async def test_a_deletion_in_progress_is_in_order() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await appending(1)(store)
        await store.put_document(KEY, "d", b"1")

    async with stopped(storage, lambda store: store.delete_thread(KEY), "delete", "d") as may_continue:

        async def proceed(what: str) -> None:
            if watched.calls["list"] == 6:  # the last request before the second look
                may_continue.set()
                while any(folder.startswith("d/") for folder, _ in storage.objects):
                    await asyncio.sleep(0)

        watched = WatchedStorage(storage, after=proceed)
        async with opened(watched, fence=Fence(listing_s=0)) as store:
            assert await store.reconcile(KEY.tenant) == ()
            assert may_continue.is_set()
