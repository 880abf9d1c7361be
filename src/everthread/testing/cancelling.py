"""Cancel a call at each of the points at which it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Counted(Generic[T]):
    """A coroutine that counts its waits, and cancels its task at one of them."""

    def __init__(self, call: Coroutine[Any, Any, T], cancel_at: int) -> None:
        self._call = call
        self._cancel_at = cancel_at
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        resume: Callable[[], Any] = partial(self._call.send, None)
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
                resume = partial(self._call.throw, error)
            else:
                resume = partial(self._call.send, value)


async def cancelled_at_every_wait(
    call: Callable[[], Coroutine[Any, Any, object]], *, at_most: int = 200
) -> AsyncIterator[bool]:
    """Repeat a call, and cancel it at the first, second, third … time that it waits.

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
        yield await _was_cancelled(asyncio.ensure_future(_run(counted)))
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
    """Make a call and cancel it some time later. Return whether the cancellation was in time."""
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    return await _was_cancelled(task)
