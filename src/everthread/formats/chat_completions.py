"""Messages in the form of OpenAI's chat completions: ``{"role": …, "content": …, "tool_calls": …}``.

Source: https://platform.openai.com/docs/api-reference/chat/create (messages).
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.codec import Media, ToolCall, ToolResult, View, as_list, as_object

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
LINK_MARKS = (b"tool_call",)


def matches(value: Mapping[str, object]) -> bool:
    """A role that is plain text, and content, tool calls or an answered call beside it."""
    if value.get("role") not in _ROLES or "type" in value:
        return False
    return "content" in value or "tool_calls" in value


def view(value: Mapping[str, object]) -> View:
    """The view; parts of unknown types are left out."""
    role = str(value.get("role", ""))
    text, media = _content(value.get("content"))
    answered = value.get("tool_call_id")
    results = (ToolResult(str(answered), text),) if role == "tool" and answered else ()
    return View(
        role=role,
        text="" if results else text,
        calls=tuple(_calls(value.get("tool_calls"))),
        results=results,
        media=tuple(media),
        author=str(value.get("name") or ""),
    )


def _content(content: object) -> tuple[str, list[Media]]:
    if isinstance(content, str):
        return content, []
    texts: list[str] = []
    media: list[Media] = []
    for part in map(as_object, as_list(content)):
        text, image = part.get("text"), as_object(part.get("image_url"))
        if isinstance(text, str):
            texts.append(text)
        elif image:
            media.append(Media("image/*", uri=str(image.get("url", ""))))
    return "\n".join(texts), media


def _calls(calls: object) -> list[ToolCall]:
    found: list[ToolCall] = []
    for call in map(as_object, as_list(calls)):
        function = as_object(call.get("function"))
        found.append(
            ToolCall(str(call.get("id", "")), str(function.get("name", "")), str(function.get("arguments", "")))
        )
    return found
