"""Stores that many chat message stores of one event loop have in common.

The betas make a message store for each conversation, without a running loop and without saying when it
is done with. A connection each would be dear, so those of one loop that name the same place share one
`Store`, which is closed when the last of them is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from everthread.contract import Store

_in_use: dict[asyncio.AbstractEventLoop, dict[Hashable, SharedStore]] = {}


@dataclass(eq=False)
class SharedStore:
    """A store with the number of those who use it; belongs to the loop in which it was acquired."""

    store: Store
    loop: asyncio.AbstractEventLoop
    place: Hashable
    users: int = 0

    def is_here(self) -> bool:
        """Whether the running loop is the one that this belongs to."""
        return self.loop is asyncio.get_running_loop()

    async def release(self) -> None:
        """Gives up one use; the last one closes the store. In another loop than its own it is only let go."""
        self.users -= 1
        if self.users == 0 and self.is_here():
            _in_use[self.loop].pop(self.place, None)
            await self.store.aclose()


def acquire(place: Hashable, open_store: Callable[[], Store]) -> SharedStore:
    """The running loop's store for a place, with one use more; made if there is none."""
    loop = asyncio.get_running_loop()
    if loop not in _in_use:
        # Those that were not closed before their loop was can no longer be.
        for gone in [other for other in _in_use if other.is_closed()]:
            del _in_use[gone]
    shared = _in_use.setdefault(loop, {})
    if place not in shared:
        shared[place] = SharedStore(open_store(), loop, place)
    shared[place].users += 1
    return shared[place]
