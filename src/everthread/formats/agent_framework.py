"""Messages of Microsoft Agent Framework: 1.x (``{"type": "message", "role": "user", …}``) and the 1.0 betas
(``{"type": "chat_message", "role": {"type": "role", "value": "user"}, …}``).

Source: ``Message.to_dict`` and ``Content.to_dict`` of agent-framework-core, ``ChatMessage.to_dict`` of its betas.
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.codec import Media, ToolCall, ToolResult, View, as_list, as_object, encode

BETA_TYPE = "chat_message"
CURRENT_TYPE = "message"
LINK_MARKS = (b"call_id", b"approval")


def matches(value: Mapping[str, object]) -> bool:
    """Either generation's type, with contents (OpenAI's response items share the type, not the contents)."""
    return value.get("type") in {CURRENT_TYPE, BETA_TYPE} and "contents" in value


def view(value: Mapping[str, object]) -> View:
    """The view; contents of types that are not known are left out."""
    seen = _Seen()
    for content in as_list(value.get("contents")):
        seen.add(as_object(content))
    return View(
        role=role_of(value),
        text="".join(seen.texts),
        calls=tuple(seen.calls),
        results=tuple(seen.results),
        media=tuple(seen.media),
        author=str(value.get("author_name") or ""),
    )


def role_of(value: Mapping[str, object]) -> str:
    """The role in either generation's form."""
    role = value.get("role")
    return role if isinstance(role, str) else str(as_object(role).get("value", ""))


class _Seen:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.results: list[ToolResult] = []
        self.media: list[Media] = []

    def add(self, content: Mapping[str, object]) -> None:
        kind = str(content.get("type", ""))
        call_id = content.get("call_id")
        if kind == "text":
            self.texts.append(str(content.get("text") or ""))
        elif kind in {"data", "uri"}:
            self.media.append(_media(content))
        elif kind == "error":
            self.texts.append(f"[error: {content.get('message') or content.get('error_code') or 'unknown'}]")
        elif kind == "function_approval_request":
            # The call waits inside the request; its result follows only after the response.
            self.calls.append(ToolCall(_approval_id(content), "approval"))
            self.add(as_object(content.get("function_call")))
        elif kind == "function_approval_response":
            self.results.append(ToolResult(_approval_id(content), "approved" if content.get("approved") else "refused"))
        elif kind.endswith("_call") and call_id:
            name = content.get("name") or content.get("tool_name") or kind.removesuffix("_call")
            self.calls.append(ToolCall(str(call_id), str(name), _text(content.get("arguments"))))
        elif kind.endswith("_result") and call_id:
            self.results.append(ToolResult(str(call_id), _result_text(content)))


def _approval_id(content: Mapping[str, object]) -> str:
    return f"approval:{content.get('id', '')}"


def _result_text(content: Mapping[str, object]) -> str:
    for name in ("result", "output", "outputs", "exception"):
        if content.get(name) is not None:
            return _text(content[name])
    return ""


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def _media(content: Mapping[str, object]) -> Media:
    uri = str(content.get("uri") or "")
    media_type = str(content.get("media_type") or "")
    if not uri.startswith("data:"):
        return Media(media_type, uri=uri)
    header, _, data = uri[5:].partition(",")
    size = len(data) * 3 // 4 - data[-2:].count("=") if header.endswith(";base64") else len(data)
    return Media(media_type or header.partition(";")[0], size)
