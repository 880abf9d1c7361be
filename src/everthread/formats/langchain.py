"""Messages of LangChain: ``{"type": "human", "data": {"content": …}}``.

Source: ``message_to_dict`` of langchain-core.
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.codec import Media, ToolCall, ToolResult, View, as_list, as_object, encode

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
LINK_MARKS = (b"tool_call",)


def matches(value: Mapping[str, object]) -> bool:
    """A type that is one of LangChain's, and the message beside it."""
    return isinstance(value.get("data"), Mapping) and (value.get("type") in _ROLES or value.get("type") == "chat")


def view(value: Mapping[str, object]) -> View:
    """The view; parts of unknown types are left out."""
    data = as_object(value.get("data"))
    kind = str(value.get("type", ""))
    role = str(data.get("role", "")) if kind == "chat" else _ROLES.get(kind, kind)
    text, media = _content(data.get("content"))
    answered = data.get("tool_call_id")
    results = (ToolResult(str(answered), text),) if role == "tool" and answered else ()
    calls = tuple(map(_call, map(as_object, as_list(data.get("tool_calls")))))
    return View(role, "" if results else text, calls, results, media, author=str(data.get("name") or ""))


def _call(call: Mapping[str, object]) -> ToolCall:
    return ToolCall(str(call.get("id") or ""), str(call.get("name") or ""), encode(call.get("args")).decode())


def _content(content: object) -> tuple[str, tuple[Media, ...]]:
    if isinstance(content, str):
        return content, ()
    texts: list[str] = []
    media: list[Media] = []
    for part in as_list(content):
        known = as_object(part)
        text, image = known.get("text"), as_object(known.get("image_url"))
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(text, str):
            texts.append(text)
        elif image:
            media.append(Media("image/*", uri=str(image.get("url", ""))))
    return "".join(texts), tuple(media)
