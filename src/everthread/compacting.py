"""Joins the small objects of a tenant's threads, where threads lie in such: the work that engines do now and then."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from everthread.contract import Store, SupportsCompaction
from everthread.errors import UnsupportedError
from everthread.model import Thread
from everthread.threads import find_threads, for_each

AT_ONCE = 8


def compact_threads(store: Store, tenant: str = "") -> AsyncGenerator[Thread, None]:
    """Compacts all threads of a tenant, several together; gives each one when it is done.

    Beside readers and writers, who notice nothing. Stopped at any moment and run again, it ends as one
    undisturbed run would. Memory is bounded by a page of threads.

    Raises:
        UnsupportedError: This engine keeps no small objects.
    """
    able = compactable(store)

    async def compact(thread: Thread) -> Thread:
        await able.compact(thread.key)
        return thread

    return for_each(find_threads(store, tenant), compact, at_once=AT_ONCE)


def compactable(store: Store) -> SupportsCompaction:
    """The store, as one that can compact.

    Raises:
        UnsupportedError: This engine keeps no small objects.
    """
    if isinstance(store, SupportsCompaction):
        return store
    raise UnsupportedError(
        f"{store.location} has nothing to join: only object storage and Cosmos DB keep threads in small objects."
    )
