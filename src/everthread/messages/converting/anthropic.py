"""Messages of Anthropic ↔ neutral entries."""

from __future__ import annotations

from collections.abc import Mapping

from everthread.messages.codec import as_text
from everthread.messages.converting.blocks import parts_of
from everthread.messages.converting.chat_completions import split
from everthread.messages.converting.fitting import object_of
from everthread.messages.converting.neutral import Attachment, Call, Entry, Json, Losses, Part, Result, Text, Thought

_FACTS = ("usage", "stop_reason", "model")


def read(value: Mapping[str, object], at: int, losses: Losses) -> list[Entry]:
    """Return the entries of a message: one of its tool results, and one of all else."""
    parts = parts_of(value.get("content"), at, losses)
    if any(value.get(name) for name in _FACTS):
        losses.note(at, "facts")
    return split(Entry(as_text(value.get("role")), parts, at, id=as_text(value.get("id"))))


def write(entry: Entry) -> list[Json]:
    """Return the message of an entry."""
    role = "user" if entry.role == "tool" else entry.role
    return [{"role": role, "content": [_block(part) for part in entry.parts]}]


def _block(part: Part) -> Json:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Thought():
            return thinking(part)
        case Attachment():
            return _media(part)
        case Call():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": object_of(part.arguments) or {}}
        case Result():
            text: list[Json] = [{"type": "text", "text": part.text}] if part.text else []
            content: object = [*text, *map(_media, part.media)] if part.media else part.text
            value: Json = {"type": "tool_result", "tool_use_id": part.id, "content": content}
            return {**value, "is_error": True} if part.is_error else value


def thinking(part: Thought) -> Json:
    """Return the block of reasoning that Anthropic signed."""
    assert part.seal is not None
    if not part.texts:
        return {"type": "redacted_thinking", "data": part.seal.data}
    return {"type": "thinking", "thinking": "".join(part.texts), "signature": part.seal.data}


def _media(part: Attachment) -> Json:
    kind = "image" if part.media_type.startswith("image/") else "document"
    if part.is_inline:
        source: Json = {"type": "base64", "media_type": part.media_type, "data": part.data}
    else:
        source = {"type": "url", "url": part.address}
    value: Json = {"type": kind, "source": source}
    return {**value, "title": part.name} if part.name and kind == "document" else value
