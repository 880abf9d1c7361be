"""A store that fails on request, for tests of code that uses a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum, auto
from typing import TypeVar

from everthread.contract import Store
from everthread.errors import OutcomeUnknownError, StoreUnavailableError
from everthread.wrappers.forwarding import ABILITIES, WRITES, ForwardingStore

T = TypeVar("T")


class Fault(Enum):
    """The fault of a call."""

    FAIL_BEFORE = auto()
    """`StoreUnavailableError`, and nothing was written."""

    FAIL_AFTER = auto()
    """`OutcomeUnknownError`, and it was written: the answer was lost."""

    CANCEL_BEFORE = auto()
    """The calling task is cancelled, and nothing was written."""

    CANCEL_AFTER = auto()
    """The calling task is cancelled, and it was written."""


class FaultyStore(ForwardingStore):
    """A store around a store, in which calls fail by plan.

        store = FaultyStore(MemoryStore(), [None, Fault.FAIL_AFTER])
        # The first append succeeds, the second lands but its answer is lost, all later ones succeed.

    Args:
        inner: Where it is kept in truth; this store takes it over.
        plan: What happens in each call that counts, in order; ``None`` is no fault. When the plan ends
            there are no more faults.
        calls: Names of the methods that count. The others never fail.
    """

    carries = ABILITIES

    def __init__(self, inner: Store, plan: Iterable[Fault | None], *, calls: Iterable[str] = ("append",)) -> None:
        super().__init__(inner)
        self._plan = iter(plan)
        self._calls = frozenset(calls)
        self.made: list[str] = []
        """The methods that were called, in order, counted or not."""

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        self.made.append(call)
        fault = next(self._plan, None) if call in self._calls else None
        match fault:
            case Fault.FAIL_BEFORE:
                raise StoreUnavailableError(f"{call} failed before it was sent, as planned.")
            case Fault.CANCEL_BEFORE:
                await _cancel_this_task()
            case _:
                pass
        result = await proceed()
        match fault:
            case Fault.FAIL_AFTER:
                raise _lost_answer(call)
            case Fault.CANCEL_AFTER:
                await _cancel_this_task()
            case _:
                pass
        return result


def _lost_answer(call: str) -> StoreUnavailableError:
    lost = f"{call} was carried out and its answer lost, as planned."
    return OutcomeUnknownError(lost) if call in WRITES else StoreUnavailableError(lost)


async def _cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    # The cancellation arrives at the next wait.
    await asyncio.sleep(0)
