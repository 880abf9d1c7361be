"""Cancels a call at each of the points at which it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Counted(Generic[T]):
    """A coroutine that counts how often it waits, and has its task cancelled at one of these times."""

    def __init__(self, call: Coroutine[Any, Any, T], cancel_at: int) -> None:
        self._call = call
        self._cancel_at = cancel_at
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        resume: Callable[[], Any] = lambda: self._call.send(None)  # noqa: E731 - replaced in the loop
        while True:
            try:
                waited_for = resume()
            except StopIteration as done:
                return done.value
            if self.waits == self._cancel_at:
                # Once the task waits, as anybody else would cancel it.
                asyncio.get_running_loop().call_soon(task.cancel)
            self.waits += 1
            try:
                value = yield waited_for
            except BaseException as error:
                resume = _throwing(self._call, error)
            else:
                resume = _sending(self._call, value)


def _throwing(call: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: call.throw(error)


def _sending(call: Coroutine[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: call.send(value)


async def cancelled_at_every_wait(
    call: Callable[[], Coroutine[Any, Any, object]], *, at_most: int = 200
) -> AsyncIterator[bool]:
    """Makes a call again and again, and cancels it the first, second, third … time that it waits.

    Ends after the first call that waits too seldom to be cancelled. What the call raises besides
    ``CancelledError`` comes out.

    Args:
        call: Makes the call.
        at_most: A call that waits more often is cancelled no later than this.

    Yields:
        After each call, whether it was cancelled.
    """
    for wait in range(at_most):
        counted = _Counted(call(), wait)
        done = await _was_cancelled(asyncio.ensure_future(_run(counted)))
        yield done
        if counted.waits <= wait:
            return


async def _run(counted: _Counted[T]) -> T:
    return await counted


async def _was_cancelled(task: asyncio.Future[Any]) -> bool:
    await asyncio.wait({task})
    if task.cancelled():
        return True
    task.result()
    return False


async def cancelled_after(call: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Makes a call and cancels it some time later; says whether that was in time."""
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    return await _was_cancelled(task)
