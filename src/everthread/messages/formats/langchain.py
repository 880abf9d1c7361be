"""Messages of LangChain: ``{"type": "human", "data": {"content": …}}``.

Source: ``message_to_dict`` of langchain-core.
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.messages.codec import LinkIds, ToolCall, ToolResult, View, as_list, as_object, as_text, json_text
from everthread.messages.formats._parts import Parts, note_links

_ROLES = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
    "function": "tool",
}
_CHATS = frozenset({"chat", "ChatMessageChunk"})
LINK_MARKS = (b"tool_call", b"tool_use")


def matches(value: Mapping[str, object]) -> bool:
    """Return whether it has a type of LangChain and the data of a message."""
    kind = value.get("type")
    return isinstance(value.get("data"), Mapping) and isinstance(kind, str) and (kind in _ROLES or kind in _CHATS)


def view(value: Mapping[str, object]) -> View:
    """Return the view, without parts of unknown types."""
    data = as_object(value.get("data"))
    role = _role(value, data)
    parts, answered = Parts(data.get("content")), as_text(data.get("tool_call_id"))
    results = [ToolResult(answered, parts.text)] if role == "tool" and answered else parts.results
    return View(
        role,
        "" if role == "tool" and answered else parts.text,
        # Some models' calls are blocks of the content, too.
        tuple(map(_call, map(as_object, as_list(data.get("tool_calls"))))) or tuple(parts.calls),
        tuple(results),
        tuple(parts.media),
        as_text(data.get("name")),
        "".join(parts.thoughts),
    )


def links(value: Mapping[str, object]) -> LinkIds:
    """Return the IDs of the calls and results in the view."""
    data = as_object(value.get("data"))
    made: list[str] = []
    results: list[str] = []
    note_links(data.get("content"), made, results)
    answered = as_text(data.get("tool_call_id"))
    if answered and _role(value, data) == "tool":
        results = [answered]
    calls = [as_text(as_object(call).get("id")) for call in as_list(data.get("tool_calls"))]
    return tuple(calls or made), tuple(results)


def _role(value: Mapping[str, object], data: Mapping[str, object]) -> str:
    kind = as_text(value.get("type"))
    return as_text(data.get("role")) if kind in _CHATS else _ROLES.get(kind, kind)


def _call(call: Mapping[str, object]) -> ToolCall:
    return ToolCall(as_text(call.get("id")), as_text(call.get("name")), json_text(call.get("args")))
