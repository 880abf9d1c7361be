"""Items of OpenAI's Responses, as the OpenAI Agents SDK keeps them: ``{"type": "function_call", "call_id": …}``.

Source: https://platform.openai.com/docs/api-reference/responses (input and output items).
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.codec import Media, ToolCall, ToolResult, View, as_list, as_object, encode

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "refusal"})
LINK_MARKS = (b"call_id", b"_call_output")


def matches(value: Mapping[str, object]) -> bool:
    """A message with a role and content, or an item of another type that answers or makes a call, or thinks."""
    kind = value.get("type")
    if kind == "message":
        return "content" in value and "role" in value
    if not isinstance(kind, str):
        return False
    return kind == "reasoning" or (kind.endswith(("_call", "_call_output")) and ("id" in value or "call_id" in value))


def view(value: Mapping[str, object]) -> View:
    """The view; parts of unknown types are left out."""
    kind = str(value.get("type") or "message")
    call_id = str(value.get("call_id") or "")
    if kind.endswith("_call_output"):
        return View(role="tool", results=(ToolResult(call_id, _text(value.get("output"))),))
    if kind.endswith("_call"):
        name = str(value.get("name") or kind.removesuffix("_call"))
        # What the service ran itself has no call id, and no result follows.
        calls = (ToolCall(call_id, name, _text(value.get("arguments"))),) if call_id else ()
        return View(role="assistant", text="" if calls else f"[{name}]", calls=calls)
    if kind == "reasoning":
        return View(role="assistant", text=_content(value.get("summary"))[0])
    text, media = _content(value.get("content"))
    return View(role=str(value.get("role", "")), text=text, media=media)


def _content(content: object) -> tuple[str, tuple[Media, ...]]:
    if isinstance(content, str):
        return content, ()
    parts = [as_object(part) for part in as_list(content)]
    texts = [str(part.get("text") or part.get("refusal") or "") for part in parts if part.get("type") in _TEXTS]
    media = tuple(found for part in parts for found in _media(part))
    return "".join(texts), media


def _media(part: Mapping[str, object]) -> tuple[Media, ...]:
    kind = part.get("type")
    if kind == "input_image":
        uri = str(part.get("image_url") or "")
        return (Media("image/*", len(uri) * 3 // 4 if uri.startswith("data:") else None, _address(uri)),)
    if kind == "input_file":
        return (Media("application/octet-stream", uri=_address(str(part.get("file_url") or ""))),)
    return ()


def _address(uri: str) -> str:
    return "" if uri.startswith("data:") else uri


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()
