"""Items of OpenAI's Responses, as the OpenAI Agents SDK stores them ↔ neutral entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    Seal,
    Text,
    Thought,
    file_name,
)
from everthread.messages.formats._parts import Parts
from everthread.messages.formats.openai_responses import view

_OWN_CALLS = frozenset({"function_call", "custom_tool_call"})


def read(value: Mapping[str, object], at: int, losses: Losses) -> list[Entry]:
    """Return the entry of an item."""
    kind, item_id = as_text(value.get("type")) or "message", as_text(value.get("id"))
    if kind == "message":
        role = as_text(value.get("role"))
        parts = parts_of(value.get("content"), at, losses)
        return [Entry(role, parts, at, id=item_id, is_item=True)] if parts else []
    if kind == "reasoning":
        sealed = as_text(value.get("encrypted_content"))
        texts = tuple(Parts(value.get("summary")).texts or Parts(value.get("content")).texts)
        seal = Seal("openai", sealed, item_id) if sealed and item_id else None
        return [Entry("assistant", (Thought(texts, seal),), at, is_item=True)]
    if kind.endswith("_call_output"):
        return [_output(value, kind, at, losses)]
    if kind.endswith("_call"):
        return [Entry("assistant", (_call(value, kind, at, losses),), at, is_item=True)]
    losses.note(at, "unknown")
    return []


def write(entry: Entry) -> list[Json]:
    """Return the items of an entry, in order."""
    items: list[Json] = []
    said: list[Text | Attachment] = []
    for part in entry.parts:
        if isinstance(part, (Text, Attachment)):
            said.append(part)
            continue
        items += _message(entry.role, said)
        said = []
        items.append(_item(part))
    return [*items, *_message(entry.role, said)]


def _call(value: Mapping[str, object], kind: str, at: int, losses: Losses) -> Part:
    call_id = as_text(value.get("call_id")) or (as_text(value.get("id")) if kind == "local_shell_call" else "")
    name = as_text(value.get("name")) or kind.removesuffix("_call")
    if kind not in _OWN_CALLS:
        losses.note(at, "service-tool")
    if not call_id:
        return Text(f"[{name}]")
    if kind == "custom_tool_call":
        return Call(call_id, name, as_text(value.get("input")), is_custom=True)
    return Call(call_id, name, json_text(value.get("arguments", value.get("action"))))


def _output(value: Mapping[str, object], kind: str, at: int, losses: Losses) -> Entry:
    output = value.get("output")
    call_id = as_text(value.get("call_id")) or (as_text(value.get("id")) if kind.startswith("local_shell") else "")
    text, media = view({**value, "output": output}).results[0].text, ()
    if as_list(output) and all(as_text(as_object(part).get("type")).startswith("input_") for part in as_list(output)):
        parts = parts_of(output, at, losses)
        text = "".join(part.text for part in parts if isinstance(part, Text))
        media = tuple(part for part in parts if isinstance(part, Attachment))
    return Entry("tool", (Result(call_id, text, media),), at)


def _item(part: Thought | Call | Result) -> Json:
    match part:
        case Thought():
            seal = part.seal
            assert seal is not None
            summary = [{"type": "summary_text", "text": text} for text in part.texts]
            return {"type": "reasoning", "id": seal.id, "summary": summary, "encrypted_content": seal.data}
        case Call(is_custom=True):
            return {"type": "custom_tool_call", "call_id": part.id, "name": part.name, "input": part.arguments}
        case Call():
            return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}
        case Result():
            output: object = part.text
            if part.media:
                output = _contents("user", [*([Text(part.text)] if part.text else []), *part.media])
            return {"type": "function_call_output", "call_id": part.id, "output": output}


def _message(role: str, parts: list[Text | Attachment]) -> list[Json]:
    if not parts:
        return []
    alone = parts[0]
    content = alone.text if len(parts) == 1 and isinstance(alone, Text) else _contents(role, parts)
    return [{"role": role, "content": content}]


def _contents(role: str, parts: Iterable[Text | Attachment]) -> list[Json]:
    return [_content(role, part) for part in parts]


def _content(role: str, part: Text | Attachment) -> Json:
    if isinstance(part, Text):
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
    if part.media_type.startswith("image/"):
        return {"type": "input_image", "image_url": part.address, "detail": "auto"}
    if not part.is_inline:
        value: Json = {"type": "input_file", "file_url": part.address}
        return {**value, "filename": part.name} if part.name else value
    return {"type": "input_file", "filename": part.name or file_name(part.media_type), "file_data": part.address}
