"""What the killed operations work on, and all that can be seen of it afterwards."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from everthread import NewMessage, Store, ThreadKey, new_message
from everthread.capabilities import SupportsReconciling, capability
from everthread.contract import read_all
from everthread.listing import find_threads
from tests.transfer.conversations import BEGAN, fill, turn

TENANT = "acme"
LONG = ThreadKey("long", TENANT)
HOUR = timedelta(hours=1)


async def fill_tenant(store: Store, threads: int = 6) -> int:
    """Threads of every shape in the tenant and its neighbour; gives the time (ms) before which some were idle."""
    await fill(store, "other")
    await fill(store, TENANT)
    await store.update_thread(ThreadKey("plain", TENANT), title="Rome")
    # Clocks count in milliseconds: what follows is later on any of them.
    await asyncio.sleep(0.005)
    newest = (await store.list_threads(TENANT, limit=1)).items[0].updated_ms
    for number in range(threads):
        for part in range(4):
            await store.append(ThreadKey(f"thread {number}", TENANT), turn(part))
    for number in range(15):
        await store.append(LONG, turn(number))
    return newest + 1


async def break_threads(store: Store, threads: int = 10) -> None:
    """In each thread a result without its call and a call without its result."""
    for number in range(threads):
        key = ThreadKey(f"broken {number}", TENANT)
        await store.append(key, [said("hello"), *turn(0)[2:3], said("now")])
        await store.append(key, [*turn(1)[1:2], said("and?")])


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text}, created_at=BEGAN)


async def seen_of(store: Store, *tenants: str) -> dict[str, Any]:
    """All that can be seen of tenants, but for times: the stores to compare are filled one after the other."""
    return {
        f"{tenant} {thread.key.thread_id}": {
            "positions": (thread.head_seq, thread.next_seq, thread.count),
            "described": (thread.title, thread.metadata, thread.retention, thread.expires_ms is not None),
            "documents": [await _document(store, thread.key, name) for name in await store.list_documents(thread.key)],
            "messages": [(m.seq, m.turn, m.format, m.payload) async for m in read_all(store, thread.key)],
        }
        for tenant in tenants or (TENANT, "other")
        async for thread in find_threads(store, tenant)
    }


async def _document(store: Store, key: ThreadKey, name: str) -> object:
    document = await store.get_document(key, name)
    return document and (name, document.value, document.revision)


async def check_consistency(store: Store) -> None:
    """What is kept twice fits, and nothing is left of what went."""
    assert capability(store, SupportsReconciling)
    assert await store.reconcile(TENANT) == ()
    assert await store.reconcile("other") == ()
