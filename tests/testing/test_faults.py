"""The faulty store fails when it is told to, and the write has landed or not as the fault says."""

from __future__ import annotations

import asyncio

import pytest

from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.errors import OutcomeUnknownError, StoreUnavailableError
from everthread.model import Appended, ThreadKey
from everthread.testing import Fault, FaultyStore, Harness, StoreContractSuite
from everthread.testing.guarantees._base import part_of_turn, payloads, said

KEY = ThreadKey("a")


class FaultlessHarness(Harness):
    def __init__(self) -> None:
        self.threads: Threads = {}

    def open(self, **options) -> Store:
        return FaultyStore(MemoryStore(self.threads, **options), [])

    def another(self) -> FaultlessHarness:
        return FaultlessHarness()


@pytest.mark.essential_first
class TestWithoutFaults(StoreContractSuite):
    """A store around a store keeps every guarantee that the inner one keeps."""

    @pytest.fixture
    def harness(self) -> Harness:
        return FaultlessHarness()


@pytest.mark.parametrize(
    ("fault", "error", "landed"),
    [
        (Fault.FAIL_BEFORE, StoreUnavailableError, False),
        (Fault.FAIL_AFTER, OutcomeUnknownError, True),
        (Fault.CANCEL_BEFORE, asyncio.CancelledError, False),
        (Fault.CANCEL_AFTER, asyncio.CancelledError, True),
    ],
)
async def test_a_fault_comes_before_or_after_the_write(fault: Fault, error: type[BaseException], landed: bool) -> None:
    async with FaultyStore(MemoryStore(), [None, fault]) as store:
        await store.append(KEY, [said("first")])
        task = asyncio.create_task(store.append(KEY, part_of_turn("w", 0, 2), append_id="1"))
        with pytest.raises(error) as caught:
            await task
        assert caught.type is error
        assert len(await payloads(store, KEY)) == (3 if landed else 1)
        again = await store.append(KEY, part_of_turn("w", 0, 2), append_id="1")
        assert again == Appended(1, 3, replayed=landed)


async def test_only_the_calls_that_count_fail() -> None:
    store = FaultyStore(MemoryStore(), [Fault.FAIL_BEFORE, Fault.FAIL_AFTER], calls=["read", "put_document"])
    await store.append(KEY, [said("a")])
    with pytest.raises(StoreUnavailableError) as caught:
        await store.read(KEY)
    assert caught.type is StoreUnavailableError
    with pytest.raises(OutcomeUnknownError):
        await store.put_document(KEY, "d", b"1")
    assert await store.list_documents(KEY) == ("d",)
    assert store.made == ["append", "read", "put_document", "list_documents"]
    await store.aclose()


async def test_a_lost_answer_to_a_read_is_no_unknown_outcome() -> None:
    store = FaultyStore(MemoryStore(), [Fault.FAIL_AFTER], calls=["read"])
    with pytest.raises(StoreUnavailableError) as caught:
        await store.read(KEY)
    assert caught.type is StoreUnavailableError
