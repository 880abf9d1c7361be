"""Messages in the form of OpenAI's chat completions: ``{"role": …, "content": …, "tool_calls": …}``.

Source: https://platform.openai.com/docs/api-reference/chat/create (messages).
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.messages.codec import LinkIds, ToolCall, ToolResult, View, as_list, as_object, as_text, json_text
from everthread.messages.formats._parts import Parts, note_links

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
LINK_MARKS = (b"tool_call", b"tool_use")


def matches(value: Mapping[str, object]) -> bool:
    """Return whether it has a role that is plain text, no type, and content or tool calls."""
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES or "type" in value:
        return False
    return "content" in value or "tool_calls" in value


def view(value: Mapping[str, object]) -> View:
    """Return the view, without parts of unknown types."""
    role, parts = as_text(value.get("role")), Parts(value.get("content"))
    text, answered = "\n".join(parts.texts), as_text(value.get("tool_call_id"))
    results = [ToolResult(answered, text)] if role == "tool" and answered else []
    return View(
        role=role,
        text="" if results else text or as_text(value.get("refusal")),
        calls=(*map(_call, map(as_object, as_list(value.get("tool_calls")))), *parts.calls),
        results=(*results, *parts.results),
        media=tuple(parts.media),
        author=as_text(value.get("name")),
        reasoning=as_text(value.get("reasoning_content")) or "".join(parts.thoughts),
    )


def links(value: Mapping[str, object]) -> LinkIds:
    """Return the IDs of the calls and results in the view."""
    calls = [as_text(as_object(call).get("id")) for call in as_list(value.get("tool_calls"))]
    answered = as_text(value.get("tool_call_id"))
    results = [answered] if answered and value.get("role") == "tool" else []
    note_links(value.get("content"), calls, results)
    return tuple(calls), tuple(results)


def _call(call: Mapping[str, object]) -> ToolCall:
    function = as_object(call.get("function")) or as_object(call.get("custom"))
    arguments = function.get("arguments", function.get("input"))
    return ToolCall(as_text(call.get("id")), as_text(function.get("name")), json_text(arguments))
