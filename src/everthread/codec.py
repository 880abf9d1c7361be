"""Payload bytes ↔ Python values, and the formats that say what a payload means.

A payload is some framework's own JSON. A *format* names whose, and gives a `View` of it: role, text,
tool calls and results, media. Search, display and safe cuts work on views; nothing here imports
a framework.

JSON policy: written payloads are strict JSON in UTF-8, so any language can read them. ``NaN``,
``Infinity`` and lone surrogates are refused with `InvalidMessageError` instead of being changed.
Integers of any size are kept. Reading is more liberal: ``NaN`` and escaped lone surrogates that
another program stored are decoded as Python's `json` does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Protocol, cast

import msgspec

from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.model import Message, NewMessage, ThreadKey

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call in a message: its id, the tool's name, and its arguments as JSON text."""

    id: str
    name: str = ""
    arguments: str = ""


class ToolResult(msgspec.Struct, frozen=True):
    """A tool's answer in a message: the call's id and the answer as text."""

    id: str
    text: str = ""


class Media(msgspec.Struct, frozen=True):
    """An image, sound or file in a message: its media type, its bytes if inline, its address if not."""

    media_type: str
    size: int | None = None
    uri: str = ""


class View(msgspec.Struct, frozen=True):
    """What people and tools want to know of a message, whatever its format."""

    role: str = ""
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()
    media: tuple[Media, ...] = ()
    author: str = ""


class Format(Protocol):
    """A module or object that understands one family of payloads.

    It may have ``LINK_MARKS``, a tuple of bytes: a payload that makes or answers tool calls holds one of them, unless
    letters of it are escaped. That spares decoding all others when they are moved.
    """

    def matches(self, value: Mapping[str, object]) -> bool:
        """Whether a decoded payload is of this format."""
        ...

    def view(self, value: Mapping[str, object]) -> View:
        """The view of a decoded payload; fields it does not know are ignored, never an error."""
        ...


_formats: dict[str, str | Format] = {
    "agent-framework": "everthread.formats.agent_framework",
    "chat-completions": "everthread.formats.chat_completions",
    "openai-responses": "everthread.formats.openai_responses",
    "langchain": "everthread.formats.langchain",
}


def register_format(name: str, format: Format) -> None:
    """Adds a format, or replaces the one of that name."""
    _formats[name] = format


def encode(value: object) -> bytes:
    """A value as strict JSON in UTF-8.

    Raises:
        InvalidMessageError: ``NaN``, an infinity, a lone surrogate, or a type that JSON lacks.
    """
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError:
        raise InvalidMessageError("The message holds a lone surrogate, which has no UTF-8 form.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessageError(f"The message has no JSON form: {error}") from None
    # msgspec writes null for NaN and the infinities, so only then the value must be searched.
    if b"null" in data and _holds_non_finite(value):
        raise InvalidMessageError("The message holds NaN or an infinity, which JSON lacks: use null or text.")
    return data


def decode(payload: bytes | Message, key: ThreadKey | None = None) -> object:
    """The value that a payload holds.

    Args:
        payload: The bytes, or the stored message.
        key: Named in the error, if the caller knows it.

    Raises:
        CorruptRecordError: It is not JSON; says which record.
    """
    data = payload.payload if isinstance(payload, Message) else payload
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_liberally(data, payload, key)


def new_message(
    value: Mapping[str, object] | bytes, *, format: str | None = None, created_at: datetime | None = None
) -> NewMessage:
    """A message to append, from a framework's JSON (encoded or not), with its tool calls found.

    Args:
        value: A JSON object, or the bytes of one.
        format: Whose JSON it is; recognised by its content if not given.

    Raises:
        InvalidMessageError: It cannot be stored losslessly.
    """
    if isinstance(value, bytes):
        if format is not None and _has_no_links(value, format):
            return NewMessage(value, format, created_at=created_at)
        payload, decoded = value, _decode_new(value)
    else:
        payload, decoded = encode(value), value
    name = format or recognise(decoded)
    seen = view_of(decoded, name)
    return NewMessage(
        payload,
        name,
        tuple(call.id for call in seen.calls),
        tuple(result.id for result in seen.results),
        created_at,
    )


def recognise(value: object) -> str:
    """The name of the format of a decoded payload; ``"json"`` if none claims it."""
    known = as_object(value)
    return next((name for name in _formats if known and _format(name).matches(known)), "json")


def view_of(value: object, format: str | None = None) -> View:
    """The view of a decoded payload. An unknown format gives the view of the one that it looks like."""
    known = as_object(value)
    if not known:
        return View(text=value if isinstance(value, str) else "")
    name = format if format in _formats else recognise(known)
    if name not in _formats:
        return View()
    return _format(name).view(known)


def view(message: Message, key: ThreadKey | None = None) -> View:
    """The view of a stored message.

    Raises:
        CorruptRecordError: Its payload is not JSON.
    """
    return view_of(decode(message, key), message.format)


def as_object(value: object) -> Mapping[str, object]:
    """The JSON object, or an empty one for anything else: for formats, which ignore what they do not know."""
    if type(value) is dict:
        return cast(dict[str, object], value)
    return cast(Mapping[str, object], value) if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[object]:
    """The JSON array, or an empty one for anything else."""
    return cast(list[object], value) if isinstance(value, list) else []


def title_from(views: Iterable[View], *, longest: int = 80) -> str | None:
    """A title for a thread: the first line of the first user message, shortened."""
    for seen in views:
        if seen.role == "user" and seen.text.strip():
            return shorten(seen.text, longest)
    return None


def shorten(text: str, longest: int) -> str:
    """One line of at most ``longest`` characters, with white space folded."""
    line = " ".join(text[: longest * 8].split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _has_no_links(payload: bytes, format: str) -> bool:
    """Whether it is certain, without decoding, that no tool call is made or answered."""
    marks = cast(tuple[bytes, ...], getattr(_format(format), "LINK_MARKS", ())) if format in _formats else ()
    return bool(marks) and b"\\u" not in payload and not any(mark in payload for mark in marks)


def _decode_new(payload: bytes) -> object:
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Refuses what is not JSON, and says why.
        NewMessage(payload)
    try:
        return decode(payload)
    except CorruptRecordError:
        raise InvalidMessageError("The message holds an integer of more digits than Python reads.") from None


def _format(name: str) -> Format:
    entry = _formats[name]
    if isinstance(entry, str):
        try:
            entry = cast(Format, import_module(entry))
        except ImportError as error:
            raise ConfigurationError(f"The format {name!r} cannot be loaded: {error}") from error
        _formats[name] = entry
    return entry


def _decode_liberally(data: bytes, record: bytes | Message, key: ThreadKey | None) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        where = f" at position {record.seq}" if isinstance(record, Message) else ""
        of = f" of {key}" if key is not None else ""
        reason = type(error).__name__
        raise CorruptRecordError(f"The record{where}{of} is not JSON ({reason}, {len(data)} bytes).") from None


def _holds_non_finite(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_holds_non_finite(item) for item in cast(Mapping[object, object], value).values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_holds_non_finite(item) for item in cast(Iterable[object], value))
    if value is None or isinstance(value, (str, bytes, int)):
        return False
    # A dataclass or struct: its fields as plain values.
    plain = msgspec.to_builtins(value)
    return type(plain) is not type(value) and _holds_non_finite(plain)
