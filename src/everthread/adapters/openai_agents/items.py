"""Items of the OpenAI Agents SDK from stored messages, as plain JSON values. Imports no framework."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from everthread.errors import CorruptRecordError, UnsupportedError
from everthread.messages import codec
from everthread.messages.converting.convert import Source, convert
from everthread.model import Message, ThreadKey

FORMAT = "openai-responses"
Json = dict[str, object]

log = logging.getLogger("everthread.openai_agents")

_INPUT_ROLES = frozenset({"user", "system", "developer"})


def items_of(messages: Sequence[Message], key: ThreadKey) -> list[Json]:
    """Return the items of stored messages. Those of other formats are converted: see `everthread.messages.converting`.

    Raises:
        CorruptRecordError: A record is not a JSON object.
        UnsupportedError: One of another format has only contents of unknown types.
    """
    values = [_value(message, key) for message in messages]
    formats = [_format_of(message, value) for message, value in zip(messages, values, strict=True)]
    if all(format == FORMAT for format in formats):
        return values
    converted = convert([Source(*each) for each in zip(values, formats, strict=True)], FORMAT)
    lost = {(loss.at, loss.aspect) for loss in converted.losses}
    for at in converted.unread:
        if (at, "unknown") in lost:
            raise UnsupportedError(
                f"The message at position {messages[at].seq} of {key} has the format {messages[at].format!r} and "
                "contents that the OpenAI Agents SDK cannot get: continue this thread with the framework that wrote it."
            )
    if lost:
        log.info("%s has %s parts that the OpenAI Agents SDK gets in another form, or not.", key, len(lost))
    return [dict(each.value) for each in converted.messages]


def _value(message: Message, key: ThreadKey) -> Json:
    value = codec.decode(message, key)
    if not isinstance(value, dict):
        raise CorruptRecordError(f"The record at position {message.seq} of {key} is no JSON object.")
    return cast(Json, value)


def _format_of(message: Message, value: Json) -> str:
    is_own = message.format == FORMAT or (message.format == "json" and _is_item(value))
    return FORMAT if is_own else message.format


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
