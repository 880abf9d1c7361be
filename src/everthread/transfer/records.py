"""The lines of an exported file. ``docs/how-to/move-threads.md`` describes them.

{"type":"export","version":2}
{"type":"thread","thread_id":"trip","tenant":"","next_seq":2,…}
{"type":"message","seq":0,"turn":0,"created_ms":…,"format":"…","payload":{…}}
{"type":"document","name":"summary","value":{…}}
{"type":"end","messages":1,"documents":1,"blake2b":"…"}
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import MAX_SEQ, Message, NewMessage, Retention, Thread
from everthread.transfer.model import EARLIEST_MS, LATEST_MS

VERSION = 2
"""The version written. In version 1, which is readable too, threads have no retention of their own."""

THREAD_START = b'{"type":"thread"'
MESSAGE_START = b'{"type":"message"'
DOCUMENT_START = b'{"type":"document"'
END_START = b'\n{"type":"end"'
LONGEST_END = 200
"""The most bytes of the last line of a thread."""


class ExportLine(msgspec.Struct, frozen=True, omit_defaults=True, tag="export"):
    """The first line of a file.

    Attributes:
        selection: Names the store, tenant and threads, so that a run continues only its own file.
    """

    version: int
    selection: str = ""


class RetentionLine(msgspec.Struct, frozen=True):
    """A thread's own retention; ``expire_ms`` is a span."""

    max_messages: int | None
    expire_ms: int | None


class ThreadLine(msgspec.Struct, frozen=True, tag="thread"):
    """The first line of a thread. Attributes as in `everthread.Thread`; ``documents`` has revisions by name."""

    thread_id: str
    tenant: str
    head_seq: int
    next_seq: int
    created_ms: int
    updated_ms: int
    expires_ms: int | None
    title: str | None
    metadata: Mapping[str, Any]
    documents: Mapping[str, int]
    retention: RetentionLine | None = None


class MessageLine(msgspec.Struct, frozen=True, omit_defaults=True, tag="message"):
    """A message. Exactly one of the last three has its bytes."""

    seq: int
    turn: int
    created_ms: int | None
    format: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET


class DocumentLine(msgspec.Struct, frozen=True, omit_defaults=True, tag="document"):
    """A document. Exactly one of the last two has its bytes."""

    name: str
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET


class EndLine(msgspec.Struct, frozen=True, tag="end"):
    """The last line of a complete thread: counts, and a digest of the lines before."""

    messages: int
    documents: int
    blake2b: str


Line = ExportLine | ThreadLine | MessageLine | DocumentLine | EndLine

L = TypeVar("L", bound=Line)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encoded(line: Line) -> bytes:
    """Return a line with its end."""
    return _encoder.encode(line) + b"\n"


def decoded(data: bytes, where: str, kind: type[L]) -> L:
    """Return the line of this kind.

    Raises:
        CorruptRecordError: It is another; says where.
    """
    try:
        line = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        line = None
    if not isinstance(line, kind):
        raise CorruptRecordError(f"{where} is not what an export has there ({len(data)} bytes).")
    return line


def thread_line(thread: Thread, documents: Mapping[str, int]) -> ThreadLine:
    """Return the first line of a thread; ``documents`` has revisions by name."""
    own = thread.retention
    return ThreadLine(
        thread.key.thread_id,
        thread.key.tenant,
        thread.head_seq,
        thread.next_seq,
        thread.created_ms,
        thread.updated_ms,
        thread.expires_ms,
        thread.title,
        thread.metadata,
        documents,
        None if own is None else RetentionLine(own.max_messages, own.expire_ms),
    )


def retention_of(line: RetentionLine | None, where: str) -> Retention | None:
    """Return the retention of a line.

    Raises:
        CorruptRecordError: It is not valid; says where.
    """
    if line is None:
        return None
    try:
        return Retention(line.max_messages, None if line.expire_ms is None else timedelta(milliseconds=line.expire_ms))
    except (ConfigurationError, OverflowError):
        raise CorruptRecordError(f"{where}: the retention is not valid.") from None


def message_line(message: Message) -> MessageLine:
    """Return a message as a line. Payloads that are not strict JSON are carried unchanged, as Base64."""
    facts = (message.seq, message.turn, message.created_ms, message.format)
    payload = message.payload
    try:
        NewMessage(payload)
    except ValueError:
        return MessageLine(*facts, base64=payload)
    if _stands_in_a_line(payload):
        return MessageLine(*facts, payload=msgspec.Raw(payload))
    return MessageLine(*facts, text=payload.decode())


def message_of(line: MessageLine, where: str = "") -> Message:
    """Return the message of a line.

    Raises:
        CorruptRecordError: Its position, turn or time is impossible; says where.
    """
    if not 0 <= line.turn <= line.seq <= MAX_SEQ:
        raise CorruptRecordError(f"{where}: no message has the position {line.seq} in the turn {line.turn}.")
    if line.created_ms is not None and not EARLIEST_MS <= line.created_ms <= LATEST_MS:
        raise CorruptRecordError(f"{where}: the time of the message is not in the years 1 to 9999.")
    if isinstance(line.payload, msgspec.Raw):
        payload = bytes(line.payload)
    elif isinstance(line.text, str):
        payload = line.text.encode()
    else:
        payload = line.base64 if isinstance(line.base64, bytes) else b""
    return Message(line.seq, payload, line.format, line.created_ms, line.turn)


def document_line(name: str, value: bytes) -> DocumentLine:
    """Return a document as a line."""
    if _stands_in_a_line(value):
        return DocumentLine(name, value=msgspec.Raw(value))
    return DocumentLine(name, text=value.decode())


def value_of(line: DocumentLine) -> bytes:
    """Return the document of a line."""
    return bytes(line.value) if isinstance(line.value, msgspec.Raw) else str(line.text).encode()


def _stands_in_a_line(value: bytes) -> bool:
    # A decoder drops white space around a value, and line breaks would end the line.
    return b"\n" not in value and b"\r" not in value and value == value.strip()
