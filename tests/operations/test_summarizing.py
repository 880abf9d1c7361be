"""Summaries of many threads: which ones, what a failure costs, and that being stopped changes nothing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from everthread import Store, StoreUnavailableError, ThreadKey
from everthread.engines.memory import MemoryStore
from everthread.listing import ThreadFilter
from everthread.operations.summarize import SUMMARY_DOCUMENT, SummaryPolicy, get_summary
from everthread.operations.summarize_many import Outcome, summarize_threads
from everthread.testing.faults import Fault, FaultyStore
from everthread.wrappers.forwarding import WRITES
from tests.meanwhile import Meanwhile
from tests.operations.threads import everything, said

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


async def test_every_thread_of_the_tenant_gets_a_summary(store: Store) -> None:
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


async def test_a_failed_thread_stops_no_other_and_succeeds_later(store: Store) -> None:
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


async def test_a_document_that_is_no_summary_fails_only_its_thread(store: Store) -> None:
    await fill(store, "a", "b")
    await store.put_document(ThreadKey("a"), SUMMARY_DOCUMENT, b"[]")
    found = await outcomes(store)
    assert [each.key.thread_id for each in found if each.error is not None] == ["a"]
    assert done(found) == {"b"}


async def test_a_store_that_does_not_answer_ends_the_run(store: Store) -> None:
    await fill(store, "a", "b")
    with pytest.raises(StoreUnavailableError):
        await outcomes(FaultyStore(store, [None, Fault.FAIL_BEFORE], calls=["get_document"]))


async def test_a_thread_deleted_during_the_run_is_no_failure(store: Store) -> None:
    # One thread alone: of several, another one's document may be the first that is put.
    await fill(store, "a")
    deleting = Meanwhile(store, "put_document", lambda: store.delete_thread(ThreadKey("a")))
    found = await outcomes(deleting)
    assert [each.error for each in found] == [None]
    assert done(found) == set()
    assert await store.get_thread(ThreadKey("a")) is None


async def test_concurrent_requests_to_the_model_are_bounded(store: Store) -> None:
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


async def test_a_run_closed_early_leaves_no_task(store: Store) -> None:
    async def only_the_first(request: str) -> str:
        # The newest thread is the first; the others would be under way forever.
        return "Summary." if "f 0" in request else str(await asyncio.Event().wait())

    await fill(store, *"abcdef")
    async with aclosing(summarize_threads(store, only_the_first, ONE_TURN, at_once=2)) as running:
        assert (await anext(running)).summary is not None
    # A store cleans up by itself, until it is closed.
    await store.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_plan_predicts_the_run_without_a_model(store: Store) -> None:
    await fill(store, "a", "b")
    await fill(store, "one", turns=1)
    before = await everything(store)
    plans = {each.key: each.plan async for each in summarize_threads(store, None, ONE_TURN)}
    assert await everything(store) == before
    found = {each.key: each.summary for each in await outcomes(store)}
    for key, plan in plans.items():
        summary = found[key]
        assert (plan and (plan.start, plan.stop, plan.messages)) == (
            summary and (summary.start, summary.stop, summary.messages)
        )


@pytest.mark.parametrize("fault", [Fault.CANCEL_BEFORE, Fault.CANCEL_AFTER, Fault.FAIL_AFTER])
@pytest.mark.parametrize("at", range(5))
async def test_a_run_interrupted_at_any_write_can_be_repeated(fault: Fault, at: int) -> None:
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
