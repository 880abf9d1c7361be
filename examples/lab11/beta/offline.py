"""A chat client that needs no network: it answers from the messages that the framework hands it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agent_framework import BaseChatClient, ChatMessage, ChatResponse
from agent_framework import ChatResponseUpdate as Update

from everthread.cli.offline_memory import answer


class OfflineChatClient(BaseChatClient):
    """Recalls what the user told it in the thread; keeps nothing itself."""

    async def _inner_get_response(self, *, messages: Any, **options: Any) -> ChatResponse:
        return ChatResponse(messages=[ChatMessage("assistant", text=self._reply(messages))])

    async def _inner_get_streaming_response(self, *, messages: Any, **options: Any) -> AsyncIterator[Update]:
        yield Update(role="assistant", text=self._reply(messages))

    def _reply(self, messages: Any) -> str:
        return answer([message.text for message in messages if message.role.value == "user"])
