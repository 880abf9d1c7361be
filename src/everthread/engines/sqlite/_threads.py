"""Threads that carry out functions on a connection of their own: the only bridge between the event loop and sqlite3."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from everthread.errors import ConfigurationError, StoreUnavailableError


class Connection(Protocol):
    """What a worker thread opens, uses and closes."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)
P = ParamSpec("P")
R = TypeVar("R")

_Answer = Callable[[Any, BaseException | None], None]
_Job = tuple[Callable[..., Any] | None, tuple[Any, ...], "asyncio.Future[Any] | None"]


class Workers(Generic[C]):
    """At most ``most`` threads, each with a connection of its own, started when they are needed.

    With one thread, functions run in the order in which they were called. The threads are daemons:
    a program that ends without closing its store does not wait for them.

    Args:
        name: The threads' name.
        connect: Opens a connection; called in the thread, again after it failed.
    """

    def __init__(self, name: str, connect: Callable[[], C], *, most: int = 1) -> None:
        self._name = name
        self._connect = connect
        self._most = most
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._started = 0
        self._under_way = 0
        self._ends: list[asyncio.Future[None]] = []
        self._process = os.getpid()

    async def call(self, function: Callable[Concatenate[C, P], R], *args: P.args, **_: P.kwargs) -> R:
        """Runs ``function(connection, *args)`` in a thread.

        If the caller is cancelled, what has begun is carried out to its end.
        """
        if self._process != os.getpid():
            raise ConfigurationError("This store was opened before a fork: open a new one in the child process.")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if self._under_way >= self._started < self._most:
            self._start()
        self._under_way += 1
        self._jobs.put((function, args, answer))
        try:
            return await answer
        finally:
            self._under_way -= 1

    async def stop(self) -> None:
        """Closes the connections once everything called before is done."""
        if self._process != os.getpid():
            return  # The threads, and the connections with them, stayed in the parent.
        for _ in range(self._started):
            end = asyncio.get_running_loop().create_future()
            self._ends.append(end)
            self._jobs.put((None, (), end))
        self._started = 0
        if self._ends:
            # A wait that is cancelled leaves the ends as they are, for the next call.
            await asyncio.wait(self._ends)

    def release(self) -> None:
        """Like `stop`, without waiting: for a store that is given up."""
        for _ in range(self._started):
            self._jobs.put((None, (), None))
        self._started = 0

    def _start(self) -> None:
        arguments = (self._jobs, self._connect)
        threading.Thread(target=_work, args=arguments, name=self._name, daemon=True).start()
        self._started += 1


def _work(jobs: SimpleQueue[_Job], connect: Callable[[], C]) -> None:
    # The connection is known to this frame only, so a forked child can never close the parent's.
    connection: C | None = None
    while True:
        function, args, answer = jobs.get()
        if function is None:
            break
        if answer is None or answer.cancelled():
            continue
        try:
            if connection is None:
                connection = connect()
            result = function(connection, *args)
        except BaseException as error:
            _deliver(answer, None, error)
        else:
            _deliver(answer, result, None)
        # An idle thread must not keep the last job's arguments and answer alive.
        del function, args, answer
        result = None
    if connection is not None:
        connection.close()
    if answer is not None:
        _deliver(answer, None, None)


def _deliver(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    try:
        answer.get_loop().call_soon_threadsafe(_settle, answer, result, error)
    except RuntimeError:
        # The loop was closed meanwhile: nobody waits any more.
        return


def _settle(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    elif isinstance(error, Exception):
        answer.set_exception(error)
    else:
        answer.set_exception(StoreUnavailableError(f"The store's thread was stopped: {type(error).__name__}."))
