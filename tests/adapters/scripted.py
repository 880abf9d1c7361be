"""Models that say what a test tells them to say, and refuse what OpenAI's chat completions refuse.

`ScriptedClient` is a chat client of Agent Framework 1.x; `scripted_openai` (of `tests.openai_server`) a server for the
framework's own client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)

from tests.openai_server import (
    Call,
    RefusedError,
    Reply,
    Script,
    ScriptedOpenAI,
    refuse_invalid,
    scripted_openai,
)

__all__ = [
    "Call",
    "RefusedError",
    "Reply",
    "Script",
    "ScriptedClient",
    "ScriptedOpenAI",
    "refuse_invalid",
    "scripted_openai",
    "shape",
]


def shape(messages: Sequence[Message]) -> list[tuple[str, Sequence[str], str | None]]:
    """Messages of the framework as `refuse_invalid` wants them, one for each tool result."""
    shaped: list[tuple[str, Sequence[str], str | None]] = []
    for message in messages:
        results = [content.call_id for content in message.contents if content.type == "function_result"]
        calls = [content.call_id for content in message.contents if content.type == "function_call"]
        others = [content for content in message.contents if content.type not in {"function_result", "function_call"}]
        shaped += [("tool", [], result) for result in results]
        if calls or (others and message.role != "tool"):
            shaped.append((message.role, calls, None))
    return shaped


class ScriptedClient(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):
    """A chat client of Agent Framework 1.x that follows a script.

    Attributes:
        requests: The messages of each request, as (role, text).
        seen: The messages of each request.
    """

    def __init__(self, *replies: Reply, then: str = "Done.", message_ids: bool = False) -> None:
        super().__init__()
        self.script = Script(*replies, then=then)
        self.message_ids = message_ids
        self.seen: list[list[Message]] = []

    @property
    def requests(self) -> list[list[tuple[str, str]]]:
        return [[(message.role, message.text) for message in request] for request in self.seen]

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Awaitable[ChatResponse] | ResponseStream[ChatResponseUpdate, ChatResponse]:
        if stream:
            return self._build_response_stream(self._updates(messages))
        return self._response(messages)

    def _reply(self, messages: Sequence[Message]) -> list[Content]:
        self.seen.append(list(messages))
        refuse_invalid(shape(messages))
        return [_content(part) for part in self.script.next()]

    def _message_id(self) -> str | None:
        return f"answer-{len(self.seen)}" if self.message_ids else None

    async def _response(self, messages: Sequence[Message]) -> ChatResponse:
        contents = self._reply(messages)
        return ChatResponse(messages=[Message("assistant", contents, message_id=self._message_id())])

    async def _updates(self, messages: Sequence[Message]) -> AsyncIterator[ChatResponseUpdate]:
        contents = self._reply(messages)
        for content in contents:
            for piece in _pieces(content):
                yield ChatResponseUpdate(role="assistant", contents=[piece], message_id=self._message_id())


def _content(part: str | Call | Content) -> Content:
    if isinstance(part, str):
        return Content.from_text(part)
    if isinstance(part, Call):
        return Content.from_function_call(part.id, part.name, arguments=json.dumps(part.arguments))
    return part


def _pieces(content: Content) -> Iterator[Content]:
    if content.type == "text" and len(content.text) > 1:
        half = len(content.text) // 2
        yield Content.from_text(content.text[:half])
        yield Content.from_text(content.text[half:])
    else:
        yield content
