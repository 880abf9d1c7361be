"""A store in which somebody else does something in the worst moment: no sleeping, no luck."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from everthread import Store
from everthread.wrappers.forwarding import ForwardingStore

T = TypeVar("T")


class Meanwhile(ForwardingStore):
    """Right before a call of the given name reaches the store, ``work`` happens there.

    Args:
        inner: Where it is kept in truth.
        call: The method's name.
        work: What somebody else does.
        times: Before how many of the calls; ``None``: before each.
    """

    def __init__(
        self, inner: Store, call: str, work: Callable[[], Awaitable[object]], *, times: int | None = 1
    ) -> None:
        super().__init__(inner)
        self._call = call
        self._work = work
        self._left = times

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        if call == self._call and self._left != 0:
            self._left = None if self._left is None else self._left - 1
            await self._work()
        return await proceed()
