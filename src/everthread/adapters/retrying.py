"""Repeat calls of a store that does not answer at first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import uuid4

from everthread.contract import Store
from everthread.errors import StoreUnavailableError
from everthread.model import Appended, NewMessage, Retention, ThreadKey

T = TypeVar("T")

RETRY_DELAYS = (0.05, 0.25)
"""Seconds before each further attempt; after the last one, the error is raised."""


async def retried(call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a call that is safe to repeat.

    Raises:
        OutcomeUnknownError: The last attempt may have landed.
        StoreUnavailableError: The store did not answer, also when tried again.
    """
    for delay in (*RETRY_DELAYS, None):
        try:
            return await call()
        except StoreUnavailableError:
            if delay is None:
                raise
            await asyncio.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


async def append_with_retries(
    store: Store,
    key: ThreadKey,
    messages: Sequence[NewMessage],
    *,
    append_id: str | None = None,
    expected_seq: int | None = None,
    retention: Retention | None = None,
    default_title: str | None = None,
) -> Appended:
    """Append a turn as `Store.append` does, which takes effect once in several attempts.

    Raises:
        OutcomeUnknownError: The last attempt may have landed.
        StoreUnavailableError: The store did not answer, also when tried again.
    """
    same_id = append_id or uuid4().hex
    return await retried(
        lambda: store.append(
            key,
            messages,
            append_id=same_id,
            expected_seq=expected_seq,
            retention=retention,
            default_title=default_title,
        )
    )
