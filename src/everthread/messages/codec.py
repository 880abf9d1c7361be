"""Convert payloads to Python values and back, and interpret them by their format.

A payload is the JSON of some framework. A *format* interprets it and returns a `View`: role, text, tool calls and
results, media. Search, display and safe cuts use views. This module imports no framework.

JSON policy: written payloads are strict JSON in UTF-8, so any language can read them. Values that JSON lacks
(``NaN``, lone surrogates, names that are not text, bytes, dates, decimals, sets, objects) are refused with
`InvalidMessageError` instead of being changed; a tuple is an array. Integers of any size are kept. Reading is more
liberal: ``NaN`` and escaped lone surrogates that another program stored are decoded as Python's `json` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Any, Protocol, cast

import msgspec

from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.messages.strict_json import as_strict, check_json, find_unfit, holds_non_finite
from everthread.model import Message, NewMessage, ThreadKey

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call in a message: its id, the tool's name, and its arguments as JSON text."""

    id: str
    name: str = ""
    arguments: str = ""


class ToolResult(msgspec.Struct, frozen=True):
    """A tool's result in a message: the call's id and the answer as text."""

    id: str
    text: str = ""


class Media(msgspec.Struct, frozen=True):
    """An image, sound or file in a message.

    Attributes:
        size: The number of its bytes, if they are inline.
        uri: Its address, if it is not inline.
        data: Its ``data:`` URI, if it is inline.
    """

    media_type: str
    size: int | None = None
    uri: str = ""
    data: str = ""


class View(msgspec.Struct, frozen=True):
    """The content of a message, independent of its format.

    Attributes:
        reasoning: The model's reasoning before its answer, if the service returns it. Not part of ``text``.
        ended: ``cancelled`` or ``failed`` if this is the last message of a run that ended so.
    """

    role: str = ""
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()
    media: tuple[Media, ...] = ()
    author: str = ""
    reasoning: str = ""
    ended: str = ""


LinkIds = tuple[tuple[str, ...], tuple[str, ...]]
"""The IDs of a message's tool calls, and of its tool results."""


class Format(Protocol):
    """A module or object that interprets one family of payloads.

    It may have ``LINK_MARKS``, a tuple of bytes. Every payload with a tool call or result holds one of them, unless
    letters of it are escaped. Payloads without a mark are moved between stores without decoding.

    It may have ``links(value)``, which returns the `LinkIds` of the view without the cost of a view.
    """

    def matches(self, value: Mapping[str, object]) -> bool:
        """Return whether a decoded payload has this format."""
        ...

    def view(self, value: Mapping[str, object]) -> View:
        """Return the view of a decoded payload. Ignores fields of unexpected types.

        If it raises, the payload has an empty view: one malformed message must not stop a whole listing.
        """
        ...


_formats: dict[str, str | Format] = {
    "agent-framework": "everthread.messages.formats.agent_framework",
    # Before those that also have a role and a content.
    "anthropic": "everthread.messages.formats.anthropic",
    "chat-completions": "everthread.messages.formats.chat_completions",
    "openai-responses": "everthread.messages.formats.openai_responses",
    "langchain": "everthread.messages.formats.langchain",
    "pydantic-ai": "everthread.messages.formats.pydantic_ai",
}


def register_format(name: str, format: Format) -> None:
    """Add a format, or replace the one with this name."""
    _formats[name] = format


def encode(value: object) -> bytes:
    """Return a value as strict JSON in UTF-8.

    Raises:
        InvalidMessageError: JSON cannot represent a part of the value, so decoding would return another value. The
            message gives the path and the type of that part, not its content.
    """
    check_json(value)
    return encode_plain(value)


def encode_plain(value: object) -> bytes:
    """Return a value of JSON's own types as strict JSON. Skips most of the checks of `encode`.

    Raises:
        InvalidMessageError: ``NaN``, an infinity, a lone surrogate, or a type that JSON lacks.
    """
    try:
        data = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessageError(
            find_unfit(value) or f"The value has no JSON form ({type(error).__name__})."
        ) from None
    # msgspec writes null for NaN and the infinities, so the value is searched only if there is a null.
    if b"null" in data and holds_non_finite(value):
        raise InvalidMessageError(find_unfit(value))
    return data


def decode(payload: bytes | Message, key: ThreadKey | None = None) -> object:
    """Return the value of a payload.

    Args:
        payload: The bytes, or the stored message.
        key: Named in the error, if the caller knows it.

    Raises:
        CorruptRecordError: The payload is not JSON. The message names the record.
    """
    data = payload.payload if isinstance(payload, Message) else payload
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_liberally(data, payload, key)


def decode_as_text(payload: bytes | Message, key: ThreadKey | None = None) -> object:
    """Return the value of a payload in a form that strict JSON can represent.

    The result differs from that of `decode` only if another program stored the payload: lone surrogates become U+FFFD,
    ``NaN`` and the infinities become null.

    Raises:
        CorruptRecordError: The payload is not JSON. The message names the record.
    """
    data = payload.payload if isinstance(payload, Message) else payload
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return as_strict(_decode_liberally(data, payload, key))


def new_message(
    value: Mapping[str, object] | bytes, *, format: str | None = None, created_at: datetime | None = None
) -> NewMessage:
    """Return a message to append, from a framework's JSON (encoded or not), with the IDs of its tool calls.

    Args:
        value: A JSON object, or the bytes of one.
        format: The name of its format. The default is to recognize it by the content.

    Raises:
        InvalidMessageError: The message cannot be stored without loss.
    """
    if isinstance(value, bytes):
        if format is not None and _has_no_links(value, format):
            return NewMessage(value, format, created_at=created_at)
        payload, decoded = value, _decode_new(value)
    else:
        payload, decoded = encode(value), value
    known = as_object(decoded)
    name = format if format in _formats else recognize(known)
    calls, results = _links_of(known, name) if name in _formats else ((), ())
    return NewMessage.of_valid_json(payload, name if format is None else format, calls, results, created_at)


def recognize(value: object) -> str:
    """Return the name of the format of a decoded payload; ``"json"`` if none claims it."""
    known = as_object(value)
    if not known:
        return "json"
    for name in _formats:
        format = _format(name)
        try:
            if format.matches(known):
                return name
        except Exception:  # noqa: S112 - a payload that makes a format fail does not have that format
            continue
    return "json"


def view_of(value: object, format: str | None = None) -> View:
    """Return the view of a decoded payload. If its format is unknown, recognize it by the content.

    A payload that its format cannot interpret has an empty view.
    """
    known = as_object(value)
    if not known:
        return View(text=value if isinstance(value, str) else "")
    name = format if format in _formats else recognize(known)
    if name not in _formats:
        return View()
    understood = _format(name)
    try:
        return understood.view(known)
    except Exception:
        return View()


def _links_of(known: Mapping[str, object], name: str) -> LinkIds:
    """Return the IDs of the tool calls and results in the view of an object in a known format."""
    links: Callable[[Mapping[str, object]], LinkIds] | None = getattr(_format(name), "links", None)
    if links is None:
        seen = view_of(known, name)
        return tuple(call.id for call in seen.calls), tuple(result.id for result in seen.results)
    try:
        return links(known)
    except Exception:
        # Like `view_of`.
        return (), ()


def view(message: Message, key: ThreadKey | None = None) -> View:
    """Return the view of a stored message.

    Raises:
        CorruptRecordError: The payload is not JSON.
    """
    return view_of(decode(message, key), message.format)


def as_object(value: Any) -> Mapping[str, object]:
    """Return a JSON object, or an empty one for anything else, because formats ignore unknown shapes."""
    # Without `cast`, whose calls take a tenth of the time to encode a message.
    if type(value) is dict or isinstance(value, Mapping):
        return value  # pyright: ignore[reportUnknownVariableType]
    return {}


def as_list(value: Any) -> list[object]:
    """Return a JSON array, or an empty one for anything else."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def as_text(value: object) -> str:
    """Return a JSON text unchanged, a number as text, and an empty text for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def json_text(value: object) -> str:
    """Return a JSON text unchanged, an empty text for null, and any other value as JSON, also if it is not strict."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return encode_plain(value).decode()
    except InvalidMessageError:
        # It holds NaN or lone surrogates. A value that is nested too deeply for both encoders has no text.
        try:
            return json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            return ""


def media_at(uri: str, media_type: str = "") -> Media:
    """Return the media at an address or in a ``data:`` URI. ``media_type`` is for URIs without a type."""
    if not uri.startswith("data:"):
        return Media(media_type, uri=uri)
    header, _, data = uri[5:].partition(",")
    size = len(data) * 3 // 4 - data[-2:].count("=") if header.endswith(";base64") else len(data)
    return Media(header.partition(";")[0] or media_type, size, data=uri)


def title_from(views: Iterable[View], *, longest: int = 80) -> str | None:
    """Return a title for a thread: the shortened first user message."""
    for seen in views:
        if seen.role == "user" and seen.text.strip():
            return shorten(seen.text, longest)
    return None


def shorten(text: str, longest: int) -> str:
    """Return one line of at most ``longest`` characters, with white space folded."""
    line = " ".join(text[: longest * 8].split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _has_no_links(payload: bytes, format: str) -> bool:
    """Return whether a payload certainly has no tool calls and results, without decoding it."""
    marks = cast(tuple[bytes, ...], getattr(_format(format), "LINK_MARKS", ())) if format in _formats else ()
    return bool(marks) and b"\\u" not in payload and not any(mark in payload for mark in marks)


def _decode_new(payload: bytes) -> object:
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Raises an error with the reason if it is not JSON.
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
