"""An event loop in a background thread, for the synchronous methods of frameworks.

    portal = shared_portal()
    page = portal.call(store.read_last, key, 20)

A caller may be in any thread, also in one with a running event loop (a notebook, a request of a server), which then
waits. The thread is a daemon: a program does not wait for it, and its stores are closed when the interpreter exits.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from typing import Any, ParamSpec, TypeVar

from everthread._uncopied import Uncopied
from everthread.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

_EXIT_SECONDS = 5.0
"""The longest wait for stores to close when the interpreter exits."""

_END: Any = object()


class Portal(Uncopied):
    """Run coroutines for synchronous callers, all in one event loop.

    The thread starts at the first call, and again after `close` or in a forked child. A `PerLoop` store, or the URL
    of one given to an adapter, connects once in this loop. A store that another loop opened raises
    `ConfigurationError` here.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """Begin again without a thread: a forked child has none, and a lock may be held there forever."""
        self._changing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ending: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_exiting = False
        self._process = os.getpid()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of an async function, or raise its error. Blocks the calling thread.

        The function sees a copy of the caller's context variables. An interrupted caller (``KeyboardInterrupt``)
        cancels it.

        Raises:
            ConfigurationError: The caller is a coroutine of this portal, the portal was closed during the call, or the
                interpreter is exiting.
        """
        answer: Future[T] = Future()
        begun: list[asyncio.Task[None]] = []

        async def run() -> None:
            try:
                answer.set_result(await function(*args, **kwargs))
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                answer.set_exception(error)

        def finish(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not answer.done():
                answer.set_exception(ConfigurationError("The portal was closed during this call."))

        def begin() -> None:
            task = asyncio.Task(run(), loop=loop, context=context)
            self._tasks.add(task)
            begun.append(task)
            task.add_done_callback(finish)

        def cancel() -> None:
            begun[0].cancel()

        context = contextvars.copy_context()
        with self._lock():
            loop = self._running()
            loop.call_soon_threadsafe(begin)
        try:
            return answer.result()
        except BaseException:
            if not answer.done():
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(cancel)
            raise

    def iterate(self, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """Yield the items of an async iterator, one call each. Closes it if the caller stops early."""

        async def begin() -> AsyncIterator[T]:
            return make()

        async def following(items: AsyncIterator[T]) -> T:
            return await anext(items, _END)

        items = self.call(begin)
        try:
            while (item := self.call(following, items)) is not _END:
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                with suppress(ConfigurationError):  # the portal closed it when it ended
                    self.call(close)

    def close(self) -> None:
        """Cancel calls in progress, close what they opened, and end the thread. The next call starts it again."""
        with self._lock():
            loop, ending, thread = self._loop, self._ending, self._thread
            self._loop = self._ending = self._thread = None
            if loop is None or ending is None or thread is None:
                return
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(ending.set)
        thread.join(_EXIT_SECONDS)

    def exit(self) -> None:
        """Close for good, when the interpreter exits. Reports nothing: standard error may be gone."""
        loop = self._loop
        if loop is not None:
            loop.set_exception_handler(lambda loop, context: None)
        self._is_exiting = True
        self.close()

    def _lock(self) -> threading.Lock:
        if self._process != os.getpid():
            self._forget()
        if self._thread is threading.current_thread():
            raise ConfigurationError(
                "A coroutine of the portal called a synchronous method, which would wait for itself: "
                "use the async method there."
            )
        return self._changing

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            if self._is_exiting:
                raise ConfigurationError("The interpreter is exiting: the store can no longer be called.")
            started: Future[asyncio.AbstractEventLoop] = Future()
            self._thread = threading.Thread(target=self._live, args=(started,), name="everthread-portal", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                raise ConfigurationError("The interpreter is exiting: the store can no longer be called.") from None
            self._loop = started.result()
        return self._loop

    def _live(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        async def serve() -> None:
            self._ending = ending = asyncio.Event()
            started.set_result(asyncio.get_running_loop())
            await ending.wait()

        # An executor cannot be shut down while the interpreter exits.
        with suppress(RuntimeError):
            asyncio.run(serve())


@cache
def shared_portal() -> Portal:
    """Return the portal of this process, which all adapters share."""
    portal = Portal()
    atexit.register(portal.exit)
    return portal
