"""Opening and closing of an engine: once, in one event loop, with calls resumed in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from everthread.contract import Store
from everthread.errors import ConfigurationError, EverthreadError

T = TypeVar("T")


class OpensOnce(Store):
    """Opens a store at its first use, binds it to the event loop, and closes it once."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._opened: asyncio.Event | None = None
        self._arriving = 0
        self._is_open = False
        self._is_closed = False
        self._must_close = False

    async def open(self) -> None:
        if self._is_open:
            self._check_loop()
            return
        self._check_not_closed()
        loop = asyncio.get_running_loop()
        if self._loop is not loop and not self._must_close and not self._opening.locked():
            # After a failed opening, the next attempt may come from another loop. An asyncio.Lock belongs to the first
            # loop in which a task waited for it.
            self._loop, self._opening = loop, asyncio.Lock()
        self._check_loop()
        async with self._opening:
            self._check_loop()
            self._check_not_closed()
            if not self._must_close:
                await self._translated(self._open())
                self._must_close = True
            self._is_open = not self._is_closed
        self._check_not_closed()

    async def aclose(self) -> None:
        if self._must_close or self._opening.locked():
            self._check_loop()
        # No call begins after this; a running opening is awaited below.
        self._is_closed, self._is_open = True, False
        async with self._opening:
            if self._must_close:
                await self._translated(self._close())
                # Only now, so that a cancelled closing can be repeated.
                self._must_close = False

    def abandon(self) -> None:
        self._is_closed, self._is_open = True, False
        self._release()

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise ConfigurationError(f"This store ({self.location}) was closed: open a new one.")

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                f"This store ({self.location}) was opened in another event loop: open one store for each loop (one "
                "asyncio.run), or use everthread.wrappers.per_loop.PerLoop."
            )

    async def _ready(self) -> None:
        """Open the store if needed. Calls continue in the order in which they arrived."""
        if self._is_open and not self._arriving and self._loop is asyncio.get_running_loop():
            return
        self._arriving += 1
        try:
            if self._is_open:
                self._check_loop()
                # Calls that waited for the opening continue in this turn of the loop, or in an earlier one.
                await asyncio.sleep(0)
            while not self._is_open:
                await self._open_or_wait()
        finally:
            self._arriving -= 1

    async def _open_or_wait(self) -> None:
        if self._opened is not None:
            self._check_loop()
            await self._opened.wait()
            return
        self._opened = opened = asyncio.Event()
        try:
            await self.open()
        finally:
            # Wakes all in their order; if the opening failed, the first of them tries again.
            self._opened = None
            opened.set()

    async def _translated(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except EverthreadError:
            raise
        except Exception as error:
            translated = self._translate(error)
            if translated is None:
                raise
            raise translated from None

    # Hooks that every engine may write

    async def _open(self) -> None:
        """Connect, and create or check the schema. Create and migrate nothing if ``self.read_only``."""

    async def _close(self) -> None:
        """Finish calls in progress and close what `_open` opened. May be repeated after a cancellation."""

    def _release(self) -> None:
        """Release connections and threads without an event loop."""

    def _translate(self, error: Exception) -> EverthreadError | None:
        """Return the typed error for a driver's exception, or ``None`` for a bug, which is raised unchanged."""
        return None
