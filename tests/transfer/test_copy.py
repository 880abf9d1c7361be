"""Copying threads between stores: what is kept, what is refused, what a second run does."""

from __future__ import annotations

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
from everthread.testing import Fault, FaultyStore
from everthread.transfer import Watcher, copy_threads
from everthread.transfer.writing import AT_ONCE
from tests.transfer.conversations import everything, fill, turn, until_idle


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
    # Threads that are under way at the same time may overtake one another.
    assert all(abs(59 - place - number) < 2 * AT_ONCE for place, number in enumerate(order))


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
