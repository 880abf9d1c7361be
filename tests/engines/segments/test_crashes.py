"""The segment log under kills at every step, and when answers are lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

import pytest

from everthread.capabilities import SupportsImport
from everthread.contract import Store
from everthread.engines.memory import MemoryStore
from everthread.engines.objects import ObjectStore
from everthread.errors import (
    OutcomeUnknownError,
    StoreUnavailableError,
)
from everthread.model import from_milliseconds
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
    repeated,
    rewriting,
    run,
)
from tests.engines.storages import KilledError, MemoryStorage, WatchedStorage, killed_at

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("script", [SCRIPT, DELETING, REWRITING], ids=["changes", "deletion", "rewriting"])
async def test_repeating_a_killed_script_gives_the_same_state(script: Sequence[Call], after: bool) -> None:
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
@pytest.mark.parametrize("script", [SCRIPT, REWRITING], ids=["changes", "rewriting"])
async def test_a_killed_call_is_complete_or_absent(script: Sequence[Call], after: bool) -> None:
    seen: list[object] = []
    async with MemoryStore(clock=lambda: 1_000_000.0) as oracle:
        for call in script:
            seen.append(tuple(await oracle.read(KEY)))
            await call(oracle)
        seen.append(tuple(await oracle.read(KEY)))
    for step in range(await operations_of(script)):
        storage = MemoryStorage()
        dying = ObjectStore(killed_at(storage, step, after=after), clock=lambda: 1_000_000.0, fence=AT_ONCE)
        done = await run(dying, script)
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


# Lost answers


class WithoutMarkers(MemoryStorage):
    """Takes no new markers for as long as it is told so."""

    takes_markers = True

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        if folder.startswith("r/") and not self.takes_markers:
            raise StoreUnavailableError("no answer")
        return await super().create(folder, name, data)


async def test_a_thread_with_a_failed_marker_is_listed() -> None:
    storage = WithoutMarkers()
    clock = Clock()
    async with ObjectStore(storage, clock=clock) as store:
        await appending(1)(store)
        clock.advance(1)
        storage.takes_markers = False
        await appending(2)(store)
    storage.takes_markers = True
    async with ObjectStore(storage, clock=clock) as store:
        (thread,) = (await store.list_threads(KEY.tenant)).items
        assert thread == await store.get_thread(KEY)


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


async def test_an_unanswered_append_may_be_repeated() -> None:
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


async def put_document(store: Store) -> None:
    await store.put_document(KEY, "d", b"2")


async def restore_times(store: Store) -> None:
    assert isinstance(store, SupportsImport)
    await store.restore_times(KEY, created_at=from_milliseconds(5), updated_at=from_milliseconds(6))


WRITES: dict[str, Call] = {
    "append": appending(2),
    "update_thread": lambda store: store.update_thread(KEY, metadata={"big": "y" * 5000}),
    "truncate": lambda store: store.truncate(KEY, start=1),
    "restore_times": restore_times,
    "rewrite": rewriting(100),
    "put_document": put_document,
    "delete_document": lambda store: store.delete_document(KEY, "d"),
    "delete_thread": lambda store: store.delete_thread(KEY),
}


@pytest.mark.parametrize(
    ("name", "is_there"), [*((name, True) for name in WRITES), ("append", False), ("put_document", False)]
)
async def test_a_write_that_may_have_landed_has_an_unknown_outcome(name: str, is_there: bool) -> None:
    async def ready() -> MemoryStorage:
        storage = MemoryStorage()
        async with opened(storage) as store:
            if is_there:
                await appending(1)(store)
                await store.put_document(KEY, "d", b"1")
        return storage

    for step in itertools.count():
        storage = await ready()
        async with opened(storage) as store:
            before = await observed(store)
        watched = failing_after(storage, step)
        async with opened(watched) as store:
            try:
                await WRITES[name](store)
                if watched.calls.total() <= step:
                    break
            except OutcomeUnknownError:
                continue
            except StoreUnavailableError:
                async with opened(storage) as other:
                    assert await observed(other) == before, f"{name} failed at operation {step}"


def failing_after(inner: MemoryStorage, step: int) -> WatchedStorage:
    """Return a storage that carries out all operations and answers only the first ``step`` of them."""

    async def fail(_: str) -> None:
        if storage.calls.total() > step:
            raise StoreUnavailableError("no answer")

    storage = WatchedStorage(inner, after=fail)
    return storage
