"""A thread's documents: an object each, replaced only if it is unchanged.

Their names begin with the number of the thread's first entry, so a new thread of the same ID never sees former ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from everthread.engines._names import NameRange
from everthread.engines._segments.log import Log
from everthread.engines._segments.names import (
    LogPrefix,
    before_plain,
    document_life,
    document_name,
    nonce,
    readable_start,
)
from everthread.engines._segments.records import LAYOUT, DocumentRecord, State, decode_document, encode
from everthread.engines._segments.storage import Storage, after_write
from everthread.errors import ConflictError, StoreUnavailableError
from everthread.model import Document

_MOST_ATTEMPTS = 200
_READS_AT_ONCE = 64


class _Stored(msgspec.Struct, frozen=True):
    document: Document
    nonce: str
    tag: str


async def get(storage: Storage, prefix: LogPrefix, state: State, name: str) -> Document | None:
    """Return a document, or ``None``."""
    stored = await _stored(storage, prefix, document_name(state.born, name))
    return None if stored is None else stored.document


async def put(log: Log, prefix: LogPrefix, state: State, document: Document, expected_revision: int | None) -> Document:
    """Write a document; its revision follows from the stored one.

    Raises:
        ConflictError: The stored revision is not ``expected_revision``.
    """
    written = await _put(log.storage, prefix, document_name(state.born, document.name), document, expected_revision)
    with after_write():
        now = (await log.current(prefix)).state
        if now is None or now.born != state.born:
            # Another process deleted the thread, and the erased data must not come back.
            await delete(log.storage, prefix, state, document.name)
    return written


async def _put(
    storage: Storage, prefix: LogPrefix, object_name: str, document: Document, expected_revision: int | None
) -> Document:
    folder, unique = prefix.documents, nonce()
    stored = await _stored(storage, prefix, object_name)
    for _ in range(_MOST_ATTEMPTS):
        revision = 0 if stored is None else stored.document.revision
        if expected_revision is not None and expected_revision != revision:
            raise ConflictError.at_revision(f"Document {document.name!r}", revision, expected_revision)
        new = msgspec.structs.replace(document, revision=revision + 1)
        record = DocumentRecord(v=LAYOUT, name=new.name, revision=new.revision, updated_ms=new.updated_ms, nonce=unique)
        data = encode(record, [new.value])
        with after_write(has_landed=False):
            if stored is None:
                is_written = await storage.create(folder, object_name, data)
            else:
                is_written = await storage.replace(folder, object_name, data, stored.tag)
            if is_written:
                return new
            stored = await _stored(storage, prefix, object_name)
            if stored is not None and stored.nonce == unique:
                # The answer was lost, and the storage repeated the request.
                await storage.flush(folder, [object_name])
                return stored.document
    raise StoreUnavailableError("Too many concurrent writers of this document: nothing was written. Try again.")


async def delete(storage: Storage, prefix: LogPrefix, state: State, name: str) -> bool:
    """Delete a document; return whether it existed."""
    object_name = document_name(state.born, name)
    if await storage.get(prefix.documents, object_name) is None:
        return False
    with after_write():
        await storage.delete(prefix.documents, [object_name])
    return True


async def names(storage: Storage, prefix: LogPrefix, state: State, wanted: NameRange) -> tuple[str, ...]:
    """Return the names of documents in a range.

    A shortened object name hides the document's: each that begins like the range costs a read.
    """
    if wanted.limit == 0:
        return ()
    life = document_life(state.born)
    found = await _plain_names(storage, prefix, life, wanted)
    beginning = life + readable_start(wanted.prefix)
    async for chunk in _objects(storage, prefix, beginning, beginning):
        shortened = [name for name in chunk if "~" in name]
        for at in range(0, len(shortened), _READS_AT_ONCE):
            batch = shortened[at : at + _READS_AT_ONCE]
            stored = await asyncio.gather(*(_stored(storage, prefix, name) for name in batch))
            found.extend(each.document.name for each in stored if each is not None)
    return wanted.pick(found)


async def _plain_names(storage: Storage, prefix: LogPrefix, life: str, wanted: NameRange) -> list[str]:
    found: list[str] = []
    async for chunk in _objects(storage, prefix, life + before_plain(wanted.start), life):
        plain = [name[len(life) :] for name in chunk if "~" not in name]
        found.extend(wanted.pick(plain))
        is_past = wanted.stop is not None and plain and plain[-1] >= wanted.stop
        if is_past or (wanted.limit is not None and len(found) >= wanted.limit):
            break
    return found


async def _objects(storage: Storage, prefix: LogPrefix, after: str, beginning: str) -> AsyncIterator[list[str]]:
    """Yield names of objects above ``after``, ascending, up to the first that does not begin like this."""
    async for chunk in storage.list(prefix.documents, after=after):
        ours = [listed.name for listed in chunk if listed.name.startswith(beginning)]
        yield ours
        if len(ours) < len(chunk):
            break


async def _stored(storage: Storage, prefix: LogPrefix, object_name: str) -> _Stored | None:
    found = await storage.get(prefix.documents, object_name)
    if found is None:
        return None
    record, value = decode_document(found.data, f"{prefix.documents}/{object_name}")
    return _Stored(Document(record.name, value, record.revision, record.updated_ms), record.nonce, found.tag)
