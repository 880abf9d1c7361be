"""Items of the OpenAI Agents SDK from stored messages, as plain JSON values. Imports no framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from everthread.errors import CorruptRecordError, UnsupportedError
from everthread.messages import codec
from everthread.model import Message, ThreadKey

FORMAT = "openai-responses"
Json = dict[str, object]

_INPUT_ROLES = frozenset({"user", "system", "developer"})


def items_of(message: Message, key: ThreadKey) -> list[Json]:
    """Return the item of a stored message, or items with the same texts and tool calls if another framework wrote it.

    Raises:
        CorruptRecordError: The record is not a JSON object.
        UnsupportedError: It is of another format and has contents that are neither text nor tool calls.
    """
    value = codec.decode(message, key)
    if not isinstance(value, dict):
        raise CorruptRecordError(f"The record at position {message.seq} of {key} is no JSON object.")
    item = cast(Json, value)
    is_own = message.format == FORMAT or (message.format == "json" and _is_item(item))
    return [item] if is_own else _converted(message, codec.view_of(item, message.format), key)


def from_a_complete_response(items: Sequence[Json], first: int = 0) -> list[Json]:
    """Return the items from ``first`` on, or from the next place where a conversation can begin.

    It cannot begin inside a response, because model services refuse a tool output without its call, and a call or an
    answer without the reasoning before it.
    """
    # From the end: the calls that the items from a place on still need.
    needed: set[str] = set()
    begin = len(items)
    for at in range(len(items) - 1, first - 1, -1):
        seen = codec.view_of(items[at], FORMAT)
        needed |= {result.id for result in seen.results}
        needed -= {call.id for call in seen.calls}
        if not needed and _may_begin(items, at):
            begin = at
    return list(items[begin:])


def _may_begin(items: Sequence[Json], at: int) -> bool:
    item, former = items[at], items[at - 1] if at else None
    if former is not None and (_is_input(former) or _kind(former).endswith("_output")):
        return True
    if _kind(item) == "reasoning":
        return former is None or _kind(former) != "reasoning"
    # Services know by the ID that reasoning preceded an item.
    is_output = _kind(item).endswith("_call") or item.get("role") == "assistant"
    return not (is_output and "id" in item)


def _kind(item: Json) -> str:
    return codec.as_text(item.get("type")) or "message"


def _is_input(item: Json) -> bool:
    return _kind(item) == "message" and item.get("role") in _INPUT_ROLES


def _is_item(item: Json) -> bool:
    is_short_message = item.keys() == {"role", "content"} and item["role"] in {*_INPUT_ROLES, "assistant"}
    return is_short_message or codec.recognize(item) == FORMAT


def _converted(message: Message, seen: codec.View, key: ThreadKey) -> list[Json]:
    items: list[Json] = []
    role = "user" if seen.role not in {*_INPUT_ROLES, "assistant"} else seen.role
    if seen.text and not seen.results:
        items.append({"role": role, "content": seen.text})
    for call in seen.calls:
        items.append(
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}
        )
    for result in seen.results:
        items.append({"type": "function_call_output", "call_id": result.id, "output": result.text})
    if seen.media or (not items and not seen.reasoning):
        raise UnsupportedError(
            f"The message at position {message.seq} of {key} has the format {message.format!r} and contents that the "
            "OpenAI Agents SDK cannot get: continue this thread with the framework that wrote it."
        )
    return items
