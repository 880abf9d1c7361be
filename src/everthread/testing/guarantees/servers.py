"""A server that is restarted, killed or away: typed errors, and everything acknowledged is still there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from everthread.contract import Store
from everthread.errors import EverthreadError, StoreUnavailableError
from everthread.model import ThreadKey
from everthread.testing.guarantees._base import CALLS, KEY, GuaranteeTests, everything, part_of_turn, said, whole_turns
from everthread.testing.guarantees.isolated import fill
from everthread.testing.harness import Harness, ServerHarness

LONGEST = 60.0
"""Seconds within which a call to an unavailable server must raise an error."""


async def make(call: str, store: Store) -> object:
    """Make a call that leaves the thread of these tests usable."""
    return await CALLS[call](store, ThreadKey("unknown", "unknown") if call.startswith("delete") else KEY)


class AcrossRestarts(GuaranteeTests):
    """For engines on a server. A subclass defines ``harness``, a `ServerHarness`."""

    @pytest_asyncio.fixture(autouse=True)
    async def running_again(self, harness: ServerHarness) -> AsyncIterator[None]:
        """Start the server after the test, if it does not answer."""
        yield
        if not await _answers(harness):
            await asyncio.to_thread(harness.kill_server)
            await asyncio.to_thread(harness.start_server)

    async def test_the_first_call_after_a_restart_succeeds(self, harness: ServerHarness) -> None:
        stores = await _one_store_a_call(harness)
        try:
            await asyncio.to_thread(harness.kill_server)
            await asyncio.to_thread(harness.start_server)
            for name, store in stores.items():
                await make(name, store)
        finally:
            await _close_all(stores)

    async def test_what_was_acknowledged_outlives_the_server(self, harness: ServerHarness) -> None:
        async with harness.open() as store:
            for rounds in range(3):
                acks = await asyncio.gather(
                    *(store.append(KEY, part_of_turn(f"{rounds}", i, 3), append_id=f"{rounds}-{i}") for i in range(20))
                )
                await asyncio.to_thread(harness.kill_server)
                await asyncio.to_thread(harness.start_server)
                turns = whole_turns(await everything(store))
                assert turns[-20:] == [(f"{rounds}", i) for i in range(20)]
                assert (await store.append(KEY, [said("x")], append_id=f"{rounds}-0")).first_seq == acks[0].first_seq

    async def test_a_server_that_is_away_is_a_typed_error_in_bounded_time(self, harness: ServerHarness) -> None:
        stores = await _one_store_a_call(harness)
        try:
            await asyncio.to_thread(harness.kill_server)
            began = time.monotonic()
            answers = await asyncio.gather(
                *(make(name, store) for name, store in stores.items()), return_exceptions=True
            )
            took = time.monotonic() - began
            for name, answer in zip(stores, answers, strict=True):
                assert isinstance(answer, StoreUnavailableError), f"{name} answered {answer!r}"
            assert took < LONGEST
            await asyncio.to_thread(harness.start_server)
            for name, store in stores.items():
                await make(name, store)
        finally:
            await _close_all(stores)

    async def test_opening_while_the_server_is_away_may_be_tried_again(self, harness: ServerHarness) -> None:
        await asyncio.to_thread(harness.kill_server)
        async with aclosing(harness.open()) as store:
            with pytest.raises(StoreUnavailableError):
                await store.read(KEY)
            await asyncio.to_thread(harness.start_server)
            await store.append(KEY, [said("a")], expected_seq=0)

    async def test_closing_while_the_server_is_away_ends(self, harness: ServerHarness) -> None:
        store = harness.open()
        await store.append(KEY, [said("a")])
        await asyncio.to_thread(harness.kill_server)
        await asyncio.wait_for(store.aclose(), LONGEST)

    async def test_a_restart_under_load_loses_and_doubles_nothing(self, harness: ServerHarness) -> None:
        async with harness.open() as store:
            await store.open()
            stop = asyncio.Event()

            async def write(lane: str) -> int:
                turn = 0
                while not stop.is_set():
                    await _until_done(store, lane, turn)
                    turn += 1
                return turn

            lanes = {name: asyncio.create_task(write(name)) for name in "abcd"}
            for _ in range(3):
                before = (await everything(store))[-1:]
                await asyncio.to_thread(harness.kill_server)
                await asyncio.to_thread(harness.start_server)
                await _until_longer(store, before[0].seq if before else -1)
            stop.set()
            counts = {name: await task for name, task in lanes.items()}
            turns = whole_turns(await everything(store))
        for name, count in counts.items():
            assert [turn for by, turn in turns if by == name] == list(range(count))


async def _answers(harness: ServerHarness) -> bool:
    try:
        async with harness.open() as store:
            await store.get_thread(KEY)
    except EverthreadError:
        return False
    return True


async def _until_done(store: Store, lane: str, turn: int) -> None:
    """Send a turn until it is acknowledged, always with the same id."""
    while True:
        try:
            await store.append(KEY, part_of_turn(lane, turn, 3), append_id=f"{lane}-{turn}")
        except StoreUnavailableError:
            await asyncio.sleep(0.01)
        else:
            return


async def _until_longer(store: Store, seq: int) -> None:
    """Wait until the writers have appended after position ``seq``."""
    deadline = time.monotonic() + LONGEST
    while (await store.read_last(KEY, 1)).next_seq <= seq + 20:
        assert time.monotonic() < deadline, "the writers did not get on after a restart"
        await asyncio.sleep(0.01)


async def _one_store_a_call(harness: Harness) -> dict[str, Store]:
    """Open a store for each call, each with a connection that works."""
    stores = {name: harness.open() for name in CALLS}
    first, *others = stores.values()
    await fill(first, KEY, "a")
    for store in others:
        await store.read(KEY)
    return stores


async def _close_all(stores: dict[str, Store]) -> None:
    for store in stores.values():
        await store.aclose()
