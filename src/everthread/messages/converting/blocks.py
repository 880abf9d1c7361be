"""Read the parts of a message's content in the forms of OpenAI, Anthropic and LangChain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from everthread.messages.codec import Media, as_list, as_object, as_text
from everthread.messages.converting.neutral import (
    Attachment,
    Call,
    Losses,
    Part,
    Result,
    Seal,
    Text,
    Thought,
    attachment,
    with_joined_texts,
)
from everthread.messages.formats._parts import Parts

_SERVICE_TOOLS = frozenset({"server_tool_use", "mcp_tool_use"})


def parts_of(content: object, at: int, losses: Losses, separator: str = "") -> tuple[Part, ...]:
    """Return the parts of a content: a text or a list of parts."""
    found: list[Part] = [Text(content)] if isinstance(content, str) else []
    blocks = as_list(content)
    if content and not (blocks or found):
        losses.note(at, "unknown")
    for block in blocks:
        found += [Text(block)] if isinstance(block, str) else _parts(as_object(block), at, losses)
    return with_joined_texts(found, separator)


def _parts(block: Mapping[str, object], at: int, losses: Losses) -> Iterator[Part]:
    kind = as_text(block.get("type"))
    if block.get("annotations") or block.get("citations"):
        losses.note(at, "citation")
    if kind in _SERVICE_TOOLS:
        losses.note(at, "service-tool")
    if kind == "redacted_thinking":
        yield Thought(seal=Seal("anthropic", as_text(block.get("data"))))
        return
    if _hosted(block):
        losses.note(at, "hosted-file")
        yield Text(Attachment("image" if "image" in kind else "file", "").note)
        return
    seen = Parts([dict(block)])
    media = tuple(_attachment(each, block) for each in seen.media)
    if seen.results:
        inner = as_list(block.get("content"))
        named = tuple(part for each in inner for part in _parts(as_object(each), at, Losses()))
        held = tuple(part for part in named if isinstance(part, Attachment)) or media
        yield from (Result(r.id, r.text, held, block.get("is_error") is True) for r in seen.results)
        return
    signature = as_text(block.get("signature"))
    for thought in seen.thoughts:
        yield Thought((thought,) if thought else (), Seal("anthropic", signature) if signature else None)
    yield from map(Text, seen.texts)
    yield from media
    yield from (Call(call.id, call.name, call.arguments) for call in seen.calls)
    if not (seen.thoughts or seen.texts or media or seen.calls):
        losses.note(at, "unknown")


def _hosted(block: Mapping[str, object]) -> bool:
    """Return whether it is a file that only its service has."""
    inner = [block, as_object(block.get("file")), as_object(block.get("source"))]
    addresses = ("image_url", "file_url", "file_data", "url", "data", "base64")
    return any(each.get("file_id") for each in inner) and not any(
        each.get(name) for each in inner for name in addresses
    )


def _attachment(seen: Media, block: Mapping[str, object]) -> Attachment:
    file, extras = as_object(block.get("file")), as_object(block.get("extras"))
    names = (block.get("filename"), file.get("filename"), extras.get("filename"), block.get("title"))
    name = next((as_text(name) for name in names if name), "")
    return attachment(seen.data or seen.uri, seen.media_type, name)
