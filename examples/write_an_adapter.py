"""An adapter for a framework that keeps history in an object with ``load``, ``save`` and ``undo``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from everthread import ConflictError, Message, Store, StoreUnavailableError, ThreadKey, new_message
from everthread.messages.codec import decode


class History:
    """The messages of one conversation, for an agent that calls a chat-completions API.

    Args:
        store: Stays open and is closed by its owner.
        thread_id: The conversation. The caller chooses it: there is no shared default.
        window: The number of newest messages that the model gets.
    """

    def __init__(self, store: Store, thread_id: str, *, tenant: str = "", window: int = 50) -> None:
        self._store = store
        self._key = ThreadKey(thread_id, tenant)
        self._window = window

    async def load(self) -> list[Mapping[str, Any]]:
        """Return the newest messages, oldest first, without tool results that lack their call in the window."""
        return _from_the_first_call([_decoded(each) for each in await self._store.read_last(self._key, self._window)])

    async def save(self, turn: Sequence[Mapping[str, Any]]) -> None:
        """Store one turn. All its messages become visible together."""
        messages = [new_message(message, format="chat-completions") for message in turn]
        append_id = uuid.uuid4().hex
        try:
            await self._store.append(self._key, messages, append_id=append_id)
        except StoreUnavailableError:
            # The write may have landed. With the same append id it takes effect once.
            await self._store.append(self._key, messages, append_id=append_id)

    async def undo(self) -> bool:
        """Drop the newest turn; return False if there is none, or if another writer appended at the same time."""
        page = await self._store.read_last(self._key, 1)
        if not page:
            return False
        try:
            await self._store.truncate(self._key, stop=page[0].turn, expected_seq=page.next_seq)
        except ConflictError:
            return False
        return True


def _decoded(message: Message) -> Mapping[str, Any]:
    value = decode(message.payload)
    return value if isinstance(value, dict) else {"role": "user", "content": str(value)}


def _from_the_first_call(messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    called: set[str] = set()
    kept: list[Mapping[str, Any]] = []
    for message in messages:
        called |= {call["id"] for call in message.get("tool_calls") or ()}
        if message.get("role") != "tool" or message.get("tool_call_id") in called:
            kept.append(message)
    return kept
