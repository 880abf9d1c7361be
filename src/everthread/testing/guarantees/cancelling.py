"""A cancelled call leaves its turn whole or absent, harms no other, and the store stays usable."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from everthread.contract import Store
from everthread.model import Appended, Retention, ThreadKey
from everthread.testing.cancelling import cancelled_after, cancelled_at_every_wait
from everthread.testing.guarantees._base import (
    CALLS,
    KEY,
    GuaranteeTests,
    everything,
    part_of_turn,
    payloads,
    said,
    whole_turns,
)
from everthread.testing.guarantees.isolated import fill, seen_of
from everthread.testing.harness import Harness
from everthread.testing.machine import comparable


async def check_whole_or_absent(store: Store, number: int, size: int) -> None:
    """Fail if a cancelled turn is torn, or if it is absent and sending it again does not make it appear once."""
    await store.append(KEY, part_of_turn("after", number, 1))
    if whole_turns(await everything(store)).count(("w", number)) == 0:
        # A request that was already sent may still land, so this has the same id.
        await store.append(KEY, part_of_turn("w", number, size), append_id=str(number))
    assert whole_turns(await everything(store)).count(("w", number)) == 1


async def _comparable(store: Store, key: ThreadKey) -> tuple[object, ...]:
    """Return all results of a store for a thread, without its name and times."""
    page, tail, thread, *rest = await seen_of(store, key)
    named_alike = thread and msgspec.structs.replace(thread, key=KEY)
    return tuple(comparable(each) for each in (page, tail, named_alike, *rest))


def _may_be_seen(before: tuple[object, ...], after: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Return what a series of reads may see of a change that takes effect before, after or between two of them."""
    return [before[:reads] + after[reads:] for reads in range(len(before) + 1)]


class Cancelling(GuaranteeTests):
    """Cancelled at every point at which it waits, each call behaves."""

    @pytest.mark.parametrize("retention", [None, Retention(max_messages=40)], ids=["keeping all", "trimming"])
    async def test_a_cancelled_append_is_whole_or_absent(self, store: Store, retention: Retention | None) -> None:
        numbers = itertools.count()
        number = 0

        def append() -> Coroutine[Any, Any, object]:
            nonlocal number
            number = next(numbers)
            return store.append(KEY, part_of_turn("w", number, 9), append_id=str(number), retention=retention)

        async for _ in cancelled_at_every_wait(append):
            await check_whole_or_absent(store, number, 9)

    async def test_an_append_cancelled_at_any_time_is_whole_or_absent(self, store: Store) -> None:
        began = time.perf_counter()
        await store.append(KEY, part_of_turn("w", 999, 60, padding=1000), append_id="999")
        usual = time.perf_counter() - began
        for step in range(30):
            turn = part_of_turn("w", step, 60, padding=1000)
            await cancelled_after(store.append(KEY, turn, append_id=str(step)), usual * step / 20)
            await check_whole_or_absent(store, step, 60)

    async def test_a_cancelled_append_harms_none_that_is_sent_with_it(self, store: Store) -> None:
        await store.append(KEY, [said("first")])
        for victim in range(12):
            tasks = [asyncio.create_task(store.append(KEY, part_of_turn(f"{victim}", i, 3))) for i in range(12)]
            for _ in range(victim % 4):
                await asyncio.sleep(0)
            tasks[victim].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            others = [answer for at, answer in enumerate(answers) if at != victim]
            firsts = [answer.first_seq for answer in others if isinstance(answer, Appended)]
            assert len(firsts) == len(others), f"an append failed because another was cancelled: {others}"
            assert firsts == sorted(set(firsts))
        turns = whole_turns((await everything(store))[1:])
        assert len(set(turns)) == len(turns)
        for victim in range(12):
            kept = [i for by, i in turns if by == str(victim)]
            assert [i for i in kept if i != victim] == [i for i in range(12) if i != victim]

    async def test_cancelling_all_that_wait_leaves_the_store_usable(self, store: Store) -> None:
        for rounds in range(5):
            tasks = [asyncio.create_task(store.append(KEY, part_of_turn(f"{rounds}", i, 3))) for i in range(20)]
            for _ in range(rounds):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await store.append(KEY, part_of_turn(f"{rounds}", 99, 3))
        turns = whole_turns(await everything(store))
        assert [by for by, i in turns if i == 99] == ["0", "1", "2", "3", "4"]
        assert len(set(turns)) == len(turns)

    @pytest.mark.parametrize("call", [name for name in CALLS if name != "append"])
    async def test_a_cancelled_call_takes_effect_or_does_not(self, store: Store, other_store: Store, call: str) -> None:
        numbers, key = itertools.count(), KEY

        async def prepared() -> tuple[object, ...]:
            # In another tenant each time: a cancelled call that is still in progress affects its own thread alone.
            nonlocal key
            key = ThreadKey(KEY.thread_id, f"{call} {next(numbers)}")
            await fill(other_store, key, "a")
            return await _comparable(other_store, key)

        before = await prepared()
        await CALLS[call](store, key)
        after = await _comparable(other_store, key)
        await prepared()
        async for _ in cancelled_at_every_wait(lambda: CALLS[call](store, key)):
            await store.append(ThreadKey("another", "elsewhere"), [said("x")])
            assert await _comparable(other_store, key) in _may_be_seen(before, after)
            # Usable, and no answer goes to the wrong question.
            assert await prepared() == before == await _comparable(store, key)

    async def test_a_cancelled_opening_may_be_tried_again(self, harness: Harness) -> None:
        stores: list[Store] = []

        def append() -> Coroutine[Any, Any, object]:
            stores.append(harness.open())
            return stores[-1].append(KEY, part_of_turn("w", len(stores), 2), append_id=str(len(stores)))

        try:
            async for _ in cancelled_at_every_wait(append):
                await check_whole_or_absent(stores[-1], len(stores), 2)
                await stores[-1].aclose()
        finally:
            for store in stores:
                await store.aclose()

    async def test_a_cancelled_closing_may_be_tried_again(self, harness: Harness) -> None:
        stores: list[Store] = []

        async def close() -> None:
            await stores[-1].aclose()

        async def under_way() -> list[asyncio.Task[Any]]:
            store = harness.open()
            stores.append(store)
            await store.open()
            return [asyncio.create_task(store.append(KEY, part_of_turn(str(len(stores)), i, 2))) for i in range(5)]

        appends = await under_way()
        async for _ in cancelled_at_every_wait(close):
            await asyncio.wait(appends)
            await stores[-1].aclose()
            appends = await under_way()
        await asyncio.wait(appends)
        await stores[-1].aclose()
        async with harness.open() as store:
            whole_turns(await everything(store))

    async def test_a_timeout_is_a_cancellation(self, store: Store) -> None:
        async def too_late() -> None:
            async with asyncio.timeout(0):
                await store.append(KEY, [said("a")], append_id="1")
                # An append that never waits is complete before the timeout can end it.
                await asyncio.sleep(0)

        with pytest.raises(TimeoutError):
            await too_late()
        if not await payloads(store):
            await store.append(KEY, [said("a")], append_id="1")
        assert await payloads(store) == [said("a").payload]
