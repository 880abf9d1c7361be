"""Threads that carry out functions on a connection of their own: the only bridge between the event loop and sqlite3."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import msgspec

from everthread.errors import ConfigurationError, EverthreadError, StoreUnavailableError


class Connection(Protocol):
    """What a worker thread opens, uses and closes."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)
P = ParamSpec("P")
Q = TypeVar("Q")
R = TypeVar("R")

_MOST_TOGETHER = 256


class _Job(msgspec.Struct):
    """Something to do.

    Attributes:
        together: The function takes a list of items: the argument of this job, and those of the jobs beside it.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    answer: asyncio.Future[Any]
    together: bool = False


class _End(msgspec.Struct):
    """The thread is to close its connection and end."""

    answer: asyncio.Future[Any] | None = None


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
        self._jobs: SimpleQueue[_Job | _End] = SimpleQueue()
        self._started = 0
        self._under_way = 0
        self._is_stopped = False
        self._ends: list[asyncio.Future[None]] = []
        self._process = os.getpid()

    async def call(self, function: Callable[Concatenate[C, P], R], *args: P.args, **_: P.kwargs) -> R:
        """Runs ``function(connection, *args)`` in a thread.

        If the caller is cancelled, what has begun is carried out to its end.
        """
        return await self._done(_Job(function, args, asyncio.get_running_loop().create_future()))

    async def call_together(self, function: Callable[[C, Sequence[Q]], Sequence[R | EverthreadError]], item: Q) -> R:
        """Runs ``function(connection, items)`` in a thread, with this item among those that wait just then.

        Items keep the order of the calls, also among other calls; nothing is waited for. The function gives a result or
        an error for each item, in order; if it raises, each caller gets that error.

        If the caller is cancelled before its item's turn has come, the item is left out.
        """
        return await self._done(_Job(function, (item,), asyncio.get_running_loop().create_future(), together=True))

    async def _done(self, job: _Job) -> Any:
        if self._process != os.getpid():
            raise ConfigurationError("This store was opened before a fork: open a new one in the child process.")
        if self._is_stopped:
            raise StoreUnavailableError("The store was closed while this was under way: open it again and repeat this.")
        if self._under_way >= self._started < self._most:
            self._start()
        self._under_way += 1
        self._jobs.put(job)
        try:
            return await job.answer
        finally:
            self._under_way -= 1

    async def stop(self) -> None:
        """Closes the connections once everything called before is done."""
        if self._process != os.getpid():
            return  # The threads, and the connections with them, stayed in the parent.
        self._is_stopped = True
        for _ in range(self._started):
            end = asyncio.get_running_loop().create_future()
            self._ends.append(end)
            self._jobs.put(_End(end))
        self._started = 0
        if self._ends:
            # A wait that is cancelled leaves the ends as they are, for the next call.
            await asyncio.wait(self._ends)

    def release(self) -> None:
        """Like `stop`, without waiting: for a store that is given up."""
        for _ in range(self._started):
            self._jobs.put(_End())
        self._started = 0

    def _start(self) -> None:
        arguments = (self._jobs, self._connect)
        threading.Thread(target=_work, args=arguments, name=self._name, daemon=True).start()
        self._started += 1


def _work(jobs: SimpleQueue[_Job | _End], connect: Callable[[], C]) -> None:
    # The connection is known to this frame only, so a forked child can never close the parent's.
    connection: C | None = None
    job = jobs.get()
    while isinstance(job, _Job):
        batch, following = _batch(jobs, job) if job.together else ([job], None)
        try:
            if connection is None:
                connection = connect()
            _carry_out(connection, batch)
        except BaseException as error:
            _deliver(batch, [error] * len(batch))
        # An idle thread must not keep the last job's arguments and answer alive.
        del job, batch
        job = following or jobs.get()
        del following
    if connection is not None:
        connection.close()
    if job.answer is not None:
        _deliver([job], [None])


def _batch(jobs: SimpleQueue[_Job | _End], job: _Job) -> tuple[list[_Job], _Job | _End | None]:
    """The job and those that wait and can be done together with it, and one that was taken beyond them."""
    batch = [job]
    while len(batch) < _MOST_TOGETHER:
        try:
            other = jobs.get_nowait()
        except Empty:
            break
        if not isinstance(other, _Job) or other.function is not job.function:
            return batch, other
        batch.append(other)
    return batch, None


def _carry_out(connection: Connection, batch: list[_Job]) -> None:
    first = batch[0]
    if not first.together:
        if not first.answer.cancelled():
            _deliver(batch, [first.function(connection, *first.args)])
    elif awaited := [job for job in batch if not job.answer.cancelled()]:
        _deliver(awaited, first.function(connection, [job.args[0] for job in awaited]))


def _deliver(batch: Sequence[_Job | _End], results: Sequence[object]) -> None:
    answer = batch[0].answer
    assert answer is not None
    try:
        # Waking the loop is dear, so it is done once for all.
        answer.get_loop().call_soon_threadsafe(_settle, batch, results)
    except RuntimeError:
        # The loop was closed meanwhile: nobody waits any more.
        return


def _settle(batch: Sequence[_Job | _End], results: Sequence[object]) -> None:
    for job, result in zip(batch, results, strict=True):
        answer = job.answer
        if answer is None or answer.done():
            continue
        if not isinstance(result, BaseException):
            answer.set_result(result)
        elif isinstance(result, EverthreadError) and len(batch) > 1:
            # Each caller gets an error of its own: raising one object in many tasks mixes their tracebacks.
            answer.set_exception(type(result)(*result.args))
        elif isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_exception(StoreUnavailableError(f"The store's thread was stopped: {type(result).__name__}."))
