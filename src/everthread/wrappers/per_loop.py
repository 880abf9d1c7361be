"""A store that works in every event loop: for programs that call ``asyncio.run`` more than once, or in several threads.

    store = PerLoop(lambda: open_store("redis://localhost:6379/0"))

Flask, Streamlit, test clients and notebooks run a loop for each request. Any other store belongs to the loop that
opened it, because its connections do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from everthread.contract import Store
from everthread.wrappers.forwarding import ABILITIES, ForwardingStore
from everthread.wrappers.loop_bound import LoopBound


class PerLoop(ForwardingStore):
    """A store for each event loop in which it is used.

    The store of a loop is closed when the loop ends (`asyncio.run`, ``uvloop.run`` and ``anyio.run`` see to that),
    or by `aclose`, which closes those of all loops that run. After `aclose` the next use opens a store again.
    A loop that is closed by ``loop.close()`` alone gives the store no chance to close its connections. They are then
    released at the next use in another loop, or by the garbage collector, and Python may report a `ResourceWarning`.

    Each loop needs a new connection. If a program can use one loop for its whole life, open one store instead.

    Args:
        make: Returns a new store at each call, without I/O, such as
            ``lambda: Encrypted(open_store(url), keyring)``. Each ``memory:`` store has separate threads.
    """

    carries: ClassVar[frozenset[type]] = ABILITIES

    def __init__(self, make: Callable[[], Store]) -> None:
        self._stores = LoopBound(make)
        # Never opened: it answers for the location and the abilities of the stores.
        super().__init__(make())

    @property
    def _inner(self) -> Store:
        return self._stores.here(self)

    async def aclose(self) -> None:
        await self._stores.release(self)

    def abandon(self) -> None:
        """Do nothing: the store of a closed loop is released at the next use in another loop."""
