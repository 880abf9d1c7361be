"""Connections that belong to an event loop: made in each loop that uses them, and closed when the loop ends."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

_LOOK_EVERY = 0.1
"""Seconds after which a wait for another loop checks that the loop still runs."""


class Closable(Protocol):
    """The thing of a loop: a store, or a client of a driver. ``abandon``, if it exists, releases it without a loop."""

    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closable)

_endings: dict[threading.Event, AsyncGenerator[None]] = {}
"""Those of all things that are open: a loop closes only generators that still exist when it ends."""

_under_way: set[asyncio.Task[None]] = set()
"""Closing tasks without an owner: a loop does not keep its tasks alive."""


@dataclass(eq=False)
class _Bound(Generic[C]):
    """A thing, the event loop that it belongs to, and its users there.

    Attributes:
        ending: A started generator. Its loop closes it, and with it the thing, in ``shutdown_asyncgens``, which
            `asyncio.run` and its like call before they close a loop.
        is_ending: Set when that has begun.
    """

    thing: C
    loop: asyncio.AbstractEventLoop
    ending: AsyncGenerator[None]
    is_ending: threading.Event
    users: WeakSet[object] = field(default_factory=WeakSet[object])

    async def close(self) -> None:
        await self.thing.aclose()
        # It may be running, if the loop is about to end.
        with suppress(RuntimeError):
            await self.ending.aclose()

    def abandon(self) -> None:
        """Release the thing without its loop, which was closed."""
        getattr(self.thing, "abandon", lambda: None)()
        _endings.pop(self.is_ending, None)


class LoopBound(Generic[C]):
    """Make a thing for each event loop on demand, and close it when its last user is done or its loop ends.

    Safe to use from loops in several threads.

    Args:
        make: Makes a thing; it must do no I/O.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._bound: dict[asyncio.AbstractEventLoop, _Bound[C]] = {}
        self._closing: set[_Bound[C]] = set()
        self._changing = threading.Lock()
        weakref.finalize(self, _close_soon, self._bound).atexit = False

    def here(self, user: object) -> C:
        """Return the running loop's thing; make it if there is none. ``user`` becomes one of its users."""
        loop = asyncio.get_running_loop()
        bound = self._bound.get(loop)
        if bound is None or user not in bound.users or bound.is_ending.is_set():
            with self._changing:
                bound = self._usable(loop)
                bound.users.add(user)
        return bound.thing

    def _usable(self, loop: asyncio.AbstractEventLoop) -> _Bound[C]:
        bound = self._bound.get(loop)
        if bound is None or bound.is_ending.is_set():
            self._drop_dead()
            bound = self._bound[loop] = _begun(self._make(), loop)
        return bound

    def _drop_dead(self) -> None:
        """Release things that belong to loops closed without ``shutdown_asyncgens``."""
        for bound in [*self._bound.values(), *self._closing]:
            if bound.loop.is_closed():
                self._bound.pop(bound.loop, None)
                self._closing.discard(bound)
                bound.abandon()

    async def release(self, user: object) -> None:
        """Give up the uses of ``user`` in every loop, and close what has no other user.

        Each thing is closed in its own loop. If that loop does not run now, it is closed when the loop ends.
        """
        with self._changing:
            self._drop_dead()
            for bound in list(self._bound.values()):
                bound.users.discard(user)
                if not bound.users:
                    # A use from now on gets a new thing; a closing that is cancelled can be repeated.
                    self._closing.add(self._bound.pop(bound.loop))
            closing = list(self._closing)
        for bound in closing:
            if await _closed(bound):
                self._closing.discard(bound)


def _begun(thing: C, loop: asyncio.AbstractEventLoop) -> _Bound[C]:
    is_ending = threading.Event()
    ending = _until_closed(thing, is_ending)
    with suppress(StopIteration):
        # Runs it up to its `yield`, which it reaches without waiting; from then on the loop knows of it.
        ending.__anext__().send(None)
    _endings[is_ending] = ending
    return _Bound(thing, loop, ending, is_ending)


async def _until_closed(thing: Closable, is_ending: threading.Event) -> AsyncGenerator[None]:
    # Refers to no owner, so that the garbage collector finds an owner that was not closed.
    try:
        yield
    finally:
        is_ending.set()
        _endings.pop(is_ending, None)
        await thing.aclose()


def _close_soon(bound: dict[asyncio.AbstractEventLoop, _Bound[C]]) -> None:
    """Close what an owner left open that the garbage collector found, in any thread."""
    for loop, each in bound.items():
        if loop.is_closed():
            each.abandon()
            continue
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_begin_closing, each)


def _begin_closing(bound: _Bound[C]) -> None:
    closing = asyncio.Task(bound.close(), loop=bound.loop)
    _under_way.add(closing)
    closing.add_done_callback(_under_way.discard)


async def _closed(bound: _Bound[C]) -> bool:
    """Close a thing in its own loop; ``False`` if that loop does not run."""
    if bound.loop is asyncio.get_running_loop():
        await bound.close()
        return True
    if not bound.loop.is_running():
        return False
    closing = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(bound.close(), bound.loop))
    while not closing.done() and bound.loop.is_running():
        await asyncio.wait({closing}, timeout=_LOOK_EVERY)
    if not closing.done():
        # The loop stopped first, and closes it when it ends.
        closing.cancel()
        return False
    await closing
    return True
