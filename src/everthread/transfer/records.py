"""The lines of an exported file, and nothing else: what they are is described in ``docs/moving.md``.

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
from everthread.model import Message, NewMessage, Retention, Thread

VERSION = 2
"""What is written. Of version 1, which is read too, threads have no retention of their own."""
MAX_LINE = 128 * 1024 * 1024
"""Longest line in bytes: a message of 16 MiB as escaped text fits."""

THREAD_START = b'{"type":"thread"'
MESSAGE_START = b'{"type":"message"'
DOCUMENT_START = b'{"type":"document"'
END_START = b'\n{"type":"end"'
LONGEST_END = 200
"""Most bytes of a thread's last line."""


class ExportLine(msgspec.Struct, frozen=True, omit_defaults=True, tag="export"):
    """The first line of a file.

    Attributes:
        selection: Tells whether an unfinished file is of the same store, tenant and threads.
    """

    version: int
    selection: str = ""


class RetentionLine(msgspec.Struct, frozen=True):
    """A thread's own retention; ``expire_ms`` is a span."""

    max_messages: int | None
    expire_ms: int | None


class ThreadLine(msgspec.Struct, frozen=True, tag="thread"):
    """A thread begins. Attributes as of `everthread.Thread`; ``documents`` are their revisions."""

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
    """A message; its bytes are in exactly one of the last three."""

    seq: int
    turn: int
    created_ms: int | None
    format: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET


class DocumentLine(msgspec.Struct, frozen=True, omit_defaults=True, tag="document"):
    """A document; its bytes are in exactly one of the last two."""

    name: str
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET


class EndLine(msgspec.Struct, frozen=True, tag="end"):
    """A thread is complete: how much there was of it, and a digest of its lines before this one."""

    messages: int
    documents: int
    blake2b: str


Line = ExportLine | ThreadLine | MessageLine | DocumentLine | EndLine

L = TypeVar("L", bound=Line)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encoded(line: Line) -> bytes:
    """The line with its end."""
    return _encoder.encode(line) + b"\n"


def decoded(data: bytes, where: str, kind: type[L]) -> L:
    """The line of this kind.

    Raises:
        CorruptRecordError: It is not one; says where.
    """
    try:
        line = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        line = None
    if not isinstance(line, kind):
        raise CorruptRecordError(f"{where} is not what an export has there ({len(data)} bytes).")
    return line


def thread_line(thread: Thread, documents: Mapping[str, int]) -> ThreadLine:
    """What an export says of a thread before its messages.

    Args:
        thread: As the store has it.
        documents: Revisions by name.
    """
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


def retention_of(line: RetentionLine | None) -> Retention | None:
    """The retention that a thread's line holds.

    Raises:
        CorruptRecordError: It is none.
    """
    if line is None:
        return None
    try:
        return Retention(line.max_messages, None if line.expire_ms is None else timedelta(milliseconds=line.expire_ms))
    except (ConfigurationError, OverflowError):
        raise CorruptRecordError("The retention of a thread in this export is none.") from None


def message_line(message: Message) -> MessageLine:
    """A message as a line; payloads of which another program made no JSON are carried as they are."""
    facts = (message.seq, message.turn, message.created_ms, message.format)
    payload = message.payload
    try:
        NewMessage(payload)
    except ValueError:
        return MessageLine(*facts, base64=payload)
    if _stands_in_a_line(payload):
        return MessageLine(*facts, payload=msgspec.Raw(payload))
    return MessageLine(*facts, text=payload.decode())


def message_of(line: MessageLine) -> Message:
    """The message that a line holds."""
    if isinstance(line.payload, msgspec.Raw):
        payload = bytes(line.payload)
    elif isinstance(line.text, str):
        payload = line.text.encode()
    else:
        payload = line.base64 if isinstance(line.base64, bytes) else b""
    return Message(line.seq, payload, line.format, line.created_ms, line.turn)


def document_line(name: str, value: bytes) -> DocumentLine:
    """A document as a line."""
    if _stands_in_a_line(value):
        return DocumentLine(name, value=msgspec.Raw(value))
    return DocumentLine(name, text=value.decode())


def value_of(line: DocumentLine) -> bytes:
    """The document that a line holds."""
    return bytes(line.value) if isinstance(line.value, msgspec.Raw) else str(line.text).encode()


def _stands_in_a_line(value: bytes) -> bool:
    # White space around a value, and line breaks within it, would not come back.
    return b"\n" not in value and b"\r" not in value and value == value.strip()
