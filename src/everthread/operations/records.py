"""JSON values of any size up to 64 MiB stored with a thread, for adapters: session state, snapshots, checkpoints.

A record is a document of the thread. A value that is too large for a document is divided into parts, documents of
their own. The parts are written before the record and have a random name, so a reader gets one whole value, and a
concurrent or killed writer leaves the former one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import msgspec

from everthread.contract import Store
from everthread.errors import ConflictError, CorruptRecordError, LimitExceededError, StoreUnavailableError
from everthread.messages import codec
from everthread.model import Document, NewMessage, ThreadKey

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Largest value of a record."""

PART_PREFIX = "everthread:part:"
"""The beginning of the names of documents that hold parts of a record."""

# A document has at most 1 MiB. Encryption adds a third; a character has at most 4 bytes, and in a text of JSON the
# characters that need an escape have one byte.
_INLINE_BYTES = 512 * 1024
_PART_CHARACTERS = 128 * 1024
_PARTS_AT_ONCE = 16
_MOST_ATTEMPTS = 50


class _Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document of a record: the value, or the name and number of its parts."""

    value: msgspec.Raw = msgspec.Raw()
    parts: str = ""
    count: int = 0


async def get_record(store: Store, key: ThreadKey, name: str) -> bytes | None:
    """Return the value of a record, byte for byte but without spaces around it, or ``None``.

    Raises:
        CorruptRecordError: A part is missing, or the document is no record.
    """
    return (await _read(store, key, name))[1]


async def put_record(store: Store, key: ThreadKey, name: str, value: bytes) -> bool:
    """Store a record, and create its thread if needed; the last of concurrent writers wins. This is not activity.

    A failed or killed call leaves the former value, and may leave parts of a large new one until the thread is deleted.
    It is safe to repeat.

    Args:
        store: The store.
        key: The thread.
        name: A document name of the thread.
        value: JSON as UTF-8.

    Returns:
        Whether there was no such record.

    Raises:
        InvalidMessageError: The value is not JSON in UTF-8.
        LimitExceededError: It is larger than `MAX_RECORD_BYTES`.
    """
    data = await _encoded(store, key, name, value)
    for _ in range(_MOST_ATTEMPTS):
        former = await store.get_document(key, name)
        if await _replaced(store, key, name, former, data):
            return former is None
    raise _too_many(key, name)


async def change_record(store: Store, key: ThreadKey, name: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace a record by a function of its value; concurrent changes are made one after the other.

    ``change`` gets the value, or ``None`` if there is none, and may be called several times. The rest is as with
    `put_record`.

    Raises:
        CorruptRecordError: The stored record cannot be read.
        InvalidMessageError: The new value is not JSON in UTF-8.
        LimitExceededError: It is larger than `MAX_RECORD_BYTES`.
    """
    for _ in range(_MOST_ATTEMPTS):
        former, value = await _read(store, key, name)
        changed = change(value)
        if changed == value or await _replaced(store, key, name, former, await _encoded(store, key, name, changed)):
            return
    raise _too_many(key, name)


async def delete_record(store: Store, key: ThreadKey, name: str) -> bool:
    """Delete a record; return whether it existed."""
    former = await store.get_document(key, name)
    if former is None:
        return False
    was_there = await store.delete_document(key, name)
    await _delete_parts(store, key, former)
    return was_there


async def _read(store: Store, key: ThreadKey, name: str) -> tuple[Document | None, bytes | None]:
    document = await store.get_document(key, name)
    for _ in range(_MOST_ATTEMPTS):
        if document is None:
            return None, None
        head = _head(document, key)
        if not head.parts:
            return document, bytes(head.value)
        value = await _joined(store, key, head)
        if value is not None:
            return document, value
        # Another writer replaced the record and deleted these parts.
        newest = await store.get_document(key, name)
        if newest is not None and newest.value == document.value:
            raise CorruptRecordError(f"The record {name!r} of {key} lacks parts: delete it.")
        document = newest
    raise _too_many(key, name)


async def _encoded(store: Store, key: ThreadKey, name: str, value: bytes) -> bytes:
    """Return the document of a record, after its parts were written."""
    if len(value) > MAX_RECORD_BYTES:
        raise LimitExceededError(
            f"The record {name!r} of {key} has {len(value):,} bytes; at most {MAX_RECORD_BYTES:,} are allowed.",
            len(value),
            MAX_RECORD_BYTES,
        )
    NewMessage(value)  # refuses bytes that are not JSON
    value = value.strip()
    head = _Head(msgspec.Raw(value)) if len(value) <= _INLINE_BYTES else await _divided(store, key, value)
    return msgspec.json.encode(head)


async def _replaced(store: Store, key: ThreadKey, name: str, former: Document | None, data: bytes) -> bool:
    try:
        await store.put_document(key, name, data, expected_revision=former.revision if former else 0)
    except ConflictError:
        return False
    if former is not None:
        await _delete_parts(store, key, former)
    return True


def _too_many(key: ThreadKey, name: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"Too many concurrent writers of the record {name!r} of {key}. Try again.")


async def _divided(store: Store, key: ThreadKey, value: bytes) -> _Head:
    text, parts = value.decode(), uuid4().hex
    pieces = [text[at : at + _PART_CHARACTERS] for at in range(0, len(text), _PART_CHARACTERS)]
    for first in range(0, len(pieces), _PARTS_AT_ONCE):
        batch = enumerate(pieces[first : first + _PARTS_AT_ONCE], first)
        await asyncio.gather(
            *(store.put_document(key, _part(parts, at), msgspec.json.encode(piece)) for at, piece in batch)
        )
    return _Head(parts=parts, count=len(pieces))


async def _joined(store: Store, key: ThreadKey, head: _Head) -> bytes | None:
    pieces: list[str] = []
    for first in range(0, head.count, _PARTS_AT_ONCE):
        batch = range(first, min(first + _PARTS_AT_ONCE, head.count))
        found = await asyncio.gather(*(store.get_document(key, _part(head.parts, at)) for at in batch))
        for document in found:
            if document is None:
                return None
            pieces.append(codec.as_text(codec.decode(document.value)))
    return "".join(pieces).encode()


async def _delete_parts(store: Store, key: ThreadKey, document: Document) -> None:
    try:
        head = _head(document, key)
    except CorruptRecordError:
        return
    for first in range(0, head.count, _PARTS_AT_ONCE):
        batch = range(first, min(first + _PARTS_AT_ONCE, head.count))
        await asyncio.gather(*(store.delete_document(key, _part(head.parts, at)) for at in batch))


def _part(parts: str, at: int) -> str:
    return f"{PART_PREFIX}{parts}:{at}"


def _head(document: Document, key: ThreadKey) -> _Head:
    try:
        head = msgspec.json.decode(document.value, type=_Head)
    except msgspec.DecodeError:
        head = _Head()
    is_valid = bool(head.value) if not head.parts else 0 < head.count <= MAX_RECORD_BYTES // _PART_CHARACTERS + 1
    if not is_valid:
        raise CorruptRecordError(f"The document {document.name!r} of {key} is no record of this release: delete it.")
    return head
