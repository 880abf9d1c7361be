"""Threads as OpenAI's fine-tuning lines, ``{"messages": […]}``: text, tool calls and results, without media.

Source: https://platform.openai.com/docs/guides/supervised-fine-tuning (the chat format). A file is refused as a whole
if one line is wrong, so what the format does not allow is left out: threads in which no assistant speaks, calls that
were not answered before the conversation went on, and results without their calls.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from everthread import codec
from everthread.codec import ToolCall, View
from everthread.errors import CorruptRecordError, InvalidMessageError
from everthread.model import Message
from everthread.transfer.exporting import Form
from everthread.transfer.sources import StoreThread

_ROLES = {"developer": "system", "human": "user", "ai": "assistant"}
_SPEAKERS = frozenset({"system", "user", "assistant"})

Entry = dict[str, Any]


class FineTuning(Form):
    """One line a thread."""

    suffix = ".jsonl"

    async def opening(self, thread: StoreThread) -> bytes:
        return b""

    async def rest(self, thread: StoreThread, opening: bytes) -> AsyncIterator[tuple[bytes, int]]:
        if not await _has_assistant(thread):
            return
        chat, before = _Chat(), b'{"messages":['
        async for page in thread.pages():
            entries = [entry for message in page for entry in chat.add(_spoken(message))]
            yield (before if entries else b"") + b",".join(map(_encoded, entries)), len(page)
            before = b"," if entries else before
        entries = list(chat.end())
        yield (before if entries else b"") + b",".join(map(_encoded, entries)) + b"]}\n", 0


async def _has_assistant(thread: StoreThread) -> bool:
    async for page in thread.pages():
        chat = _Chat()
        if any(
            entry["role"] == "assistant" for message in page for entry in (*chat.add(_spoken(message)), *chat.end())
        ):
            return True
    return False


class _Chat:
    """Puts the calls of one answer together, and keeps them until it is known which were answered."""

    def __init__(self) -> None:
        self._text = ""
        self._calls: list[ToolCall] = []
        self._results: dict[str, str] = {}

    def add(self, seen: View) -> Iterator[Entry]:
        """Takes in the next message; gives the entries that nothing can change any more."""
        role = _ROLES.get(seen.role, seen.role)
        # An approval is between the agent and its host: no model sees it.
        calls = [call for call in seen.calls if not call.id.startswith("approval:")]
        speaks = role in _SPEAKERS and bool(seen.text or calls)
        # Calls that stand in messages of their own, one after the other, were made at once.
        goes_on = role == "assistant" and bool(calls) and not seen.text and not self._results
        if speaks and not goes_on:
            yield from self.end(is_last=False)
        if speaks and calls:
            self._text += seen.text
            self._calls += calls
        elif speaks:
            yield {"role": role, "content": seen.text}
        for result in seen.results:
            self._results.setdefault(result.id, result.text)

    def end(self, *, is_last: bool = True) -> Iterator[Entry]:
        """Gives what was kept; calls that nobody answered only if nothing follows them."""
        answered = [call for call in self._calls if call.id in self._results]
        calls = self._calls if is_last and not answered else answered
        if self._text or calls:
            entry: Entry = {"role": "assistant", "content": self._text or None}
            yield entry | ({"tool_calls": [_call(call) for call in calls]} if calls else {})
        for call in answered:
            yield {"role": "tool", "tool_call_id": call.id, "content": self._results[call.id]}
        self._text, self._calls, self._results = "", [], {}


def _call(call: ToolCall) -> Entry:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def _spoken(message: Message) -> View:
    """What a model was told or said; nothing where it thinks, or where the record cannot be read."""
    try:
        value = codec.decode(message)
    except CorruptRecordError:
        return View()
    if message.format == "openai-responses" and codec.as_object(value).get("type") == "reasoning":
        return View()
    return codec.view_of(value, message.format)


def _encoded(entry: Mapping[str, Any]) -> bytes:
    try:
        return codec.encode(entry)
    except InvalidMessageError:
        # A lone surrogate, which another program stored.
        return json.dumps(entry, ensure_ascii=False).encode(errors="replace")
