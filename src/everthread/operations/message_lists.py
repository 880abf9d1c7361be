"""Inspect and repair a list of messages, without a store.

For example, before a request to a model service:

    from everthread.operations import repair_messages

    messages = repair_messages(messages).messages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from everthread.errors import InvalidMessageError
from everthread.messages.codec import encode_plain
from everthread.messages.rules.examining import Examination, Fault, examine
from everthread.messages.rules.links import Value
from everthread.messages.rules.rows import Row, row_of_payload, row_of_value, service_of, with_prevailing_format
from everthread.messages.rules.services import Service


class RepairedMessages(msgspec.Struct, frozen=True):
    """A list of messages after a repair.

    Attributes:
        messages: The messages, of the same types as before. Those without a fault are the same objects.
        faults: The faults that were found. A repair leaves those with an empty ``repair``.
    """

    messages: list[Any]
    faults: list[Fault]


def inspect_messages(
    messages: Sequence[object],
    *,
    format: str | None = None,
    service: Service | None = None,
    is_running: bool = False,
) -> list[Fault]:
    """Return the faults of a list of messages, in order.

    Args:
        messages: Messages of Agent Framework, LangChain, OpenAI's chat completions or Responses, or Anthropic: objects
            of these libraries, dictionaries, or their JSON as bytes or text. Formats may be mixed.
        format: The format of messages that do not show it. Default: recognized.
        service: The model service that gets them. Default: that of the format, or any for a framework's messages.
        is_running: The calls of the last turn may still get their results, so they are no fault.

    Raises:
        InvalidMessageError: A message is of another type.
    """
    return _examined(messages, format, service, is_running=is_running)[1].faults


def repair_messages(
    messages: Sequence[object],
    *,
    format: str | None = None,
    service: Service | None = None,
    is_running: bool = False,
) -> RepairedMessages:
    """Return a list of messages that the model service accepts, and the faults. Changes nothing in place.

    A result without its call is removed, a call without a result gets one that says "not recorded", a result in another
    place is moved after its call, and proved repeats are removed. Without a fault, the messages are the same objects.
    Arguments and errors are those of `inspect_messages`.
    """
    adapted, examination = _examined(messages, format, service, is_running=is_running)
    repaired: list[object] = []
    restored = adapted[0].restored if adapted else _as_dictionary
    for slot in examination.slots:
        if slot.origin is not None:
            restored = adapted[slot.origin].restored
        if slot.origin is not None and not slot.is_changed:
            repaired.append(messages[slot.origin])
        else:
            assert slot.row.value is not None
            repaired.append(restored(slot.row.value))
    return RepairedMessages(repaired, examination.faults)


class _Adapted(NamedTuple):
    """A message as a row, and the function that returns an object of the message's type."""

    row: Row
    restored: Callable[[Value], object]


def _examined(
    messages: Sequence[object], format: str | None, service: Service | None, *, is_running: bool
) -> tuple[list[_Adapted], Examination]:
    adapted = [_adapted(message, at, format) for at, message in enumerate(messages)]
    rows = with_prevailing_format([each.row for each in adapted])
    adapted = [each._replace(row=row) for each, row in zip(adapted, rows, strict=True)]
    return adapted, examine(rows, service or service_of(rows), is_running=is_running)


def _adapted(message: object, at: int, format: str | None) -> _Adapted:
    if isinstance(message, bytes):
        return _Adapted(row_of_payload(message, format), encode_plain)
    if isinstance(message, str):
        data = message.encode(errors="surrogatepass")
        return _Adapted(row_of_payload(data, format), _as_json_text)
    if isinstance(message, Mapping):
        return _Adapted(row_of_value(cast(object, message), format), _as_dictionary)
    if type(message).__module__.startswith("langchain_core."):
        from importlib import import_module

        # Not an import of this package: the object proves that it is installed.
        langchain: Any = import_module("langchain_core.messages")

        def restored(value: Value) -> object:
            return langchain.messages_from_dict([value])[0]

        return _Adapted(row_of_value(langchain.message_to_dict(message), "langchain"), restored)
    known: Any = message
    if hasattr(message, "to_dict") and hasattr(message, "from_dict"):
        return _Adapted(row_of_value(known.to_dict(), format), known.from_dict)
    if hasattr(message, "model_dump"):
        return _Adapted(row_of_value(known.model_dump(mode="json", exclude_none=True), format), _as_dictionary)
    raise InvalidMessageError(f"messages[{at}] is a {type(message).__name__}: give a dictionary or a known message.")


def _as_dictionary(value: Value) -> object:
    return dict(value)


def _as_json_text(value: Value) -> object:
    return encode_plain(value).decode()
