"""Messages of Agent Framework ↔ neutral entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from everthread.messages.codec import as_list, as_object, as_text, json_text
from everthread.messages.converting.generations import to_current
from everthread.messages.converting.neutral import (
    Attachment,
    Call,
    Entry,
    Json,
    Losses,
    Part,
    Result,
    Seal,
    Text,
    Thought,
    attachment,
    joined_thoughts,
    with_joined_texts,
)
from everthread.messages.formats.agent_framework import CURRENT_TYPE, ENDED, view

_OPENAI_ID = "rs_"


def read(value: Mapping[str, object], at: int, losses: Losses) -> list[Entry]:
    """Return the entries of a message of either generation."""
    row = to_current(value)
    seen = view(row)
    found: list[Part] = []
    for content in as_list(row.get("contents")):
        known = {"type": "text", "text": content} if isinstance(content, str) else as_object(content)
        found += _parts(known, at, losses)
    parts = with_joined_texts(joined_thoughts(found))
    properties = {name: item for name, item in as_object(row.get("additional_properties")).items() if name != ENDED}
    results = tuple(part for part in parts if isinstance(part, Result))
    others = tuple(part for part in parts if not isinstance(part, Result))
    message_id = as_text(row.get("message_id"))
    entries = [Entry("tool", results, at, "" if others else seen.author)] if results else []
    if others:
        role = "assistant" if seen.role == "tool" else seen.role
        entries.append(Entry(role, others, at, seen.author))
    if entries:
        first = entries[0]
        entries[0] = Entry(first.role, first.parts, at, first.author, message_id, properties)
    return entries


def write(entry: Entry) -> list[Json]:
    """Return the message of an entry."""
    contents = [content for part in entry.parts for content in _contents(part)]
    value: Json = {"type": CURRENT_TYPE, "role": entry.role, "contents": contents}
    if entry.author:
        value["author_name"] = entry.author
    if entry.id:
        value["message_id"] = entry.id
    if entry.metadata:
        value["additional_properties"] = dict(entry.metadata)
    return [value]


def _parts(content: Mapping[str, object], at: int, losses: Losses) -> Iterator[Part]:
    kind, call_id = as_text(content.get("type")), as_text(content.get("call_id"))
    if content.get("annotations"):
        losses.note(at, "citation")
    if kind == "text":
        yield Text(as_text(content.get("text")))
    elif kind == "text_reasoning":
        yield _thought(content)
    elif kind in {"data", "uri"}:
        yield _media(content)
    elif kind == "function_call" and not _is_hosted(content):
        yield Call(call_id, as_text(content.get("name")), json_text(content.get("arguments")))
    elif kind == "function_result":
        yield _result(content, call_id)
    elif kind.startswith("function_approval_"):
        losses.note(at, "approval")
        call = as_object(content.get("function_call"))
        if kind == "function_approval_request" and call.get("type") == "function_call":
            name, arguments = as_text(call.get("name")), json_text(call.get("arguments"))
            yield Call(as_text(call.get("call_id")), name, arguments, is_awaiting=True)
    elif kind == "hosted_file":
        losses.note(at, "hosted-file")
        yield Text(Attachment("file", "").note)
    elif kind.endswith("_call"):
        losses.note(at, "service-tool")
        yield Text(
            f"[{as_text(content.get('name')) or as_text(content.get('tool_name')) or kind.removesuffix('_call')}]"
        )
    else:
        losses.note(at, _lost(kind))


def _lost(kind: str) -> Literal["facts", "error", "service-tool", "unknown"]:
    if kind in {"usage", "error"}:
        return "facts" if kind == "usage" else "error"
    return "service-tool" if kind.endswith("_result") else "unknown"


def _is_hosted(content: Mapping[str, object]) -> bool:
    more = as_object(content.get("additional_properties"))
    return any(of.get(name) for of in (content, more) for name in ("informational_only", "hosted"))


def _thought(content: Mapping[str, object]) -> Thought:
    text, name = as_text(content.get("text")), as_text(content.get("id"))
    more = as_object(content.get("additional_properties"))
    sealed = as_text(content.get("protected_data")) or as_text(more.get("encrypted_content"))
    # A seal without such an ID is of another service.
    is_openai = name.startswith(_OPENAI_ID)
    return Thought((text,) if text else (), Seal("openai", sealed, name) if is_openai else None)


def _media(content: Mapping[str, object]) -> Attachment:
    more = as_object(content.get("additional_properties"))
    name = as_text(content.get("name")) or as_text(more.get("filename"))
    return attachment(as_text(content.get("uri")), as_text(content.get("media_type")), name)


def _result(content: Mapping[str, object], call_id: str) -> Result:
    items = [as_object(item) for item in as_list(content.get("items"))]
    media = tuple(_media(item) for item in items if item.get("type") in {"data", "uri"})
    text = json_text(content.get("result"))
    if not text:
        text = "\n".join(as_text(item.get("text")) for item in items if item.get("type") == "text")
    exception = json_text(content.get("exception"))
    return Result(call_id, text or exception, media, bool(exception))


def _contents(part: Part) -> list[Json]:
    match part:
        case Text():
            return [{"type": "text", "text": part.text}]
        case Thought():
            return _reasoning(part)
        case Attachment():
            return [_data(part)]
        case Call():
            return [{"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}]
        case Result():
            value: Json = {"type": "function_result", "call_id": part.id, "result": part.text}
            if part.media:
                texts: list[Json] = [{"type": "text", "text": part.text}] if part.text else []
                value["items"] = [*texts, *map(_data, part.media)]
            if part.is_error:
                value["exception"] = part.text or "failed"
            return [value]


def _reasoning(part: Thought) -> list[Json]:
    contents: list[Json] = [{"type": "text_reasoning", "text": text} for text in part.texts or ("",)]
    if part.seal is not None:
        contents[0]["protected_data"] = part.seal.data
        for content in contents:
            content["id"] = part.seal.id
    return contents


def _data(part: Attachment) -> Json:
    value: Json = {"type": "data" if part.is_inline else "uri", "uri": part.address, "media_type": part.media_type}
    if part.name:
        value["name"] = part.name
    return value
