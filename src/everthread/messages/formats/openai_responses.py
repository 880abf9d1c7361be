"""Items of OpenAI's Responses, as the OpenAI Agents SDK stores them: ``{"type": "function_call", "call_id": …}``.

Source: https://platform.openai.com/docs/api-reference/responses (input and output items).
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.messages.codec import LinkIds, ToolCall, ToolResult, View, as_list, as_object, as_text, json_text
from everthread.messages.formats._parts import Parts, note_links

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "refusal", "reasoning_text"})
LINK_MARKS = (b"call_id", b"_call_output", b"tool_use")


def matches(value: Mapping[str, object]) -> bool:
    """Return whether it is a message with role and content, a tool call, the output of one, or reasoning."""
    kind = value.get("type")
    if kind == "message":
        return "content" in value and "role" in value
    if not isinstance(kind, str):
        return False
    return kind == "reasoning" or (kind.endswith(("_call", "_call_output")) and ("id" in value or "call_id" in value))


def view(value: Mapping[str, object]) -> View:
    """Return the view, without parts of unknown types."""
    kind = as_text(value.get("type")) or "message"
    call_id = as_text(value.get("call_id"))
    if kind.endswith("_call_output"):
        return View(role="tool", results=(ToolResult(call_id, _output(value.get("output"))),))
    if kind.endswith("_call"):
        name = as_text(value.get("name")) or kind.removesuffix("_call")
        arguments = value.get("arguments", value.get("input"))
        # A tool that the service ran itself has no call ID, and no result follows.
        calls = (ToolCall(call_id, name, json_text(arguments)),) if call_id else ()
        return View(role="assistant", text="" if calls else f"[{name}]", calls=calls)
    if kind == "reasoning":
        return View(role="assistant", reasoning=Parts(value.get("summary")).text or Parts(value.get("content")).text)
    parts = Parts(value.get("content"))
    return View(
        role=as_text(value.get("role")),
        text=parts.text,
        calls=tuple(parts.calls),
        results=tuple(parts.results),
        media=tuple(parts.media),
        reasoning="".join(parts.thoughts),
    )


def links(value: Mapping[str, object]) -> LinkIds:
    """Return the IDs of the calls and results in the view."""
    kind, call_id = as_text(value.get("type")), as_text(value.get("call_id"))
    if kind.endswith("_call_output"):
        return (), (call_id,)
    if kind.endswith("_call"):
        return ((call_id,) if call_id else ()), ()
    if kind == "reasoning":
        return (), ()
    calls: list[str] = []
    results: list[str] = []
    note_links(value.get("content"), calls, results)
    return tuple(calls), tuple(results)


def _output(output: object) -> str:
    """Return the text of an output, which newer releases split into parts like those of a message."""
    parts = as_list(output)
    are_texts = all(as_text(as_object(part).get("type")) in _TEXTS for part in parts)
    return Parts(parts).text if parts and are_texts else json_text(output)
