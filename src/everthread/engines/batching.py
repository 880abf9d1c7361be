"""Combine concurrent calls into batches: one pipeline, one transaction or one statement for all of them.

While a batch runs, new calls form the next batch. A call never waits if no batch runs. Calls keep their order, so
appends to one thread land in the order in which they were made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

from everthread.errors import EverthreadError, OutcomeUnknownError, StoreUnavailableError

Q = TypeVar("Q")
R = TypeVar("R")


def later(work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
    """Start a task that takes its first step in the next turn of the running loop, never immediately.

    A loop with eager tasks (`asyncio.eager_task_factory`) runs a new task before ``create_task`` returns, so a task
    that clears its own attribute would do so before that attribute is set. Not ``create_task(…,
    eager_start=False)``, because Python 3.14 is the first that accepts it.
    """
    return asyncio.Task(work, loop=asyncio.get_running_loop())


class Coalescer(Generic[Q, R]):
    """Turn single calls into batches, and send one batch at a time, or one at a time for each key.

    Args:
        send: Carries out a batch; returns a result or an error for each item, in order. If it raises, every item of
            the batch gets that error.
        key: Returns the key of an item. Each key has its own batches, which do not wait for those of other keys.
        max_batch: The largest number of items in a batch.
        max_bytes: The most bytes of a batch of several items, as ``size_of`` counts them.
        isolate: Returns the error of one item after its batch failed, or ``None`` if the reason concerns all items.
            In the first case the batch is sent again item by item, so that one item cannot fail the others. Sending an
            item twice must be safe.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[R | EverthreadError]]],
        *,
        key: Callable[[Q], Hashable] = lambda item: None,
        max_batch: int = 256,
        size_of: Callable[[Q], int] = lambda item: 0,
        max_bytes: int = 0,
        isolate: Callable[[Q, Exception], EverthreadError | None] = lambda item, error: None,
    ) -> None:
        self._send = send
        self._key = key
        self._max_batch = max_batch
        self._size_of = size_of
        self._max_bytes = max_bytes
        self._isolate = isolate
        self._waiting: dict[Hashable, deque[tuple[Q, asyncio.Future[R]]]] = {}
        self._senders: dict[Hashable, asyncio.Task[None]] = {}

    async def submit(self, item: Q) -> R:
        """Send an item with the next batch; return its own result, or raise its own error.

        If the caller is cancelled before its batch is sent, the item is not sent. After that the batch is completed.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        key = self._key(item)
        if key in self._senders:
            self._waiting[key].append((item, answer))
        else:
            # A separate task, so that cancelling one caller never stops the others' batch.
            self._waiting[key] = deque([(item, answer)])
            self._senders[key] = later(self._send_all(key))
        return await answer

    async def drain(self) -> None:
        """Wait until no call waits or runs."""
        while self._senders:
            await asyncio.wait(list(self._senders.values()))

    async def _send_all(self, key: Hashable) -> None:
        waiting = self._waiting[key]
        try:
            while batch := self._next_batch(waiting):
                await self._send_batch(batch)
        finally:
            del self._senders[key], self._waiting[key]
            # Items are left only if this task itself was cancelled, because the loop is being torn down.
            _fail(waiting, StoreUnavailableError("The store was stopped before this was sent."))

    def _next_batch(self, waiting: deque[tuple[Q, asyncio.Future[R]]]) -> list[tuple[Q, asyncio.Future[R]]]:
        batch: list[tuple[Q, asyncio.Future[R]]] = []
        size = 0
        while waiting and len(batch) < self._max_batch:
            item, answer = waiting[0]
            if not answer.done():
                size += self._size_of(item)
                if batch and size > self._max_bytes > 0:
                    break
                batch.append((item, answer))
            waiting.popleft()
        return batch

    async def _send_batch(self, batch: list[tuple[Q, asyncio.Future[R]]]) -> None:
        try:
            results = await self._results([item for item, _ in batch])
            for (_, answer), result in zip(batch, results, strict=True):
                if answer.done():
                    continue
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)
        except Exception as error:
            _fail(batch, error)
        except BaseException:
            _fail(batch, OutcomeUnknownError("The event loop ended during this call: a write may have landed."))
            raise

    async def _results(self, items: Sequence[Q]) -> Sequence[R | Exception]:
        try:
            return await self._send(items)
        except Exception as error:
            alone = self._isolate(items[0], error)
            if alone is None:
                raise
            if len(items) == 1:
                return [alone]
        return [await self._alone(item) for item in items]

    async def _alone(self, item: Q) -> R | Exception:
        try:
            return (await self._results([item]))[0]
        except Exception as error:
            return error


def _fail(batch: Sequence[tuple[object, asyncio.Future[R]]], error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            # Each caller gets its own error: raising one object in many tasks mixes their tracebacks.
            answer.set_exception(type(error)(*error.args) if isinstance(error, EverthreadError) else error)
