"""Join the small objects of a tenant's threads, on engines that store threads in such objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from everthread.capabilities import SupportsCompaction, capability
from everthread.contract import Store
from everthread.errors import UnsupportedError
from everthread.listing import find_threads, for_each
from everthread.model import Thread

AT_ONCE = 8


def compact_threads(store: Store, tenant: str = "") -> AsyncGenerator[Thread, None]:
    """Compact all threads of a tenant, several at a time, and yield each after that.

    Readers and writers notice nothing. A run that stops at any moment can be repeated. Memory is bounded by a page of
    threads.

    Raises:
        UnsupportedError: The engine stores no small objects.
    """
    able = compactable(store)

    async def compact(thread: Thread) -> Thread:
        await able.compact(thread.key)
        return thread

    return for_each(find_threads(store, tenant), compact, at_once=AT_ONCE)


def compactable(store: Store) -> SupportsCompaction:
    """Return the store as one that can compact.

    Raises:
        UnsupportedError: The engine stores no small objects.
    """
    able = capability(store, SupportsCompaction)
    if able is not None:
        return able
    raise UnsupportedError(
        f"{store.location} has nothing to join: only object storage and Cosmos DB store threads in small objects."
    )
