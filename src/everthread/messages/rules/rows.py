"""The messages of a list, as the rules see them. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from everthread.errors import CorruptRecordError, InvalidMessageError
from everthread.messages.codec import as_object, decode_as_text, encode_plain, recognize, view_of
from everthread.messages.rules.links import Shape, Value, layout_of, shape_of
from everthread.messages.rules.services import MAX_REQUEST, MAX_TEXT, SERVICE_OF, Service
from everthread.messages.strict_json import as_strict
from everthread.model import Message, NewMessage


class Row(msgspec.Struct, frozen=True):
    """A message.

    Attributes:
        value: Its decoded payload, as strict JSON can represent it; ``None`` if it is not a JSON object.
        is_strict: It is strict JSON as it stands.
        size: The bytes of its JSON.
        is_opaque: It is not an object, but content of an application in its own format.
    """

    value: Value | None
    format: str
    shape: Shape
    is_strict: bool = True
    size: int = 0
    is_opaque: bool = False

    @property
    def is_strict_object(self) -> bool:
        """Whether it is a JSON object that a store takes as it stands."""
        return self.value is not None and self.is_strict

    @property
    def is_reasoning(self) -> bool:
        """Whether it has reasoning and nothing else."""
        shape = self.shape
        return self.value is not None and shape.thinks and not shape.is_filled and not shape.parts

    @property
    def is_empty(self) -> bool:
        """Whether it is a message of the assistant without anything in it."""
        shape = self.shape
        is_bare = not (shape.thinks or shape.is_filled or shape.parts)
        return self.value is not None and shape.role == "assistant" and is_bare

    @property
    def is_answer(self) -> bool:
        """Whether it is a part of an answer that reasoning can lead to."""
        return self.shape.role == "assistant" and (self.shape.is_filled or self.shape.calls)

    @property
    def is_input(self) -> bool:
        """Whether a user began a turn with it."""
        return self.shape.role == "user" and not self.shape.answers

    def with_value(self, value: Value) -> Row:
        """Return the row of another value of the same format."""
        return Row(value, self.format, shape_of(value, self.format))


UNDECODABLE = Row(None, "json", Shape())


def row_of_payload(payload: bytes, format: str | None = None) -> Row:
    """Return the row of a message's JSON in UTF-8. ``format`` is recognized if it is ``None`` or not known."""
    try:
        value = decode_as_text(payload)
    except CorruptRecordError:
        return msgspec.structs.replace(UNDECODABLE, size=len(payload))
    row = row_of_value(value, format)
    return msgspec.structs.replace(row, is_strict=_is_strict(payload), size=len(payload))


def row_of_stored(message: Message) -> Row:
    """Return the row of a message of a store, which takes any JSON of applications with formats of their own."""
    row = row_of_payload(message.payload, message.format)
    is_opaque = row.value is None and layout_of(message.format) is None and _is_strict(message.payload)
    return msgspec.structs.replace(row, is_opaque=is_opaque, shape=Shape(is_filled=True)) if is_opaque else row


def row_of_value(value: object, format: str | None = None) -> Row:
    """Return the row of a decoded message."""
    known = as_object(value)
    if not known:
        return UNDECODABLE
    size, is_strict = 0, True
    try:
        size = len(encode_plain(known))
    except InvalidMessageError:
        is_strict = False
        try:
            known = as_object(as_strict(known))
        except RecursionError:
            return UNDECODABLE
    name = format if format not in {None, "json"} else recognize(known)
    assert name is not None
    return Row(known, name, shape_of(known, name), is_strict, size)


def excess_of(row: Row, service: Service | None) -> int:
    """Return the limit of a service that a message exceeds; 0 if it exceeds none."""
    smallest = min((*MAX_TEXT.values(), *MAX_REQUEST.values()))
    if row.value is None or row.size <= smallest:
        return 0
    for name, most in MAX_REQUEST.items():
        if service in {None, name} and row.size > most:
            return most
    seen = view_of(row.value, row.format)
    texts = (seen.text, seen.reasoning, *(c.arguments for c in seen.calls), *(r.text for r in seen.results))
    longest = max(map(len, texts))
    return next((most for name, most in MAX_TEXT.items() if service in {None, name} and longest > most), 0)


def service_of(rows: Iterable[Row]) -> Service | None:
    """Return the service that most messages go to; ``None`` if it may be any."""
    formats = Counter(row.format for row in rows if row.value is not None)
    return SERVICE_OF.get(max(formats, key=formats.__getitem__, default=""))


def with_prevailing_format(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with Anthropic's format for messages that do not show it, if others have its blocks."""
    if not any(row.format == "anthropic" for row in rows):
        return list(rows)
    return [
        row
        if row.format != "chat-completions" or row.value is None or row.shape.parts
        else msgspec.structs.replace(row, format="anthropic", shape=shape_of(row.value, "anthropic"))
        for row in rows
    ]


def _is_strict(payload: bytes) -> bool:
    try:
        NewMessage(payload)
    except InvalidMessageError:
        return False
    return True
