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
    retention: Retention | None = None,
    default_title: str | None = None,
) -> Appended:
    """Appends a turn that takes effect once, whichever of the attempts landed.

    Raises:
        OutcomeUnknownError: The last attempt may have landed.
        StoreUnavailableError: The store did not answer, also when tried again.
    """
    append_id = uuid4().hex
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
