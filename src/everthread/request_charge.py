"""The cost of calls, if a service reports it: the request units of Azure Cosmos DB.

    with charges() as used:
        await store.append(key, messages)
    print(used.total)

An engine reports each request's charge with `charge`, which adds it to the collecting blocks around the call.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar


class Charges:
    """Adds up the cost of the calls in a block.

    Attributes:
        total: In the unit of the service; 0 if the service reports none.
    """

    def __init__(self) -> None:
        self.total = 0.0

    def add(self, amount: float) -> None:
        """Counts another charge."""
        self.total += amount


_collecting: ContextVar[Charges | None] = ContextVar("everthread_charges", default=None)


@contextmanager
def charges() -> Generator[Charges]:
    """Collects the charges within the block, in the tasks that it begins too; blocks may be nested.

    Work of a store in the background (joining, cleaning up) is in no block.
    """
    used, outer = Charges(), _collecting.get()
    try:
        with collecting_in(used):
            yield used
    finally:
        if outer is not None:
            outer.add(used.total)


@contextmanager
def collecting_in(used: Charges | None) -> Generator[None]:
    """For engines: charges within the block are added there only; ``None``: nowhere."""
    token = _collecting.set(used)
    try:
        yield
    finally:
        _collecting.reset(token)


def collector() -> Charges | None:
    """For engines: where charges go at this moment."""
    return _collecting.get()


def charge(amount: float) -> None:
    """For engines: report the charge of a request."""
    used = _collecting.get()
    if used is not None:
        used.add(amount)
