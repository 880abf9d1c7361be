"""Messages of OpenAI's chat completions ↔ neutral entries."""

from __future__ import annotations

from collections.abc import Mapping

from everthread.messages.codec import as_list, as_object, as_text, json_text
from everthread.messages.converting.blocks import parts_of
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
    file_name,
    results_of,
)

_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mp3": "mp3", "audio/mpeg": "mp3"}


def read(value: Mapping[str, object], at: int, losses: Losses) -> list[Entry]:
    """Return the entries of a message."""
    role, author = as_text(value.get("role")), as_text(value.get("name"))
    parts = parts_of(value.get("content"), at, losses, "\n")
    answered = as_text(value.get("tool_call_id"))
    if role == "tool" and answered:
        text = "\n".join(part.text for part in parts if isinstance(part, Text))
        media = tuple(part for part in parts if isinstance(part, Attachment))
        return [Entry("tool", (Result(answered, text, media),), at)]
    thought = as_text(value.get("reasoning_content")) or as_text(value.get("reasoning"))
    before: list[Part] = [Thought((thought,))] if thought else []
    refusal = as_text(value.get("refusal"))
    after: list[Part] = [Text(refusal)] if refusal and not parts else []
    for name in ("audio", "function_call"):
        if value.get(name):
            losses.note(at, "unknown")
    calls = [_call(as_object(call)) for call in as_list(value.get("tool_calls"))]
    # A message of a tool that answers no call.
    role = "user" if role in {"tool", "function"} else role
    return split(Entry(role, (*before, *parts, *after, *calls), at, author))


def split(entry: Entry) -> list[Entry]:
    """Return the entry of the results in an entry, as in Anthropic's form, and that of its other parts."""
    results = tuple(results_of(entry))
    if not results:
        return [entry] if entry.parts else []
    others = tuple(part for part in entry.parts if not isinstance(part, Result))
    tool = Entry("tool", results, entry.at, id=entry.id)
    return [tool, Entry(entry.role, others, entry.at, entry.author)] if others else [tool]


def write(entry: Entry) -> list[Json]:
    """Return the messages of an entry: one for each result."""
    if entry.role == "tool":
        return [{"role": "tool", "tool_call_id": r.id, "content": r.text} for r in results_of(entry)]
    said = [part for part in entry.parts if isinstance(part, (Text, Attachment))]
    value: Json = {"role": entry.role, "content": _content(said)}
    if entry.author:
        value["name"] = entry.author
    calls = calls_of(entry)
    if calls:
        value["tool_calls"] = [_function(call) for call in calls]
    return [value]


def _call(call: Mapping[str, object]) -> Call:
    custom = as_object(call.get("custom"))
    if custom:
        return Call(as_text(call.get("id")), as_text(custom.get("name")), as_text(custom.get("input")), is_custom=True)
    function = as_object(call.get("function"))
    return Call(as_text(call.get("id")), as_text(function.get("name")), json_text(function.get("arguments")))


def _function(call: Call) -> Json:
    if call.is_custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _content(said: list[Text | Attachment]) -> object:
    if not said:
        return None
    alone = said[0]
    return alone.text if len(said) == 1 and isinstance(alone, Text) else [_part(part) for part in said]


def _part(part: Text | Attachment) -> Json:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    kind = part.media_type.partition("/")[0]
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": part.address}}
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": _FORMATS[part.media_type]}}
    return {"type": "file", "file": {"filename": part.name or file_name(part.media_type), "file_data": part.address}}
