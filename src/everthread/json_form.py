"""The JSON form of threads and messages, which commands print with ``--json`` and the thread API returns.

A field that may be absent has ``UNSET`` as its default.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from everthread.messages.codec import View
from everthread.model import Message, Retention, SearchHit, Thread, ThreadKey, from_milliseconds
from everthread.readable import Unreadable

ThreadId = Annotated[str, Meta(description="ID of the thread.")]
Messages = Annotated[int, Meta(description="Number of messages.")]
Size = Annotated[int, Meta(description="Bytes of the messages.")]
Position = Annotated[int | None, Meta(description="Position of the message; null for the whole thread.")]

_encoder = msgspec.json.Encoder()


class Object(msgspec.Struct, kw_only=True):
    """The base of the objects."""

    schema: Annotated[int, Meta(description="Version of this object. Later fields do not change it.")] = 1


class Limits(msgspec.Struct):
    """A retention."""

    max_messages: Annotated[int | None, Meta(description="Newest messages to keep; null: all.")]
    expire_after: Annotated[float | None, Meta(description="Seconds without activity after which a thread expires.")]


class StoredThread(Object):
    """A thread, without its messages."""

    thread_id: ThreadId
    tenant: Annotated[str, Meta(description="Tenant that owns it; empty for the default tenant.")]
    title: Annotated[str | None, Meta(description="Its title, if it has one.")]
    messages: Messages
    size: Size
    head_seq: Annotated[int, Meta(description="Position of its oldest message.")]
    next_seq: Annotated[int, Meta(description="Position that its next message will get.")]
    created: Annotated[datetime, Meta(description="Time of its creation.")]
    last_activity: Annotated[datetime, Meta(description="Time of its last append or undo.")]
    expires: Annotated[datetime | None, Meta(description="Time at which it expires.")]
    retention: Annotated[Limits | None, Meta(description="Its own retention; null: the store's retention applies.")]
    metadata: Annotated[dict[str, Any], Meta(description="Its metadata.")]
    damage: Annotated[str | UnsetType, Meta(description="Part that cannot be read. Absent if there is none.")] = UNSET


class ShownCall(msgspec.Struct):
    """A tool call."""

    id: Annotated[str, Meta(description="Its ID.")]
    name: Annotated[str, Meta(description="Name of the tool.")]
    arguments: Annotated[str, Meta(description="Its arguments as JSON text.")]


class ShownResult(msgspec.Struct):
    """A result of a tool call."""

    id: Annotated[str, Meta(description="ID of the call.")]
    text: Annotated[str, Meta(description="The answer as text.")]


class ShownMedia(msgspec.Struct):
    """An image, sound or file, without its bytes."""

    media_type: Annotated[str, Meta(description="Its media type.")]
    size: Annotated[int | None, Meta(description="Its bytes, if they are in the message.")]
    uri: Annotated[str, Meta(description="Its address, if they are not.")]


class ShownMessage(Object):
    """A message in the same form for all formats."""

    thread_id: ThreadId
    seq: Annotated[int, Meta(description="Its position.")]
    turn: Annotated[int, Meta(description="Position of the first message of its turn.")]
    format: Annotated[str, Meta(description="Name of the payload's format.")]
    created: Annotated[datetime | None, Meta(description="Time at which it was stored, if known.")]
    role: Annotated[str, Meta(description="Its role: user, assistant, tool, system.")]
    author: Annotated[str, Meta(description="Name of its author, if it has one.")]
    text: Annotated[str, Meta(description="Its text.")]
    reasoning: Annotated[str, Meta(description="The model's reasoning before its answer.")]
    calls: Annotated[tuple[ShownCall, ...], Meta(description="Tool calls.")]
    results: Annotated[tuple[ShownResult, ...], Meta(description="Results of tool calls.")]
    media: Annotated[tuple[ShownMedia, ...], Meta(description="Images, sounds and files.")]
    ended: Annotated[str, Meta(description="cancelled or failed, in the last message of a run that ended so.")] = ""
    unreadable: Annotated[str | UnsetType, Meta(description="Why its record cannot be decoded.")] = UNSET


class RawMessage(Object):
    """A message as it is stored."""

    thread_id: ThreadId
    seq: Annotated[int, Meta(description="Its position.")]
    turn: Annotated[int, Meta(description="Position of the first message of its turn.")]
    format: Annotated[str, Meta(description="Name of the payload's format.")]
    created: Annotated[datetime | None, Meta(description="Time at which it was stored, if known.")]
    payload: Annotated[msgspec.Raw | UnsetType, Meta(description="The stored JSON.")] = UNSET
    undecodable: Annotated[str | UnsetType, Meta(description="In its place, other bytes in Base64.")] = UNSET


class FoundMessage(Object):
    """A message that contains the words."""

    thread_id: ThreadId
    seq: Annotated[int, Meta(description="Its position.")]
    role: Annotated[str, Meta(description="Its role.")]
    created: Annotated[str | None, Meta(description="Time at which it was stored, in ISO 8601, if known.")]
    text: Annotated[str, Meta(description="The text around the first match.")]


class UnreadableRecord(Object):
    """A record that cannot be read, and so was not searched or returned."""

    thread_id: ThreadId
    seq: Position
    unreadable: Annotated[str, Meta(description="Reason.")]


def limits(retention: Retention | None) -> Limits | None:
    """Return a retention as an object."""
    if retention is None:
        return None
    expire = retention.expire_after
    return Limits(max_messages=retention.max_messages, expire_after=None if expire is None else expire.total_seconds())


def fields_of(thread: Thread) -> dict[str, Any]:
    """Return the fields of a `StoredThread`."""
    return {
        "thread_id": thread.key.thread_id,
        "tenant": thread.key.tenant,
        "title": thread.title,
        "messages": thread.count,
        "size": thread.size,
        "head_seq": thread.head_seq,
        "next_seq": thread.next_seq,
        "created": thread.created_at,
        "last_activity": thread.updated_at,
        "expires": thread.expires_at,
        "retention": limits(thread.retention),
        "metadata": dict(thread.metadata),
        "damage": thread.damage or UNSET,
    }


def stored_thread(thread: Thread) -> StoredThread:
    """Return a thread as an object."""
    return StoredThread(**fields_of(thread))


def shown_message(message: Message, key: ThreadKey, seen: View | None) -> ShownMessage:
    """Return a message with its view as an object. One that cannot be read has no view."""
    stored = {"thread_id": key.thread_id, "seq": message.seq, "turn": message.turn, "format": message.format}
    stored |= {"created": message.created_at} | ({"unreadable": "The record is not JSON."} if seen is None else {})
    values: dict[str, object] = msgspec.to_builtins(seen or View())
    return msgspec.convert(values | stored, ShownMessage)


def raw_message(message: Message, key: ThreadKey, *, is_json: bool) -> RawMessage:
    """Return a message with its payload as an object that fits one line."""
    # Between JSON's tokens a line break means no more than a space; within them there is none.
    payload = msgspec.Raw(message.payload.replace(b"\n", b" ").replace(b"\r", b" "))
    return RawMessage(
        thread_id=key.thread_id,
        seq=message.seq,
        turn=message.turn,
        format=message.format,
        created=message.created_at,
        payload=payload if is_json else UNSET,
        undecodable=UNSET if is_json else base64.b64encode(message.payload).decode(),
    )


def found_message(hit: SearchHit) -> FoundMessage:
    """Return a search hit as an object."""
    when = None if hit.created_ms is None else from_milliseconds(hit.created_ms).isoformat(timespec="seconds")
    return FoundMessage(thread_id=hit.key.thread_id, seq=hit.seq, role=hit.role, created=when, text=hit.snippet)


def unreadable_record(record: Unreadable) -> UnreadableRecord:
    """Return a record that cannot be read as an object."""
    return UnreadableRecord(thread_id=record.key.thread_id, seq=record.seq, unreadable=record.reason)


def encoded(value: object) -> bytes:
    """Return objects as JSON in UTF-8, on one line. Lone surrogates, which UTF-8 lacks, are escaped."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # Another program's records may hold them.
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()
