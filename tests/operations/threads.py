"""Threads to keep small, and everything that a store holds of them."""

from __future__ import annotations

from typing import Any

from everthread import NewMessage, Store, ThreadKey
from everthread.contract import read_all
from everthread.listing import find_threads
from everthread.messages.codec import new_message

KEY = ThreadKey("trip")


def said(text: str, role: str = "user") -> NewMessage:
    return new_message({"role": role, "content": text})


def calling(*call_ids: str) -> NewMessage:
    calls = [{"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for call_id in call_ids]
    return new_message({"role": "assistant", "content": None, "tool_calls": calls})


def answering(call_id: str, text: str = "ok") -> NewMessage:
    return new_message({"role": "tool", "tool_call_id": call_id, "content": text})


async def everything(store: Store, tenant: str = "") -> dict[str, Any]:
    """All threads of a tenant: title, documents' names, and each message's position, turn and payload."""
    return {
        thread.key.thread_id: (
            thread.title,
            await store.list_documents(thread.key),
            [(message.seq, message.turn, message.payload) async for message in read_all(store, thread.key)],
        )
        async for thread in find_threads(store, tenant)
    }


async def positions(store: Store, key: ThreadKey = KEY) -> list[int]:
    return [message.seq async for message in read_all(store, key)]
