"""Messages of LangChain ↔ neutral entries."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from everthread.messages.codec import as_list, as_object, as_text
from everthread.messages.converting.anthropic import thinking
from everthread.messages.converting.blocks import parts_of
from everthread.messages.converting.chat_completions import split
from everthread.messages.converting.fitting import object_of
from everthread.messages.converting.neutral import (
    Attachment,
    Call,
    Entry,
    Json,
    Losses,
    Part,
    Result,
    Text,
    Thought,
    calls_of,
    results_of,
)
from everthread.messages.formats.langchain import view

_TYPES = {"user": "human", "assistant": "ai", "system": "system", "developer": "system"}
_OPENAI_ROLE = "__openai_role__"
_CALLS = frozenset({"tool_use", "tool_call", "function_call", "invalid_tool_call"})
_SERVICE_KEYS = frozenset({"tool_calls", "function_call", "refusal", "parsed", _OPENAI_ROLE})
"""Names in ``additional_kwargs`` that repeat other fields, or that a service's client puts there."""


def read(value: Mapping[str, object], at: int, losses: Losses) -> list[Entry]:
    """Return the entries of a message."""
    data, seen = as_object(value.get("data")), view(value)
    kwargs = as_object(data.get("additional_kwargs"))
    metadata = {name: item for name, item in kwargs.items() if name not in _SERVICE_KEYS}
    message_id, content = as_text(data.get("id")), data.get("content")
    if any(data.get(name) for name in ("response_metadata", "usage_metadata")):
        losses.note(at, "facts")
    if any(data.get(name) for name in ("invalid_tool_calls", "artifact")):
        losses.note(at, "unknown")
    answered = as_text(data.get("tool_call_id"))
    if seen.role == "tool" and answered:
        parts = parts_of(content, at, losses)
        text = "".join(part.text for part in parts if isinstance(part, Text))
        media = tuple(part for part in parts if isinstance(part, Attachment))
        result = Result(answered, text, media, data.get("status") == "error")
        return [Entry("tool", (result,), at, id=message_id, metadata=metadata)]
    has_calls = bool(as_list(data.get("tool_calls")))
    if has_calls and isinstance(content, list):
        # Some models' calls are blocks of the content, too.
        content = [block for block in as_list(data["content"]) if as_object(block).get("type") not in _CALLS]
    parts = parts_of(content, at, losses)
    calls = [Call(call.id, call.name, call.arguments) for call in seen.calls] if has_calls else []
    role = "developer" if kwargs.get(_OPENAI_ROLE) == "developer" else seen.role
    role = "user" if role == "tool" else role
    entries = split(Entry(role, (*parts, *calls), at, seen.author))
    if entries:
        entries[0] = replace(entries[0], id=message_id, metadata=metadata)
    return entries


def write(entry: Entry) -> list[Json]:
    """Return the messages of an entry: one for each result."""
    if entry.role == "tool":
        first, *others = results_of(entry)
        return [_tool(first, entry.id, entry.metadata), *(_tool(result, "", {}) for result in others)]
    kind = _TYPES[entry.role]
    said: list[Part] = [part for part in entry.parts if not isinstance(part, Call)]
    data: Json = {"type": kind, "content": _content(said)}
    kwargs = dict(entry.metadata)
    if entry.role == "developer":
        kwargs[_OPENAI_ROLE] = "developer"
    calls = calls_of(entry)
    if calls:
        data["tool_calls"] = [
            {"name": call.name, "args": object_of(call.arguments) or {}, "id": call.id, "type": "tool_call"}
            for call in calls
        ]
    return [{"type": kind, "data": _with_names(data, entry.author, entry.id, kwargs)}]


def _tool(result: Result, message_id: str, metadata: Mapping[str, object]) -> Json:
    texts: list[Part] = [Text(result.text)] if result.text else []
    data: Json = {"type": "tool", "content": _content([*texts, *result.media]), "tool_call_id": result.id}
    if result.is_error:
        data["status"] = "error"
    return {"type": "tool", "data": _with_names(data, "", message_id, metadata)}


def _with_names(data: Json, author: str, message_id: str, kwargs: Mapping[str, object]) -> Json:
    if author:
        data["name"] = author
    if message_id:
        data["id"] = message_id
    if kwargs:
        data["additional_kwargs"] = dict(kwargs)
    return data


def _content(parts: list[Part]) -> object:
    if not parts:
        return ""
    alone = parts[0]
    return alone.text if len(parts) == 1 and isinstance(alone, Text) else [_block(part) for part in parts]


def _block(part: Part) -> Json:
    match part:
        case Thought(seal=None):
            return {"type": "reasoning", "reasoning": "".join(part.texts)}
        case Thought():
            return thinking(part)
        case Attachment():
            return _media(part)
        case Text():
            return {"type": "text", "text": part.text}
        case Call() | Result():
            raise AssertionError("calls and results are no content")


def _media(part: Attachment) -> Json:
    kind = part.media_type.partition("/")[0]
    if kind == "image":
        # All releases and models read this block.
        return {"type": "image_url", "image_url": {"url": part.address}}
    value: Json = {"type": kind if kind in {"audio", "video"} else "file", "mime_type": part.media_type}
    value |= {"base64": part.data} if part.is_inline else {"url": part.address}
    return {**value, "extras": {"filename": part.name}} if part.name else value
