"""Copying threads between stores: what is kept, what is refused, what a second run does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from everthread import (
    InvalidIdentifierError,
    Store,
    StoreUnavailableError,
    ThreadKey,
    ThreadNotFoundError,
    new_message,
    open_store,
)
from everthread.contract import SupportsImport
from everthread.model import to_milliseconds
from everthread.testing import Fault, FaultyStore
from everthread.transfer import Watcher, copy_threads
from everthread.wrappers._forwarding import ABILITIES, ForwardingStore
from tests.transfer.conversations import BEGAN, everything, fill, turn, until_idle

T = TypeVar("T")


async def test_every_engine_is_copied_to_and_from(any_store: Store) -> None:
    async with open_store("memory:") as before, open_store("memory:") as after:
        await fill(before)
        assert (await copy_threads(before, any_store)).threads == {"new": 10}
        assert (await copy_threads(before, any_store)).threads == {"unchanged": 10}
        await copy_threads(any_store, after)
        assert await everything(before) == await everything(any_store) == await everything(after)


async def test_a_copy_is_equal(store: Store, target: Store) -> None:
    await fill(store)
    report = await copy_threads(store, target)
    assert report.is_complete
    assert await everything(target) == await everything(store)
    assert report.threads == {"new": 10}


async def test_a_second_run_writes_nothing(store: Store, target: Store) -> None:
    await fill(store)
    first = await copy_threads(store, target)
    before = [(thread.key, thread.updated_ms, thread.revision) for thread in await target.list_threads()]
    second = await copy_threads(store, target)
    assert (second.written, second.documents, second.present) == (0, 0, first.written)
    assert second.threads == {"unchanged": 10}
    assert [(thread.key, thread.updated_ms, thread.revision) for thread in await target.list_threads()] == before


async def test_a_second_run_adds_what_the_source_has_gained(store: Store, target: Store) -> None:
    await fill(store)
    await copy_threads(store, target)
    await store.append(ThreadKey("plain"), turn(9))
    await store.truncate(ThreadKey("undone"), stop=24)
    await store.append(ThreadKey("undone"), turn(9))
    await store.update_thread(ThreadKey("a"), title="renamed")
    await store.put_document(ThreadKey("A"), "summary", b"1")
    report = await copy_threads(store, target)
    assert report.threads == {"extended": 2, "updated": 2, "unchanged": 6}
    assert await everything(target) == await everything(store)


async def test_the_newest_threads_are_the_newest_in_the_copy(store: Store, target: Store) -> None:
    for number in range(60):
        await store.append(ThreadKey(f"t{number}"), turn(0))
        await until_idle()
    await copy_threads(store, target)
    order = [int(thread.key.thread_id[1:]) for thread in await target.list_threads(limit=100)]
    assert order == [*range(59, -1, -1)]


class Timeless(ForwardingStore):
    """A store that cannot be told when a thread was begun and last active."""


async def test_a_target_that_takes_no_times_gets_the_rest_and_the_report_says_so(target: Store) -> None:
    async with open_store("memory:") as store:
        await fill(store)
        timeless = Timeless(target)
        planned = await copy_threads(store, timeless, dry_run=True)
        began = datetime.now(UTC) - timedelta(seconds=1)
        report = await copy_threads(store, timeless)
        assert (report.is_complete, report.keeps_times) == (True, False)
        assert planned == report
        ours, theirs = await everything(store), await everything(target)
        for name, thread in ours.items():
            _, _, expires_ms = thread.pop("times")
            created_ms, _, theirs_ms = theirs[name].pop("times")
            assert created_ms >= to_milliseconds(began)
            # With a retention of its own a thread lives on from its last activity, which is the copy.
            assert (theirs_ms is None) == (expires_ms is None)
        assert theirs == ours
        assert (await copy_threads(store, timeless)).threads == {"unchanged": 10}
        with_times = await copy_threads(store, target)
        assert (with_times.threads, with_times.written) == ({"updated": 9, "unchanged": 1}, 0)
        assert with_times.keeps_times
        ours, theirs = await everything(store), await everything(target)
        # Its expiry would move with its last activity, and it would be forgotten too early.
        assert ours.pop("expiring") != theirs.pop("expiring")
        assert theirs == ours


async def test_who_goes_on_with_a_thread_while_it_is_copied_counts_as_its_last_activity(target: Store) -> None:
    class Overtaken(ForwardingStore):
        carries = ABILITIES

        async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
            if call == "restore_times" and not (await target.read(key, start=4)).messages:
                await target.append(key, turn(1))
            return await proceed()

    key = ThreadKey("t")
    async with open_store("memory:") as store:
        await store.append(key, turn(0))
        thread = await store.get_thread(key)
        assert thread is not None
        assert isinstance(store, SupportsImport)
        await store.restore_times(key, created_at=BEGAN, updated_at=BEGAN)
        await copy_threads(store, Overtaken(target))
    copied = await target.get_thread(key)
    assert copied is not None
    assert copied.created_at == BEGAN
    assert copied.updated_ms >= thread.updated_ms
    assert copied.next_seq == 8


async def test_a_turn_that_comes_while_positions_are_used_up_is_never_dropped(target: Store) -> None:
    class Overtaken(ForwardingStore):
        carries = ABILITIES

        async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
            if call == "truncate":
                await target.append(key, theirs)
            return await proceed()

    key, theirs = ThreadKey("t"), [new_message({"role": "user", "content": "theirs"})]
    async with open_store("memory:") as store:
        for number in range(3):
            await store.append(key, turn(number))
            if number == 1:
                await store.truncate(key, stop=4)
        report = await copy_threads(store, Overtaken(target))
    assert report.threads == {"conflict": 1}
    assert theirs[0].payload in [message.payload for message in await target.read(key)]


async def test_what_the_target_trimmed_or_the_source_trimmed_since_is_no_conflict(store: Store, target: Store) -> None:
    key = ThreadKey("long")
    for number in range(5):
        await store.append(key, turn(number))
    await copy_threads(store, target)
    await target.truncate(key, start=4)
    await store.truncate(key, start=20)
    await store.append(key, turn(5))
    await store.truncate(key, start=24)
    await store.append(key, turn(6))
    report = await copy_threads(store, target)
    assert report.threads == {"extended": 1}
    assert [m.seq for m in await target.read(key)] == [*range(4, 20), *range(24, 28)]


async def test_a_target_that_went_on_is_left_as_it_is(store: Store, target: Store) -> None:
    key = ThreadKey("moved")
    await store.append(key, turn(0))
    await copy_threads(store, target)
    await target.append(key, [new_message({"role": "user", "content": "new"})])
    await target.update_thread(key, title="theirs")
    before = await everything(target)
    report = await copy_threads(store, target)
    assert report.threads == {"ahead": 1}
    assert report.is_complete
    assert await everything(target) == before


@pytest.mark.parametrize("own", [1, 4, 5], ids=["shorter", "as long", "longer"])
async def test_another_conversation_of_the_same_name_is_never_touched(store: Store, target: Store, own: int) -> None:
    key = ThreadKey("same")
    await store.append(key, turn(0))
    await target.append(key, [new_message({"role": "user", "content": "other"})] * own)
    before = await everything(target)
    report = await copy_threads(store, target)
    assert report.threads == {"conflict": 1}
    assert not report.is_complete
    assert "same" in report.problems[0].reason
    assert await everything(target) == before


async def test_another_conversation_is_not_gone_on_with_where_the_source_has_trimmed_the_rest(
    store: Store, target: Store
) -> None:
    key = ThreadKey("same")
    await store.append(key, turn(0))
    await store.truncate(key, start=4)
    await store.append(key, turn(1))
    await target.append(key, [new_message({"role": "user", "content": "other"})])
    before = await everything(target)
    assert (await copy_threads(store, target)).threads == {"conflict": 1}
    assert await everything(target) == before


async def test_a_dry_run_says_what_would_be_and_writes_nothing(store: Store, target: Store) -> None:
    await fill(store)
    planned = await copy_threads(store, target, dry_run=True)
    assert await everything(target) == {}
    done = await copy_threads(store, target)
    assert planned == done


async def test_chosen_threads_alone_are_copied(store: Store, target: Store) -> None:
    for name in ("trip-rome", "trip-paris", "work", "a[1]"):
        await store.append(ThreadKey(name), turn(0))
    await copy_threads(store, target, names=["trip-*", "work", "trip-rome"])
    assert set(await everything(target)) == {"trip-rome", "trip-paris", "work"}


async def test_a_thread_that_is_not_there_is_an_error(store: Store, target: Store) -> None:
    await store.append(ThreadKey("here"), turn(0))
    with pytest.raises(ThreadNotFoundError, match="nowhere"):
        await copy_threads(store, target, names=["here", "nowhere"])
    assert await everything(target) == {}
    with pytest.raises(InvalidIdentifierError):
        await copy_threads(store, target, names=[""])


async def test_a_tenant_is_copied_alone_and_into_another(store: Store, target: Store) -> None:
    await fill(store, "acme")
    await store.append(ThreadKey("plain", "other"), turn(0))
    await copy_threads(store, target, tenant="acme", to_tenant="new")
    assert await everything(target, "new") == await everything(store, "acme")
    assert not await target.list_threads("acme")
    assert not await target.list_threads("other")


async def test_threads_that_grow_while_they_are_copied_arrive_whole(store: Store, target: Store) -> None:
    for name in ("a", "b", "c"):
        await store.append(ThreadKey(name), turn(0))
    await until_idle()

    class Growing(Watcher):
        def begin(self, total: int | None) -> None:
            assert total == 12

    source = FaultyStore(store, [])
    listed = source.list_threads
    is_first = True

    async def listing(*arguments: object, **options: object) -> object:
        nonlocal is_first
        page = await listed(*arguments, **options)  # type: ignore[arg-type]
        if is_first:
            is_first = False
            await store.append(ThreadKey("b"), turn(1))
            await store.append(ThreadKey("late"), turn(2))
        return page

    source.list_threads = listing  # type: ignore[method-assign, assignment]
    report = await copy_threads(source, target, watcher=Growing())
    assert report.is_complete
    assert await everything(target) == await everything(store)


async def test_a_thread_of_many_pages_and_a_long_gap_is_equal(store: Store, target: Store) -> None:
    key = ThreadKey("long")
    for number in range(300):
        await store.append(key, turn(number) * 5)
    await store.truncate(key, start=5990)
    for number in range(100):
        await store.append(ThreadKey("whole"), turn(number) * 8)
    async with open_store("memory:") as small:
        await copy_threads(store, small)
        await copy_threads(store, target)
        assert await everything(target) == await everything(small) == await everything(store)


async def test_an_append_that_fails_leaves_the_rest_to_the_next_run(store: Store, target: Store) -> None:
    await fill(store)
    plan = [None, None, Fault.FAIL_AFTER, None, Fault.FAIL_BEFORE, None, None] * 20
    faulty = FaultyStore(target, plan, calls=["append", "truncate", "put_document", "update_thread"])
    failures = 0
    while True:
        try:
            report = await copy_threads(store, faulty)
            break
        except StoreUnavailableError:
            failures += 1
    assert failures
    assert report.is_complete
    assert await everything(target) == await everything(store)
