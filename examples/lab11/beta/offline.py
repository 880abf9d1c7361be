"""A chat client that needs no network: it quotes what the user said earlier in the thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agent_framework import BaseChatClient, ChatMessage, ChatResponse
from agent_framework import ChatResponseUpdate as Update


class OfflineChatClient(BaseChatClient):
    """Quotes the user's earlier messages; stores nothing itself."""

    async def _inner_get_response(self, *, messages: Any, **options: Any) -> ChatResponse:
        return ChatResponse(messages=[ChatMessage("assistant", text=self._reply(messages))])

    async def _inner_get_streaming_response(self, *, messages: Any, **options: Any) -> AsyncIterator[Update]:
        yield Update(role="assistant", text=self._reply(messages))

    def _reply(self, messages: Any) -> str:
        *earlier, asked = [message.text for message in messages if message.role.value == "user"]
        if not asked.endswith("?"):
            return f"Noted: “{asked}”"
        told = [f"“{text}”" for text in earlier if not text.endswith("?")]
        return f"You told me: {' '.join(told)}" if told else "You have not told me anything yet."
