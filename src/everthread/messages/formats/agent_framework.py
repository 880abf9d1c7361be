"""Messages of Microsoft Agent Framework: 1.x (``{"type": "message", "role": "user", …}``) and the 1.0 betas
(``{"type": "chat_message", "role": {"type": "role", "value": "user"}, …}``).

Source: ``Message.to_dict`` and ``Content.to_dict`` of agent-framework-core, ``ChatMessage.to_dict`` of its betas.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from everthread.messages.codec import (
    LinkIds,
    Media,
    ToolCall,
    ToolResult,
    View,
    as_list,
    as_object,
    as_text,
    json_text,
    media_at,
)

BETA_TYPE = "chat_message"
CURRENT_TYPE = "message"
ENDED = "everthread_run"
"""The name in ``additional_properties`` that says how the run of a message ended: ``cancelled`` or ``failed``."""
LINK_MARKS = (b"call_id", b"approval")


def matches(value: Mapping[str, object]) -> bool:
    """Return whether it has either generation's type, and contents, which OpenAI's items of the same type lack."""
    kind = value.get("type")
    return (kind in (CURRENT_TYPE, BETA_TYPE)) and "contents" in value


def view(value: Mapping[str, object]) -> View:
    """Return the view, without contents of unknown types."""
    seen = _Seen()
    for content in as_list(value.get("contents")):
        # The framework's constructors accept plain text as a content.
        seen.add({"type": "text", "text": content} if isinstance(content, str) else as_object(content))
    return View(
        role=role_of(value),
        text="".join(seen.texts),
        calls=tuple(seen.calls),
        results=tuple(seen.results),
        media=tuple(seen.media),
        author=as_text(value.get("author_name")),
        reasoning="".join(seen.reasoning),
        ended=_ended(as_object(value.get("additional_properties"))),
    )


def links(value: Mapping[str, object]) -> LinkIds:
    """Return the IDs of the calls and results in the view."""
    calls: list[str] = []
    results: list[str] = []
    for content in as_list(value.get("contents")):
        _note_links(as_object(content), calls, results)
    return tuple(calls), tuple(results)


def _note_links(content: Mapping[str, object], calls: list[str], results: list[str]) -> None:
    kind = content.get("type")
    if kind == "text" or not isinstance(kind, str):
        return
    if kind == "function_approval_request":
        calls.append(_approval_id(content))
        call = as_object(content.get("function_call"))
        if as_text(call.get("type")).endswith("_call"):
            _note_links(call, calls, results)
    elif kind == "function_approval_response":
        results.append(_approval_id(content))
    elif kind.endswith("_call"):
        if call_id := as_text(content.get("call_id")):
            calls.append(call_id)
    elif kind.endswith("_result") and (call_id := as_text(content.get("call_id"))):
        results.append(call_id)


def role_of(value: Mapping[str, object]) -> str:
    """Return the role, in either generation's form."""
    role = value.get("role")
    return role if isinstance(role, str) else as_text(as_object(role).get("value"))


def _ended(properties: Mapping[str, object]) -> str:
    how = as_text(properties.get(ENDED))
    return how if how in {"cancelled", "failed"} else ""


class _Seen:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.results: list[ToolResult] = []
        self.media: list[Media] = []
        self.reasoning: list[str] = []

    def add(self, content: Mapping[str, object]) -> None:
        kind = as_text(content.get("type"))
        call_id = as_text(content.get("call_id"))
        if kind == "text":
            self.texts.append(as_text(content.get("text")))
        elif kind == "text_reasoning":
            self.reasoning.append(as_text(content.get("text")))
        elif kind in {"data", "uri"}:
            self.media.append(_media(content))
        elif kind == "error":
            reason = as_text(content.get("message")) or as_text(content.get("error_code"))
            self.texts.append(f"[error: {reason or 'unknown'}]")
        elif kind == "function_approval_request":
            # The call waits inside the request; its result follows only after the response.
            self.calls.append(ToolCall(_approval_id(content), "approval"))
            call = as_object(content.get("function_call"))
            if as_text(call.get("type")).endswith("_call"):
                self.add(call)
        elif kind == "function_approval_response":
            self.results.append(ToolResult(_approval_id(content), "approved" if content.get("approved") else "refused"))
        elif kind.endswith("_call") and call_id:
            name = as_text(content.get("name")) or as_text(content.get("tool_name")) or kind.removesuffix("_call")
            self.calls.append(ToolCall(call_id, name, json_text(content.get("arguments"))))
        elif kind.endswith("_result") and call_id:
            self.results.append(ToolResult(call_id, _result_text(content)))


def _approval_id(content: Mapping[str, object]) -> str:
    return f"approval:{as_text(content.get('id'))}"


def _result_text(content: Mapping[str, object]) -> str:
    for name in ("result", "output", "outputs", "exception"):
        if content.get(name) is not None:
            return json_text(content[name])
    return ""


def _media(content: Mapping[str, object]) -> Media:
    found = media_at(as_text(content.get("uri")), as_text(content.get("media_type")))
    media_type = as_text(content.get("media_type"))
    return msgspec.structs.replace(found, media_type=media_type) if media_type else found
