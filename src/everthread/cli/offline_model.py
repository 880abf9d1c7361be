"""A chat client that needs no network and no key, and answers from the messages that it is handed.

So that whether a conversation is remembered can be seen without an account anywhere. It keeps nothing itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    Message,
    ResponseStream,
)

from everthread.cli.offline_memory import answer

_PIECES = re.compile(r"\s*\S+|\s+$")


class OfflineModel(ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Recalls names, likes, places and dates from the conversation it is given; streams word by word.

    Args:
        pace: Seconds between two words of a stream.
    """

    def __init__(self, *, pace: float = 0.0) -> None:
        super().__init__()
        self._pace = pace

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        reply = answer([message.text for message in messages if message.role == "user" and message.text.strip()])
        if stream:
            return self._build_response_stream(self._words(reply))
        return _response(reply)

    async def _words(self, reply: str) -> AsyncIterator[ChatResponseUpdate]:
        for piece in _PIECES.findall(reply):
            yield ChatResponseUpdate(role="assistant", contents=[Content.from_text(piece)])
            await asyncio.sleep(self._pace)


async def _response(reply: str) -> ChatResponse[Any]:
    return ChatResponse(messages=[Message(role="assistant", contents=[reply])])
