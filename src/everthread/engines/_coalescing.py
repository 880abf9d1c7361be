"""Sends what waits at the same time together: one pipeline, one transaction, one statement.

While one batch is under way, what arrives meanwhile forms the next. When nothing is under way nothing
waits. Order of arrival is kept, so appends to one thread land in the order in which they were made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from everthread.errors import EverthreadError, StoreUnavailableError

Q = TypeVar("Q")
R = TypeVar("R")


class Coalescer(Generic[Q, R]):
    """Turns single submissions into batches, of which one at a time is under way.

    Args:
        send: Carries out a batch; returns a result or an error for each item, in order. If it
            raises, every item of the batch gets that error.
        max_batch: How many items go together at most.
        when_idle: Called when nothing waits and nothing is under way any more.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[R | EverthreadError]]],
        *,
        max_batch: int = 256,
        when_idle: Callable[[], object] = lambda: None,
    ):
        self._send = send
        self._max_batch = max_batch
        self._when_idle = when_idle
        self._waiting: deque[tuple[Q, asyncio.Future[R]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def submit(self, item: Q) -> R:
        """Sends an item with the next batch and returns its own result, or raises its own error.

        If the caller is cancelled before its batch is sent, the item is not sent; after that, the
        batch is carried out to its end without it noticing.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, answer))
        if self._sender is None:
            # A task of its own, so that cancelling one caller never stops the others' batch.
            self._sender = loop.create_task(self._send_all())
        return await answer

    async def drain(self) -> None:
        """Returns when nothing waits and nothing is under way."""
        while self._sender is not None:
            await asyncio.wait({self._sender})

    async def _send_all(self) -> None:
        try:
            while batch := self._next_batch():
                await self._send_batch(batch)
        finally:
            self._sender = None
            # Only if this task itself was cancelled (the loop is being torn down) is anything left.
            for _, answer in self._waiting:
                if not answer.done():
                    answer.set_exception(StoreUnavailableError("The store was stopped before this was sent."))
            self._waiting.clear()
            self._when_idle()

    def _next_batch(self) -> list[tuple[Q, asyncio.Future[R]]]:
        batch: list[tuple[Q, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((item, answer))
        return batch

    async def _send_batch(self, batch: list[tuple[Q, asyncio.Future[R]]]) -> None:
        try:
            results = await self._send([item for item, _ in batch])
            for (_, answer), result in zip(batch, results, strict=True):
                if answer.done():
                    continue
                if isinstance(result, EverthreadError):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)
        except Exception as error:
            _fail(batch, error)
        except BaseException:
            _fail(batch, StoreUnavailableError("The store was stopped while this was under way."))
            raise


class KeyedCoalescer(Coalescer[Q, R]):
    """A coalescer for each key, for storages where each key's batch is a request of its own: none waits for another's.

    Args:
        send: As for `Coalescer`; every item of a batch has the same key.
        key: The key of an item.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[R | EverthreadError]]],
        *,
        key: Callable[[Q], Hashable],
        max_batch: int = 256,
    ):
        super().__init__(send, max_batch=max_batch)
        self._key = key
        self._busy: dict[Hashable, Coalescer[Q, R]] = {}

    async def submit(self, item: Q) -> R:
        key = self._key(item)
        if key not in self._busy:
            self._busy[key] = Coalescer(
                self._send, max_batch=self._max_batch, when_idle=lambda: self._busy.pop(key, None)
            )
        return await self._busy[key].submit(item)

    async def drain(self) -> None:
        while self._busy:
            await next(iter(self._busy.values())).drain()


def _fail(batch: Sequence[tuple[object, asyncio.Future[R]]], error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            # Each caller gets an error of its own: raising one object in many tasks mixes their tracebacks.
            answer.set_exception(type(error)(*error.args) if isinstance(error, EverthreadError) else error)
