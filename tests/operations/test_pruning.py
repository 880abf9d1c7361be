"""Pruning: what goes, what stays, and that being stopped and run again changes nothing."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from everthread import ConfigurationError, NewMessage, Store, ThreadKey, open_store
from everthread.engines.memory import MemoryStore
from everthread.messages.link_reader import SpanReader, readable_view
from everthread.operations.prune import Pruned, PrunePolicy, prune
from everthread.testing.faults import Fault, FaultyStore
from everthread.wrappers.forwarding import WRITES
from tests.meanwhile import Meanwhile
from tests.operations.threads import KEY, answering, calling, everything, positions, said
from tests.servers import Server

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def day(number: int, message: NewMessage) -> NewMessage:
    """A message of that day of January."""
    return msgspec.structs.replace(message, created_at=datetime(2026, 1, number, tzinfo=UTC))


async def pruned(store: Store, policy: PrunePolicy, tenant: str = "", **options: Any) -> list[Pruned]:
    return [each async for each in prune(store, policy, tenant, **options) if each.is_changed or each.failure]


async def test_the_newest_messages_stay(store: Store) -> None:
    await store.append(KEY, [said(str(i)) for i in range(10)])
    await store.append(ThreadKey("short"), [said("a")])
    size = len(said("0").payload)
    assert await pruned(store, PrunePolicy(max_messages=3)) == [Pruned(KEY, 7, 7, 7 * size)]
    assert await positions(store) == [7, 8, 9]
    assert await positions(store, ThreadKey("short")) == [0]


async def test_a_call_is_not_cut_from_its_result(store: Store) -> None:
    await store.append(KEY, [said("a"), calling("c1")])
    await store.append(KEY, [said("meanwhile"), answering("c1"), said("b")])
    [gone] = await pruned(store, PrunePolicy(max_messages=3))
    assert (gone.start, gone.messages) == (4, 4)
    assert await positions(store) == [4]


async def test_bytes_are_counted_from_the_newest_message(store: Store) -> None:
    await store.append(KEY, [said("x" * 1000), said("y" * 100), said("z" * 100)])
    newest = len(said("z" * 100).payload)
    await pruned(store, PrunePolicy(max_bytes=2 * newest))
    assert await positions(store) == [1, 2]
    await pruned(store, PrunePolicy(max_bytes=2 * newest - 1))
    assert await positions(store) == [2]
    await pruned(store, PrunePolicy(max_bytes=0))
    assert await positions(store) == []


async def test_messages_go_when_they_are_too_old_and_the_thread_stays(store: Store) -> None:
    await store.append(KEY, [day(n, said(str(n))) for n in (1, 10, 20, 30)], default_title="Rome")
    await pruned(store, PrunePolicy(max_age=timedelta(days=15)), now=NOW)
    assert await positions(store) == [2, 3]
    await pruned(store, PrunePolicy(max_age=timedelta(hours=1)), now=NOW)
    assert await positions(store) == []
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert thread.title == "Rome"


async def test_an_old_message_behind_a_newer_one_stays(store: Store) -> None:
    await store.append(KEY, [day(n, said(str(n))) for n in (1, 30, 2)])
    await pruned(store, PrunePolicy(max_age=timedelta(days=15)), now=NOW)
    assert await positions(store) == [1, 2]


async def test_all_limits_hold_together(store: Store) -> None:
    await store.append(KEY, [day(n, said("x" * 10)) for n in range(1, 31)])
    size = len(said("x" * 10).payload)
    policy = PrunePolicy(max_messages=20, max_bytes=15 * size, max_age=timedelta(days=18))
    assert (await pruned(store, policy, now=NOW))[0].messages == 15
    assert (await pruned(store, msgspec.structs.replace(policy, max_age=timedelta(days=5)), now=NOW))[0].start == 25


async def test_an_idle_thread_is_deleted() -> None:
    clock = [1.0]
    threads: dict[Any, Any] = {}
    async with MemoryStore(threads, clock=lambda: clock[0]) as store:
        await store.append(KEY, [said("a"), said("b")])
        await store.put_document(KEY, "notes", b"{}")
        clock[0] = 1000.0
        await store.append(ThreadKey("busy"), [said("c")])
        now = datetime.fromtimestamp(1500, UTC)
        [gone] = await pruned(store, PrunePolicy(max_idle=timedelta(seconds=1000)), now=now)
        assert (gone.key, gone.is_deleted, gone.messages) == (KEY, True, 2)
        assert await everything(store) == {"busy": (None, (), [(0, 0, said("c").payload)])}


async def test_dropping_old_messages_does_not_make_a_thread_look_busy(store: Store) -> None:
    await store.append(KEY, [said("a"), said("b")])
    later = datetime.now(UTC) + timedelta(days=10)
    await pruned(store, PrunePolicy(max_messages=1))
    [gone] = await pruned(store, PrunePolicy(max_idle=timedelta(days=9)), now=later)
    assert gone.is_deleted


@pytest.mark.parametrize("moment", ["get_thread", "delete_thread"])
async def test_a_thread_with_new_activity_is_not_deleted(store: Store, moment: str) -> None:
    await store.append(KEY, [said("a")])
    policy, later = PrunePolicy(max_idle=timedelta(days=1)), datetime.now(UTC) + timedelta(days=2)
    comes_back = Meanwhile(store, moment, lambda: store.append(KEY, [said("I am back")]))
    assert await pruned(comes_back, policy, now=later) == []
    assert await positions(store) == [0, 1]
    [told] = [
        each
        async for each in prune(Meanwhile(store, moment, lambda: store.append(KEY, [said("again")])), policy, now=later)
    ]
    assert told == Pruned(KEY, is_busy=True)


async def test_a_growing_thread_is_shortened(store: Store) -> None:
    await store.append(KEY, [said("a"), said("b"), said("c")])
    growing = Meanwhile(store, "truncate", lambda: store.append(KEY, [said("d")]), times=3)
    [gone] = await pruned(growing, PrunePolicy(max_messages=1))
    assert (gone.start, gone.messages) == (2, 2)
    assert await positions(store) == [2, 3, 4, 5]


async def test_a_thread_that_keeps_growing_waits_for_the_next_run(store: Store) -> None:
    await store.append(KEY, [said("a"), said("b"), said("c")])
    growing = Meanwhile(store, "truncate", lambda: store.append(KEY, [said("d")]), times=None)
    [told] = [each async for each in prune(growing, PrunePolicy(max_messages=1))]
    assert told == Pruned(KEY, is_busy=True)
    assert (await positions(store))[:3] == [0, 1, 2]


async def test_a_concurrent_result_is_not_dropped_with_its_call(store: Store) -> None:
    await store.append(KEY, [said("a"), calling("c1")])
    answered = Meanwhile(store, "truncate", lambda: store.append(KEY, [answering("c1"), said("b")]))
    assert await pruned(answered, PrunePolicy(max_messages=0)) == []
    assert await positions(store) == [0, 1, 2, 3]


async def test_a_thread_created_again_is_not_pruned_by_old_positions(store: Store) -> None:
    async def begin_anew() -> None:
        await store.delete_thread(KEY)
        await store.append(KEY, [said("new"), said("newer")])

    await store.append(KEY, [said(str(i)) for i in range(10)])
    assert await pruned(Meanwhile(store, "truncate", begin_anew), PrunePolicy(max_messages=2)) == []
    assert await positions(store) == [0, 1]


async def test_an_append_at_the_same_time_is_kept(store: Store) -> None:
    await store.append(KEY, [said("first")])

    async def append() -> None:
        for i in range(30):
            await store.append(KEY, [said(f"{i}a"), said(f"{i}b")])

    async def keep_small() -> None:
        for _ in range(15):
            await pruned(store, PrunePolicy(max_messages=4))

    await asyncio.gather(append(), keep_small())
    kept = await positions(store)
    assert kept == list(range(kept[0], 61))
    assert len(kept) >= 4


async def test_only_the_tenants_threads_are_pruned(store: Store) -> None:
    for tenant in ("", "acme", "other"):
        await store.append(ThreadKey("t", tenant), [said("a"), said("b")])
    await pruned(store, PrunePolicy(max_messages=0), "acme")
    assert [len(await positions(store, ThreadKey("t", tenant))) for tenant in ("", "acme", "other")] == [2, 0, 2]


async def test_a_dry_run_tells_the_same_and_changes_nothing(store: Store) -> None:
    for number in range(5):
        await store.append(ThreadKey(f"t{number}"), [said("a"), calling("c"), answering("c"), said("b")][: number + 1])
    before = await everything(store)
    told = await pruned(store, PrunePolicy(max_messages=2), dry_run=True)
    assert await everything(store) == before
    assert await pruned(store, PrunePolicy(max_messages=2)) == told
    assert await pruned(store, PrunePolicy(max_messages=2), dry_run=True) == []


async def test_messages_of_unknown_time_go_with_a_newer_old_one(plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/0"
    async with Redis.from_url(url) as client, open_store(url, prefix=fresh_prefix) as store:
        await client.rpush(f"{fresh_prefix}:trip", said("theirs").payload, said("theirs too").payload)
        await store.append(KEY, [said("ours")])
        day_long = PrunePolicy(max_age=timedelta(days=1))
        assert await pruned(store, day_long) == []
        await pruned(store, day_long, now=datetime.now(UTC) + timedelta(days=2))
        assert await positions(store) == []


# The definition


_ids = st.sampled_from(["c1", "c2"])
_messages = st.one_of(
    st.integers(0, 60).map(lambda size: said("x" * size)),
    st.lists(_ids, min_size=1, max_size=2, unique=True).map(lambda ids: calling(*ids)),
    _ids.map(answering),
)
_threads = st.lists(st.lists(_messages, min_size=1, max_size=4), min_size=1, max_size=6)
_policies = st.one_of(
    st.integers(0, 12).map(lambda count: PrunePolicy(max_messages=count)),
    st.integers(0, 800).map(lambda size: PrunePolicy(max_bytes=size)),
)


async def _built(turns: list[list[NewMessage]]) -> tuple[MemoryStore, Callable[[], MemoryStore]]:
    threads: dict[Any, Any] = {}
    store = MemoryStore(threads)
    for turn in turns:
        await store.append(KEY, turn)
    return store, lambda: MemoryStore(copy.deepcopy(threads))


@given(_threads)
async def test_safe_cuts_are_those_of_the_engines(turns: list[list[NewMessage]]) -> None:
    store, copied = await _built(turns)
    spans = SpanReader()
    messages = list(await store.read(KEY))
    for message in messages:
        spans.add(message, readable_view(message, KEY))
    for cut in range(1, len(messages) + 1):
        assert spans.safe_start(cut) == (await copied().truncate(KEY, start=cut)).head_seq
        kept = await _after_undo(copied(), cut)
        assert spans.safe_stop(cut) == kept


async def _after_undo(store: MemoryStore, cut: int) -> int:
    await store.truncate(KEY, stop=cut)
    return len(await store.read(KEY))


@given(_threads, _policies)
async def test_pruning_drops_no_more_than_necessary(turns: list[list[NewMessage]], policy: PrunePolicy) -> None:
    store, copied = await _built(turns)
    total = len(await store.read(KEY))
    told = await pruned(store, policy, dry_run=True)
    assert await pruned(store, policy) == told
    page = await store.read(KEY)
    assert _meets(policy, list(page))
    assert total - len(page) == sum(each.messages for each in told)
    for start in range(page.head_seq):
        less = copied()
        if start:
            await less.truncate(KEY, start=start)
        left = await less.read(KEY)
        assert left.head_seq == page.head_seq or not _meets(policy, list(left))


def _meets(policy: PrunePolicy, messages: list[Any]) -> bool:
    size = sum(len(message.payload) for message in messages)
    within_count = policy.max_messages is None or len(messages) <= policy.max_messages
    return within_count and (policy.max_bytes is None or size <= policy.max_bytes)


# Stopped and run again


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.FAIL_AFTER, Fault.CANCEL_BEFORE, Fault.CANCEL_AFTER])
@pytest.mark.parametrize("at", range(6))
async def test_a_run_stopped_at_any_write_can_be_repeated(fault: Fault, at: int) -> None:
    clock = [1.0]
    threads: dict[Any, Any] = {}
    store = MemoryStore(threads, clock=lambda: clock[0])
    for number in range(6):
        clock[0] = 1.0 + number * 1000
        await store.append(ThreadKey(f"t{number}"), [said("a"), calling("c"), answering("c"), said("b")])
    now = datetime.fromtimestamp(6000, UTC)
    policy = PrunePolicy(max_messages=2, max_idle=timedelta(seconds=3500))
    undisturbed = MemoryStore(copy.deepcopy(threads), clock=lambda: clock[0])
    await pruned(undisturbed, policy, now=now)

    stopped = FaultyStore(store, [*[None] * at, fault], calls=WRITES)
    with pytest.raises((Exception, asyncio.CancelledError)):
        await asyncio.ensure_future(pruned(stopped, policy, now=now))
    await pruned(store, policy, now=now)
    assert await everything(store) == await everything(undisturbed)


async def test_a_run_closed_early_leaves_no_task() -> None:
    store = MemoryStore()
    for number in range(40):
        await store.append(ThreadKey(f"t{number}"), [said("a"), said("b")])
    outcomes = prune(store, PrunePolicy(max_messages=1))
    assert (await anext(outcomes)).messages == 1
    await outcomes.aclose()  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert any(len(messages) == 2 for _, _, messages in (await everything(store)).values())


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        ({}, "at least one limit"),
        ({"max_messages": -1}, "max_messages"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"max_age": 30}, "max_age"),
        ({"max_idle": timedelta(0)}, "max_idle"),
    ],
)
def test_an_impossible_policy_is_refused(limits: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        PrunePolicy(**limits)
