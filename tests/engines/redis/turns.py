"""The thread and the messages of the Redis tests."""

from __future__ import annotations

from everthread import Store, ThreadKey, new_message
from everthread.model import NewMessage

KEY = ThreadKey("conversation")


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


async def texts(store: Store, key: ThreadKey = KEY) -> list[bytes]:
    return [message.payload for message in await store.read(key)]
