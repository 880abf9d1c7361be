"""Appending once, although the store may not answer at first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from everthread.contract import Store
from everthread.errors import StoreUnavailableError
from everthread.model import Appended, NewMessage, Retention, ThreadKey

RETRY_DELAYS = (0.05, 0.25)
"""Seconds before an append is tried again; after that its error is raised."""


async def append_with_retries(
    store: Store,
    key: ThreadKey,
    messages: Sequence[NewMessage],
    *,
    append_id: str | None = None,
    retention: Retention | None = None,
    default_title: str | None = None,
) -> Appended:
    """Appends a turn that takes effect once, whichever of the attempts landed.

    Args:
        append_id: Names the turn also to other callers that may send it; a random one if not given.

    Raises:
        OutcomeUnknownError: The last attempt may have landed.
        StoreUnavailableError: The store did not answer, also when tried again.
    """
    append_id = append_id or uuid4().hex
    for delay in (*RETRY_DELAYS, None):
        try:
            return await store.append(
                key, messages, append_id=append_id, retention=retention, default_title=default_title
            )
        except StoreUnavailableError:
            if delay is None:
                raise
            await asyncio.sleep(delay)
    raise AssertionError("the last attempt returns or raises")
