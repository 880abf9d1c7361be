"""Messages in the form of Anthropic: ``{"role": "user", "content": [{"type": "tool_result", …}]}``.

A message of plain text has the form of OpenAI's chat completions, too, and is recognized as such.

Source: https://docs.anthropic.com/en/api/messages (content blocks).
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.messages.codec import LinkIds, View, as_list, as_object, as_text
from everthread.messages.formats._parts import Parts, note_links

_BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use", "mcp_tool_use"})
LINK_MARKS = (b"tool_use",)


def matches(value: Mapping[str, object]) -> bool:
    """Return whether it has a role, and a content with a block that only Anthropic has."""
    content = value.get("content")
    if not isinstance(content, list) or not isinstance(value.get("role"), str):
        return False
    return any(map(_is_block, map(as_object, as_list(content))))


def view(value: Mapping[str, object]) -> View:
    """Return the view, without blocks of unknown types."""
    parts, role = Parts(value.get("content")), as_text(value.get("role"))
    return View(
        role="tool" if parts.results and not parts.texts else role,
        text=parts.text,
        calls=tuple(parts.calls),
        results=tuple(parts.results),
        media=tuple(parts.media),
        reasoning="".join(parts.thoughts),
    )


def links(value: Mapping[str, object]) -> LinkIds:
    """Return the IDs of the calls and results in the view."""
    calls: list[str] = []
    results: list[str] = []
    note_links(value.get("content"), calls, results)
    return tuple(calls), tuple(results)


def _is_block(part: Mapping[str, object]) -> bool:
    kind = as_text(part.get("type"))
    return kind in _BLOCKS or (kind in {"image", "document"} and isinstance(part.get("source"), Mapping))
