"""A cancelled call leaves its turn whole or absent, harms no other, and the store stays usable."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everthread.contract import Store
from everthread.model import Appended, Retention, ThreadKey
from everthread.testing.cancelling import cancelled_after, cancelled_at_every_wait
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    everything,
    part_of_turn,
    payloads,
    said,
    whole_turns,
)
from everthread.testing.guarantees.isolated import Everything, fill, seen_of
from everthread.testing.harness import Harness
from everthread.testing.machine import comparable

CALLS: dict[str, Callable[[Store], Coroutine[Any, Any, object]]] = {
    "read": lambda store: store.read(KEY),
    "read_last": lambda store: store.read_last(KEY, 5),
    "truncate": lambda store: store.truncate(KEY, start=1),
    "get_thread": lambda store: store.get_thread(KEY),
    "list_threads": lambda store: store.list_threads(KEY.tenant),
    "update_thread": lambda store: store.update_thread(KEY, title="changed", metadata={"changed": True}),
    "delete_thread": lambda store: store.delete_thread(KEY),
    "delete_tenant": lambda store: store.delete_tenant(KEY.tenant),
    "get_document": lambda store: store.get_document(KEY, "d"),
    "put_document": lambda store: store.put_document(KEY, "d", b'"changed"'),
    "delete_document": lambda store: store.delete_document(KEY, "d"),
    "list_documents": lambda store: store.list_documents(KEY),
}


async def check_whole_or_absent(store: Store, number: int, size: int) -> None:
    """Fails if a cancelled turn is torn, or sending it again does not make it appear once."""
    whole_turns(await everything(store))
    for _ in range(2):
        await store.append(KEY, part_of_turn("w", number, size), append_id=str(number))
    assert whole_turns(await everything(store)).count(("w", number)) == 1


def _without_times(seen: Everything) -> object:
    document = seen.document and comparable(seen.document)
    thread = seen.thread and comparable(seen.thread)
    return comparable(seen.page), comparable(seen.tail), thread, seen.is_listed, seen.names, document


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
            tasks = [
                asyncio.create_task(store.append(KEY, part_of_turn(f"{victim}", i, 3), append_id=f"{victim}-{i}"))
                for i in range(12)
            ]
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

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_cancelled_call_takes_effect_or_does_not(self, store: Store, other_store: Store, call: str) -> None:
        made = CALLS[call]

        async def prepared() -> object:
            await other_store.delete_thread(KEY)
            await fill(other_store, KEY, "a")
            return _without_times(await seen_of(other_store, KEY))

        before = await prepared()
        await made(store)
        after = _without_times(await seen_of(other_store, KEY))
        await prepared()
        async for _ in cancelled_at_every_wait(lambda: made(store)):
            # What was cancelled may still be under way; a write after it through the same store is not overtaken.
            await store.append(ThreadKey("another", "elsewhere"), [said("x")])
            assert _without_times(await seen_of(other_store, KEY)) in (before, after)
            # Usable, and no answer goes to the wrong question.
            assert await prepared() == before == _without_times(await seen_of(store, KEY))

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

        with pytest.raises(TimeoutError):
            await too_late()
        await store.append(KEY, [said("a")], append_id="1")
        assert await payloads(store) == [said("a").payload]
