"""Messages of Pydantic AI ↔ neutral entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from everthread.messages.codec import Media, View, as_list, as_object, as_text, json_text
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
from everthread.messages.formats.pydantic_ai import answers_a_call, view

_REDACTED = "redacted_thinking"
_ERRORS = frozenset({"failed", "retried"})
_FACTS = ("model_name", "provider_name", "finish_reason", "provider_details")
_SERVICE_TOOLS = frozenset({"builtin-tool-call", "builtin-tool-return"})
_URLS = {"image": "image-url", "audio": "audio-url", "video": "video-url"}


def read(value: Mapping[str, object], at: int, losses: Losses) -> list[Entry]:
    """Return the entries of a request (its system prompt, results and texts), or that of a response."""
    groups: dict[str, list[Part]] = {"system": [], "tool": [], "user": [], "assistant": []}
    is_response = value.get("kind") == "response"
    for part in map(as_object, as_list(value.get("parts"))):
        role = _role(part, is_response=is_response)
        groups[role] += _parts(part, at, losses)
    if value.get("instructions"):
        losses.note(at, "system")
    if any(value.get(name) for name in _FACTS):
        losses.note(at, "facts")
    separator = "" if is_response else "\n"
    found = {role: with_joined_texts(joined_thoughts(parts), separator) for role, parts in groups.items()}
    entries = [Entry(role, parts, at) for role, parts in found.items() if parts]
    if entries:
        last = entries[-1]
        entries[-1] = Entry(last.role, last.parts, at, metadata=as_object(value.get("metadata")))
    return entries


def write(entry: Entry) -> list[Json]:
    """Return the request or the response of an entry."""
    if entry.role == "assistant":
        parts = [written for part in entry.parts for written in _response_parts(part)]
        value: Json = {"parts": parts, "kind": "response"}
    else:
        value = {"parts": _request_parts(entry), "kind": "request"}
    return [{**value, "metadata": dict(entry.metadata)} if entry.metadata else value]


def _role(part: Mapping[str, object], *, is_response: bool) -> str:
    if is_response:
        return "assistant"
    if answers_a_call(part):
        return "tool"
    return "system" if part.get("part_kind") == "system-prompt" else "user"


def _parts(part: Mapping[str, object], at: int, losses: Losses) -> Iterator[Part]:
    kind, content = as_text(part.get("part_kind")), part.get("content")
    if part.get("citations"):
        losses.note(at, "citation")
    if kind in _SERVICE_TOOLS:
        losses.note(at, "service-tool")
    if kind == "thinking":
        yield _thought(part)
    elif kind == "tool-call":
        yield Call(as_text(part.get("tool_call_id")), as_text(part.get("tool_name")), json_text(part.get("args")))
    elif answers_a_call(part):
        seen = _seen(part)
        media = tuple(_attachment(each) for each in seen.media)
        is_error = kind == "retry-prompt" or part.get("outcome") in _ERRORS
        result = seen.results[0]
        yield Result(result.id, result.text, media, is_error, as_text(part.get("tool_name")))
    elif kind == "user-prompt" and isinstance(content, list):
        for item in as_list(content):
            yield from _item(item, part, at, losses)
    elif kind == "system-prompt":
        yield Text(as_text(content))
    else:
        seen = _seen(part)
        yield from (Text(seen.text), *map(_attachment, seen.media))
        if not (seen.text or seen.media or content == "" or kind in _SERVICE_TOOLS):
            losses.note(at, "unknown")


def _item(item: object, part: Mapping[str, object], at: int, losses: Losses) -> Iterator[Part]:
    kind = as_object(item).get("kind")
    if kind == "uploaded-file":
        losses.note(at, "hosted-file")
        yield Text(Attachment("file", "").note)
        return
    seen = _seen({**part, "content": [item]})
    yield from (Text(seen.text), *map(_attachment, seen.media))
    if not (seen.text or seen.media or item == "" or kind == "cache-point"):
        losses.note(at, "unknown")


def _seen(part: Mapping[str, object]) -> View:
    return view({"kind": "request", "parts": [part]})


def _attachment(media: Media) -> Attachment:
    return attachment(media.data or media.uri, media.media_type)


def _thought(part: Mapping[str, object]) -> Thought:
    text, sealed, name = as_text(part.get("content")), as_text(part.get("signature")), as_text(part.get("id"))
    texts, provider = (text,) if text else (), part.get("provider_name")
    if provider == "openai" and name:
        return Thought(texts, Seal("openai", sealed, name))
    return Thought(texts, Seal("anthropic", sealed) if provider == "anthropic" and sealed else None)


def _request_parts(entry: Entry) -> list[Json]:
    if entry.role == "tool":
        return [_tool_return(part) for part in entry.parts if isinstance(part, Result)]
    said = [part for part in entry.parts if isinstance(part, (Text, Attachment))]
    if entry.role == "system":
        return [{"content": part.text, "part_kind": "system-prompt"} for part in said if isinstance(part, Text)]
    contents = [part.text if isinstance(part, Text) else _media(part) for part in said]
    alone = contents[0] if len(contents) == 1 else None
    return [{"content": alone if isinstance(alone, str) else contents, "part_kind": "user-prompt"}]


def _tool_return(part: Result) -> Json:
    content: object = part.text
    if part.media:
        content = [*([part.text] if part.text else []), *map(_media, part.media)]
    value: Json = {"tool_name": part.name or "tool", "content": content, "tool_call_id": part.id}
    if part.is_error:
        value["outcome"] = "failed"
    return {**value, "part_kind": "tool-return"}


def _response_parts(part: Part) -> list[Json]:
    match part:
        case Text():
            return [{"content": part.text, "part_kind": "text"}]
        case Thought():
            return _thinking(part)
        case Call():
            value: Json = {"tool_name": part.name, "args": part.arguments, "tool_call_id": part.id}
            return [{**value, "part_kind": "tool-call"}]
        case Attachment() | Result():
            raise AssertionError("a response has no media and no results")


def _thinking(part: Thought) -> list[Json]:
    parts: list[Json] = [{"content": text, "part_kind": "thinking"} for text in part.texts or ("",)]
    if part.seal is not None:
        parts[0]["signature"] = part.seal.data
        for each in parts:
            each["provider_name"] = part.seal.service
            if part.seal.id or not part.texts:
                each["id"] = part.seal.id or _REDACTED
    return parts


def _media(part: Attachment) -> Json:
    if part.is_inline:
        # The framework writes the alphabet of URLs.
        data = part.data.replace("+", "-").replace("/", "_")
        return {"data": data, "media_type": part.media_type, "kind": "binary"}
    kind = _URLS.get(part.media_type.partition("/")[0], "document-url")
    return {"url": part.address, "media_type": part.media_type, "kind": kind}
