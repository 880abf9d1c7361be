"""Stores filled with what is hard to move, and all that can be seen of a store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from everthread import NewMessage, Retention, Store, ThreadKey, new_message, read_all

BEGAN = datetime(2024, 5, 1, 12, 0, 0, 123000, tzinfo=UTC)


def turn(number: int) -> list[NewMessage]:
    """A question, a tool call, its result and an answer, with times of their own."""
    at = [BEGAN + timedelta(minutes=number, seconds=second) for second in range(4)]
    call = {"id": f"call{number}", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    return [
        new_message({"role": "user", "content": f"question {number} — é💾"}, created_at=at[0]),
        new_message({"role": "assistant", "content": None, "tool_calls": [call]}, created_at=at[1]),
        new_message({"role": "tool", "tool_call_id": f"call{number}", "content": "22 °C"}, created_at=at[2]),
        new_message({"role": "assistant", "content": f"answer {number}"}, created_at=at[3]),
    ]


async def fill(store: Store, tenant: str = "") -> None:
    """Threads of every shape: plain, trimmed, undone, empty, with documents, with odd names and odd JSON."""
    keys = [ThreadKey(name, tenant) for name in ("plain", "trimmed", "undone", "emptied", "a/b:{c}*\0é", "A", "a")]
    for key in keys:
        for number in range(6):
            await store.append(key, turn(number))
    await store.truncate(keys[1], start=8)
    await store.truncate(keys[2], stop=12)
    await store.append(keys[2], turn(7))
    await store.truncate(keys[2], stop=24)
    await store.truncate(keys[3], start=24)
    odd = (b' {"a":\n1}\r\n', b'"\\u0000"', b"12345678901234567890123", b'{"a":1,"a":2}', b'{ "b" : [ ] }')
    await store.append(ThreadKey("odd", tenant), [NewMessage(payload, "of the future") for payload in odd])
    await store.append(ThreadKey("expiring", tenant), turn(0), retention=Retention(expire_after=timedelta(hours=1)))
    await store.put_document(ThreadKey("only documents", tenant), "summary", b'{"text":\n"short"}')
    await store.put_document(keys[0], "state", b'{"x":1}')
    await store.update_thread(keys[0], title="A trip — <b>Rome</b>", metadata={"tags": ["x"], "n": 2**60})
    await store.update_thread(keys[1], retention=Retention(max_messages=2))
    await store.update_thread(keys[6], retention=Retention(expire_after=timedelta(days=2)))


async def everything(store: Store, tenant: str = "") -> dict[str, Any]:
    """All that can be seen of a tenant, but for revisions."""
    seen: dict[str, Any] = {}
    cursor = None
    while True:
        page = await store.list_threads(tenant, cursor=cursor)
        for thread in page:
            key = thread.key
            documents = [await store.get_document(key, name) for name in await store.list_documents(key)]
            messages = [message async for message in read_all(store, key)]
            seen[key.thread_id] = {
                "head_seq": thread.head_seq,
                "next_seq": thread.next_seq,
                "size": thread.size,
                "title": thread.title,
                "metadata": thread.metadata,
                "retention": thread.retention,
                "times": (thread.created_ms, thread.updated_ms, thread.expires_ms),
                "documents": {document.name: document.value for document in documents if document},
                # A turn whose beginning was trimmed begins where it is kept.
                "messages": [
                    (m.seq, max(m.turn, thread.head_seq), m.format, m.created_ms, m.payload) for m in messages
                ],
            }
        cursor = page.cursor
        if cursor is None:
            return seen


async def until_idle() -> None:
    """Lets a millisecond pass, so that what follows is later by any store's clock."""
    await asyncio.sleep(0.002)
