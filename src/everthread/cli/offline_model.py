"""A chat client that needs no network and no key: it quotes earlier messages of the user.

It stores nothing itself, so its answers show whether the history reached the model.
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

MAX_CHARACTERS = 4000
"""The part of each message that is searched for statements."""
MAX_QUOTES = 10

_PIECES = re.compile(r"\s*\S+|\s+$")
_SENTENCES = re.compile(r"(?<=[.!?;])\s+|\n+")
_QUESTION = re.compile(r"(?:what|where|when|who|which|why|how|do|did|can|could|tell|remind)\b|.*\?\s*$", re.I | re.S)
_WORD = re.compile(
    r"\b(?!(?:what|where|when|which|have|does|will|would|could|should|that|this|there|with|from|your|about|like|want|need"
    r"|tell|told|know|remind)\b)[^\W\d_]{4,}"
)


class OfflineModel(ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Quotes the user's earlier statements that a question is about; streams word by word.

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


def answer(texts: Sequence[str]) -> str:
    """Return the reply to the last of the user's messages, from all of them."""
    *earlier, asked = [_statements_and_questions(text) for text in texts] or [([], [])]
    statements, questions = asked
    known = list(dict.fromkeys(each for told, _ in earlier for each in told)) + statements
    if questions:
        return _recalled(known, " ".join(questions))
    if statements:
        return f"Noted: {_quoted(statements)}"
    return "Hello! Tell me something about yourself, and ask me about it later."


def _recalled(known: Sequence[str], question: str) -> str:
    if not known:
        return "You have not told me anything yet in this conversation."
    asked = _words(question)
    shared = [len(asked & _words(statement)) for statement in known]
    if most := max(shared):
        return f"You told me: {_quoted([each for each, count in zip(known, shared, strict=True) if count == most])}"
    # The first statements often introduce the user.
    half = MAX_QUOTES // 2
    some = known if len(known) <= MAX_QUOTES else [*known[:half], *known[-half:]]
    return f"You told me: {_quoted(some)} (I am a small offline model and can only quote this conversation.)"


def _statements_and_questions(text: str) -> tuple[list[str], list[str]]:
    sentences = [each.strip() for each in _SENTENCES.split(text[:MAX_CHARACTERS]) if each.strip()]
    questions = [each for each in sentences if _QUESTION.match(each)]
    return [each for each in sentences if " " in each and each not in questions], questions


def _quoted(statements: Sequence[str]) -> str:
    return " ".join(f"“{statement}”" for statement in statements[:MAX_QUOTES])


def _words(text: str) -> set[str]:
    # Without the plural's "s", so that "kids" finds "kid".
    return {word.removesuffix("s") for word in _WORD.findall(text.lower())}
