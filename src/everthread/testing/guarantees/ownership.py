"""Opening, closing and cancelling: a store closes what it opened, and stays usable."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest

from everthread.contract import Store
from everthread.errors import ConfigurationError, OutcomeUnknownError, StoreUnavailableError
from everthread.model import Appended
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
from everthread.testing.harness import Harness


class HonestOwnership(GuaranteeTests):
    """A store opens at its first use, closes once, and belongs to one event loop."""

    async def test_creating_a_store_does_nothing_that_needs_closing(self, harness: Harness) -> None:
        store = harness.open()
        assert store.location
        await store.aclose()

    async def test_many_first_uses_open_it_once(self, harness: Harness) -> None:
        async with aclosing(harness.open()) as store:
            await asyncio.gather(*(store.append(KEY, [said(str(i))]) for i in range(20)))
            await asyncio.gather(store.open(), store.open())
            assert len(await everything(store)) == 20

    async def test_closing_may_be_repeated(self, harness: Harness) -> None:
        store = harness.open()
        await store.append(KEY, [said("a")])
        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_closed_store_refuses_every_call(self, harness: Harness, call: str) -> None:
        store = harness.open()
        await store.append(KEY, [said("a")])
        await store.aclose()
        with pytest.raises(ConfigurationError):
            await CALLS[call](store, KEY)

    async def test_a_closed_store_does_not_open_again(self, harness: Harness) -> None:
        store = harness.open()
        await store.aclose()
        with pytest.raises(ConfigurationError):
            await store.open()

    async def test_closing_finishes_what_is_under_way(self, harness: Harness) -> None:
        store = harness.open()
        await store.append(KEY, [said("first")])
        under_way = [asyncio.create_task(store.append(KEY, part_of_turn("w", i, 3))) for i in range(30)]
        await asyncio.sleep(0)
        await store.aclose()
        results = await asyncio.gather(*under_way, return_exceptions=True)
        async with harness.open() as again:
            kept = whole_turns((await everything(again))[1:])
        done = [i for i, result in enumerate(results) if isinstance(result, Appended)]
        for result in results:
            assert isinstance(result, Appended | ConfigurationError | StoreUnavailableError)
        known = [i for _, i in kept if not isinstance(results[i], OutcomeUnknownError)]
        assert known == done, "the acknowledged turns and the kept turns differ"
        assert done, "closing did not wait for the calls in progress"

    async def test_closing_while_it_opens_leaves_it_closed(self, harness: Harness) -> None:
        store = harness.open()
        opening = asyncio.create_task(store.append(KEY, [said("a")]))
        await asyncio.sleep(0)
        await store.aclose()
        await asyncio.gather(opening, return_exceptions=True)
        with pytest.raises(ConfigurationError):
            await store.read(KEY)

    async def test_another_event_loop_is_refused(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        caught: list[BaseException] = []

        def elsewhere() -> None:
            for call in (store.read(KEY), store.append(KEY, [said("b")]), store.list_threads()):
                try:
                    asyncio.run(call)
                except BaseException as error:
                    caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert [type(error) for error in caught] == [ConfigurationError] * 3
        assert await payloads(store) == [said("a").payload]

    async def test_closing_one_store_leaves_another_on_the_same_place(self, harness: Harness) -> None:
        async with harness.open() as store:
            async with harness.open() as other:
                await other.append(KEY, [said("a")])
            await store.append(KEY, [said("b")])
            assert await payloads(store) == [said("a").payload, said("b").payload]
