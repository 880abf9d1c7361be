"""Copying threads between stores: what is kept, what is refused, what a second run does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

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
from everthread.capabilities import SupportsImport, capability
from everthread.model import NewMessage, Thread, to_milliseconds
from everthread.testing import Fault, FaultyStore
from everthread.transfer import Watcher, copy_threads, export_threads
from everthread.wrappers.forwarding import ABILITIES, ForwardingStore
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


async def test_a_second_run_adds_new_messages(store: Store, target: Store) -> None:
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


class Active(ForwardingStore):
    """A store in which somebody appends to a thread after it was listed, and begins another."""

    async def get_thread(self, key: ThreadKey) -> Thread | None:
        found = await super().get_thread(key)
        if key.thread_id == "t2":
            await super().append(ThreadKey("t0"), turn(9))
            await super().append(ThreadKey("late"), turn(9))
        return found


async def test_a_thread_that_is_copied_twice_counts_once(target: Store) -> None:
    async with open_store("memory:") as store:
        for number in range(3):
            await store.append(ThreadKey(f"t{number}"), turn(number))
            await until_idle()
        report = await copy_threads(Active(store), target)
        assert report.threads == {"new": 4}
        assert (report.written, report.present) == (sum([t.count for t in await target.list_threads()]), 0)


@pytest.mark.parametrize("form", ["jsonl", "markdown", "html"])
async def test_an_active_thread_is_exported_once(tmp_path: Path, form: Literal["jsonl", "markdown", "html"]) -> None:
    async with open_store("memory:") as store:
        for number in range(3):
            await store.append(ThreadKey(f"t{number}"), turn(number))
            await until_idle()
        report = await export_threads(Active(store), tmp_path / "x", format=form)
        assert report.threads == {"new": 4}
    if form == "jsonl":
        lines = [json.loads(line) for line in (tmp_path / "x").read_bytes().splitlines()]
        assert sorted(line["thread_id"] for line in lines if "thread_id" in line) == ["late", "t0", "t1", "t2"]


async def test_a_resumed_export_has_a_changed_thread_once(tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        for number in range(3):
            await store.append(ThreadKey(f"t{number}"), turn(number))
            await until_idle()
        await export_threads(store, tmp_path / "x")
        (tmp_path / "x").rename(tmp_path / "x.part")
        await store.append(ThreadKey("t1"), turn(9))
        await export_threads(store, tmp_path / "x")
        await export_threads(store, tmp_path / "clean")
        assert (tmp_path / "x").read_bytes() == (tmp_path / "clean").read_bytes()


WITH_GAPS = {"trimmed", "undone", "emptied"}


class Timeless(ForwardingStore):
    """A store that cannot restore times and positions."""


async def test_a_target_without_imports_gets_threads_without_gaps(target: Store) -> None:
    async with open_store("memory:") as store:
        await fill(store)
        timeless = Timeless(target)
        planned = await copy_threads(store, timeless, dry_run=True)
        began = datetime.now(UTC) - timedelta(seconds=1)
        report = await copy_threads(store, timeless)
        assert (report.threads, report.keeps_times) == ({"new": 7, "failed": 3}, False)
        assert {problem.key.thread_id for problem in report.problems} == WITH_GAPS
        assert all("cannot restore positions" in problem.reason for problem in report.problems)
        for each in (planned, report):
            each.problems.sort(key=lambda problem: problem.key.thread_id)
        assert planned == report
        for name in WITH_GAPS:
            await store.delete_thread(ThreadKey(name))
            await target.delete_thread(ThreadKey(name))
        ours, theirs = await everything(store), await everything(target)
        for name, thread in ours.items():
            _, _, expires_ms = thread.pop("times")
            created_ms, _, theirs_ms = theirs[name].pop("times")
            assert created_ms >= to_milliseconds(began)
            # With a retention of its own a thread lives on from its last activity, which is the copy.
            assert (theirs_ms is None) == (expires_ms is None)
        assert theirs == ours
        assert (await copy_threads(store, timeless)).threads == {"unchanged": 7}
        with_times = await copy_threads(store, target)
        assert (with_times.threads, with_times.written) == ({"updated": 6, "unchanged": 1}, 0)
        assert with_times.keeps_times
        ours, theirs = await everything(store), await everything(target)
        # Its expiry would move with its last activity, and it would be forgotten too early.
        assert ours.pop("expiring") != theirs.pop("expiring")
        assert theirs == ours


async def test_a_concurrent_append_is_the_last_activity_of_a_copy(target: Store) -> None:
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
        assert capability(store, SupportsImport)
        await store.restore_times(key, created_at=BEGAN, updated_at=BEGAN)
        await copy_threads(store, Overtaken(target))
    copied = await target.get_thread(key)
    assert copied is not None
    assert copied.created_at == BEGAN
    assert copied.updated_ms >= thread.updated_ms
    assert copied.next_seq == 8


@pytest.mark.parametrize("where", ["between turns", "at the end"])
async def test_a_turn_appended_while_a_gap_is_restored_is_kept(target: Store, where: str) -> None:
    class Overtaken(ForwardingStore):
        carries = ABILITIES
        appends = 0

        async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
            # The first append writes the turn before the gap.
            self.appends += call == "append"
            if call == "restore_position" or self.appends == 2:
                await target.append(key, theirs)
            return await proceed()

    key, theirs = ThreadKey("t"), [new_message({"role": "user", "content": "theirs"})]
    async with open_store("memory:") as store:
        for number in range(3):
            await store.append(key, turn(number))
            if number == (1 if where == "between turns" else 2):
                await store.truncate(key, stop=4)
        report = await copy_threads(store, Overtaken(target))
    assert report.threads == {"conflict": 1}
    assert theirs[0].payload in [message.payload for message in await target.read(key)]


async def test_trimming_on_either_side_is_no_conflict(store: Store, target: Store) -> None:
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


async def test_a_target_with_later_messages_stays_unchanged(store: Store, target: Store) -> None:
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


async def test_another_conversation_is_not_extended_after_a_trim(store: Store, target: Store) -> None:
    key = ThreadKey("same")
    await store.append(key, turn(0))
    await store.truncate(key, start=4)
    await store.append(key, turn(1))
    await target.append(key, [new_message({"role": "user", "content": "other"})])
    before = await everything(target)
    assert (await copy_threads(store, target)).threads == {"conflict": 1}
    assert await everything(target) == before


async def test_a_dry_run_reports_and_writes_nothing(store: Store, target: Store) -> None:
    await fill(store)
    planned = await copy_threads(store, target, dry_run=True)
    assert await everything(target) == {}
    done = await copy_threads(store, target)
    assert planned == done


async def test_a_message_with_an_empty_format_is_copied(store: Store, target: Store) -> None:
    await store.append(ThreadKey("t"), [NewMessage(b'{"role":"user","content":"hello"}', "")])
    assert (await copy_threads(store, target)).is_complete
    assert await everything(target) == await everything(store)


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
    faulty = FaultyStore(target, plan, calls=["append", "restore_position", "put_document", "update_thread"])
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


@pytest.mark.parametrize("call", ["put_document", "delete_document"])
async def test_an_empty_thread_begun_by_a_failed_run_is_equal(store: Store, target: Store, call: str) -> None:
    key, fault = ThreadKey("empty"), Fault.FAIL_AFTER if call == "put_document" else Fault.FAIL_BEFORE
    await store.put_document(key, "draft", b"1")
    await store.delete_document(key, "draft")
    with pytest.raises(StoreUnavailableError):
        await copy_threads(store, FaultyStore(target, [fault], calls=[call]))
    assert (await copy_threads(store, target)).is_complete
    assert await everything(target) == await everything(store)
    assert (await copy_threads(store, target)).threads == {"unchanged": 1}
