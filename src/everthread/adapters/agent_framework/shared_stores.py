"""Stores that many chat message stores of one event loop have in common.

The betas make a message store for each conversation, without a running loop and without saying when it
is done with. A connection each would be dear, so those of one loop that name the same place share one
`Store`, which is closed when the last of them is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from everthread.contract import Store

_in_use: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, SharedStore]] = WeakKeyDictionary()


@dataclass(eq=False)
class SharedStore:
    """A store with the number of those who use it; belongs to the loop in which it was acquired."""

    store: Store
    loop: asyncio.AbstractEventLoop
    place: Hashable
    users: int = 0

    async def release(self) -> None:
        """Gives up one use; the last one closes the store."""
        self.users -= 1
        if self.users == 0:
            _in_use[self.loop].pop(self.place, None)
            await self.store.aclose()


def acquire(place: Hashable, open_store: Callable[[], Store]) -> SharedStore:
    """The running loop's store for a place, with one use more; made if there is none."""
    loop = asyncio.get_running_loop()
    shared = _in_use.setdefault(loop, {})
    if place not in shared:
        shared[place] = SharedStore(open_store(), loop, place)
    shared[place].users += 1
    return shared[place]
