"""Threads that run functions, each on its own connection: the only bridge between the event loop and sqlite3."""

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
    """A resource that a worker thread opens, uses and closes."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)
P = ParamSpec("P")
Q = TypeVar("Q")
R = TypeVar("R")

_MOST_TOGETHER = 256


class _Job(msgspec.Struct):
    """A call of ``function(connection, *args)``, or the end of the thread if there is no function.

    Attributes:
        together: The function takes a list of items: the arguments of this job and of the jobs that run with it.
    """

    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    answer: asyncio.Future[Any] | None
    together: bool = False


class Workers(Generic[C]):
    """Run functions in at most ``most`` threads, each with its own connection, started on demand.

    With one thread, functions run in the order of their calls. The threads are daemons: a program that ends without
    closing its store does not wait for them.

    Args:
        name: The threads' name.
        connect: Opens a connection. Called in the thread, and again after a failure.
    """

    def __init__(self, name: str, connect: Callable[[], C], *, most: int = 1) -> None:
        self._name = name
        self._connect = connect
        self._most = most
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._started = 0
        self._under_way = 0
        self._is_stopped = False
        self._ends: list[asyncio.Future[None]] = []
        self._process = os.getpid()

    async def call(self, function: Callable[Concatenate[C, P], R], *args: P.args, **_: P.kwargs) -> R:
        """Run ``function(connection, *args)`` in a thread. A running function completes if its caller is cancelled."""
        return await self._done(function, args, together=False)

    async def call_together(self, function: Callable[[C, Sequence[Q]], Sequence[object]], item: Q) -> Any:
        """Run ``function(connection, items)`` in a thread, with this item and all that wait at that moment.

        Items and other calls run in the order of the calls. The function returns a result or an exception for each
        item, in order; if it raises, each caller gets that error. If the caller is cancelled before the function runs,
        its item is left out.
        """
        return await self._done(function, (item,), together=True)

    async def _done(self, function: Callable[..., Any], args: tuple[Any, ...], *, together: bool) -> Any:
        if self._process != os.getpid():
            raise ConfigurationError("This store was opened before a fork: open a new one in the child process.")
        if self._is_stopped:
            raise StoreUnavailableError("The store was closed before this call ran: open it again and repeat the call.")
        if self._under_way >= self._started < self._most:
            arguments = (self._jobs, self._connect)
            threading.Thread(target=_work, args=arguments, name=self._name, daemon=True).start()
            self._started += 1
        self._under_way += 1
        answer = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(function, args, answer, together))
        try:
            return await answer
        finally:
            self._under_way -= 1

    async def stop(self) -> None:
        """Close the connections after all earlier calls have ended."""
        if self._process != os.getpid():
            return  # The threads, and the connections with them, stayed in the parent.
        self._is_stopped = True
        self._ends += [asyncio.get_running_loop().create_future() for _ in range(self._started)]
        for end in self._ends[len(self._ends) - self._started :]:
            self._jobs.put(_Job(None, (), end))
        self._started = 0
        if self._ends:
            # A cancelled wait leaves them for the next call.
            await asyncio.wait(self._ends)

    def release(self) -> None:
        """Stop without waiting, for an abandoned store."""
        for _ in range(self._started):
            self._jobs.put(_Job(None, (), None))
        self._started = 0


def _work(jobs: SimpleQueue[_Job], connect: Callable[[], Connection]) -> None:
    # Only this frame knows the connection, so a forked child can never close the parent's.
    connection: Connection | None = None
    job = jobs.get()
    while job.function is not None:
        batch, following = _batch(jobs, job)
        try:
            if connection is None:
                connection = connect()
            _carry_out(connection, job.function, batch)
        except BaseException as error:
            _deliver(batch, [error] * len(batch))
        # An idle thread must not keep the last job's arguments and answer alive.
        del job, batch
        job = following or jobs.get()
        del following
    if connection is not None:
        connection.close()
    _deliver([job], [None])


def _batch(jobs: SimpleQueue[_Job], job: _Job) -> tuple[list[_Job], _Job | None]:
    """Return the job with the waiting jobs that can run together with it, and a job that was taken beyond them."""
    batch = [job]
    while job.together and len(batch) < _MOST_TOGETHER:
        try:
            other = jobs.get_nowait()
        except Empty:
            break
        if other.function is not job.function:
            return batch, other
        batch.append(other)
    return batch, None


def _carry_out(connection: Connection, function: Callable[..., Any], batch: list[_Job]) -> None:
    awaited = [job for job in batch if job.answer is not None and not job.answer.cancelled()]
    if awaited and awaited[0].together:
        _deliver(awaited, function(connection, [job.args[0] for job in awaited]))
    elif awaited:
        _deliver(awaited, [function(connection, *awaited[0].args)])


def _deliver(batch: Sequence[_Job], results: Sequence[object]) -> None:
    answer = batch[0].answer
    if answer is None:
        return
    try:
        # Waking the loop is expensive, so it happens once for all.
        answer.get_loop().call_soon_threadsafe(_settle, batch, results)
    except RuntimeError:
        # The loop was closed, so no caller waits.
        return


def _settle(batch: Sequence[_Job], results: Sequence[object]) -> None:
    for job, result in zip(batch, results, strict=True):
        answer = job.answer
        if answer is None or answer.done():
            continue
        if not isinstance(result, BaseException):
            answer.set_result(result)
        elif isinstance(result, EverthreadError) and len(batch) > 1:
            # Each caller gets its own error: raising one object in many tasks mixes their tracebacks.
            answer.set_exception(type(result)(*result.args))
        elif isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_exception(StoreUnavailableError(f"The store's thread was stopped: {type(result).__name__}."))
