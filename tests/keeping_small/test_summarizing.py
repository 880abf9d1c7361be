"""Summaries of many threads: which ones, what a failure costs, and that being stopped changes nothing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from everthread import Store, StoreUnavailableError, ThreadKey
from everthread.engines.memory import MemoryStore
from everthread.summaries import SUMMARY_DOCUMENT, SummaryPolicy, get_summary
from everthread.summarizing import Outcome, plan_summaries, summarize_threads
from everthread.testing.faults import Fault, FaultyStore
from everthread.threads import ThreadFilter
from everthread.wrappers._forwarding import WRITES
from tests.keeping_small.threads import everything, said
from tests.meanwhile import Meanwhile

ONE_TURN = SummaryPolicy(keep_turns=1)


async def fill(store: Store, *names: str, turns: int = 3, tenant: str = "") -> None:
    for name in names:
        for number in range(turns):
            await store.append(ThreadKey(name, tenant), [said(f"{name} {number}"), said("yes", "assistant")])


async def short(request: str) -> str:
    return "Summary."


async def outcomes(store: Store, model: Any = short, **options: Any) -> list[Outcome]:
    return [each async for each in summarize_threads(store, model, ONE_TURN, **options)]


def done(found: list[Outcome]) -> set[str]:
    return {each.key.thread_id for each in found if each.summary is not None}


async def test_each_thread_of_the_tenant_gets_its_summary_and_is_told_of(store: Store) -> None:
    await fill(store, "a", "b", "c")
    await fill(store, "one", turns=1)
    await fill(store, "other", tenant="acme")
    found = await outcomes(store)
    assert {each.key.thread_id for each in found} == {"a", "b", "c", "one"}
    assert done(found) == {"a", "b", "c"}
    for name in ("a", "b", "c"):
        summary = await get_summary(store, ThreadKey(name))
        assert summary is not None
        assert (summary.stop, summary.text) == (4, "Summary.")
    assert await store.list_documents(ThreadKey("other", "acme")) == ()


async def test_threads_are_chosen_by_idleness_and_length() -> None:
    clock = [1_000_000.0]
    store = MemoryStore(clock=lambda: clock[0])
    await fill(store, "idle")
    await fill(store, "idle and long", turns=10)
    clock[0] += 86_400
    await fill(store, "busy and long", turns=10)
    before = datetime.fromtimestamp(clock[0], UTC) - timedelta(hours=1)
    assert done(await outcomes(store, only=ThreadFilter(active_before=before, longer_than=6))) == {"idle and long"}
    assert done(await outcomes(store, only=ThreadFilter(longer_than=6))) == {"busy and long"}
    assert done(await outcomes(store, only=ThreadFilter(longer_than=5))) == {"idle"}


async def test_a_thread_that_fails_stops_no_other_and_is_done_by_the_next_run(store: Store) -> None:
    async def failing(request: str) -> str:
        if "b 0" in request:
            raise OSError("the model said no")
        return "Summary."

    await fill(store, *"abcdefgh")
    found = await outcomes(store, failing)
    assert done(found) == set("acdefgh")
    [failed] = [each for each in found if each.error is not None]
    assert (failed.key, str(failed.error)) == (ThreadKey("b"), "the model said no")
    assert "said no" not in repr(failed)
    requests: list[str] = []

    async def asked(request: str) -> str:
        requests.append(request)
        return "Summary."

    assert done(await outcomes(store, asked)) == {"b"}
    assert len(requests) == 1


async def test_a_document_that_is_no_summary_is_a_failure_of_its_thread_alone(store: Store) -> None:
    await fill(store, "a", "b")
    await store.put_document(ThreadKey("a"), SUMMARY_DOCUMENT, b"[]")
    found = await outcomes(store)
    assert [each.key.thread_id for each in found if each.error is not None] == ["a"]
    assert done(found) == {"b"}


async def test_a_store_that_does_not_answer_ends_the_run(store: Store) -> None:
    await fill(store, "a", "b")
    with pytest.raises(StoreUnavailableError):
        await outcomes(FaultyStore(store, [None, Fault.FAIL_BEFORE], calls=["get_document"]))


async def test_a_thread_that_is_deleted_meanwhile_is_no_failure_and_does_not_come_back(store: Store) -> None:
    await fill(store, "a", "b")
    deleting = Meanwhile(store, "put_document", lambda: store.delete_thread(ThreadKey("a")))
    found = await outcomes(deleting)
    assert [each.error for each in found] == [None, None]
    assert done(found) == {"b"}
    assert await store.get_thread(ThreadKey("a")) is None


async def test_the_model_is_asked_at_most_so_often_at_the_same_time(store: Store) -> None:
    asked, most, together = 0, 0, asyncio.Barrier(3)

    async def counted(request: str) -> str:
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        await together.wait()
        asked -= 1
        return "Summary."

    await fill(store, *"abcdef")
    assert len(done(await outcomes(store, counted, at_once=3))) == 6
    assert most == 3


async def test_a_run_that_is_left_in_the_middle_leaves_nothing_under_way(store: Store) -> None:
    await fill(store, *"abcdef")
    async with aclosing(summarize_threads(store, short, ONE_TURN, at_once=2)) as running:
        assert (await anext(running)).summary is not None
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_plan_tells_what_then_happens_and_asks_no_model(store: Store) -> None:
    await fill(store, "a", "b")
    await fill(store, "one", turns=1)
    before = await everything(store)
    plans = {each.key: each.plan async for each in plan_summaries(store, ONE_TURN)}
    assert await everything(store) == before
    found = {each.key: each.summary for each in await outcomes(store)}
    for key, plan in plans.items():
        summary = found[key]
        assert (plan and (plan.start, plan.stop, plan.messages)) == (
            summary and (summary.start, summary.stop, summary.messages)
        )


@pytest.mark.parametrize("fault", [Fault.CANCEL_BEFORE, Fault.CANCEL_AFTER, Fault.FAIL_AFTER])
@pytest.mark.parametrize("at", range(5))
async def test_broken_off_at_any_write_and_run_again_it_ends_as_one_run(fault: Fault, at: int) -> None:
    options: dict[str, Any] = {"piece_tokens": 2, "count_tokens": lambda text: 1}
    undisturbed, broken = MemoryStore(), MemoryStore()
    for store in (undisturbed, broken):
        await fill(store, *"abc", turns=4)
    await outcomes(undisturbed, **options)
    with pytest.raises((StoreUnavailableError, asyncio.CancelledError)):
        await asyncio.ensure_future(outcomes(FaultyStore(broken, [*[None] * at, fault], calls=WRITES), **options))
    await outcomes(broken, **options)
    assert await everything(broken) == await everything(undisturbed)
    for name in "abc":
        assert await get_summary(broken, ThreadKey(name)) == await get_summary(undisturbed, ThreadKey(name))
