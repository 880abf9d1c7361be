"""A thread's documents: an object each, replaced only if nobody else has replaced it meanwhile.

Their names begin with the life of the thread that they belong to, so a deleted thread's are out of reach at once.
"""

from __future__ import annotations

import asyncio

import msgspec

from everthread.engines._segments.names import Place, document_life, document_name, nonce
from everthread.engines._segments.records import LAYOUT, DocumentRecord, State, decode_document, encode
from everthread.engines._segments.storage import Storage
from everthread.errors import ConflictError, StoreUnavailableError
from everthread.model import Document

_MOST_ATTEMPTS = 200


class _Stored(msgspec.Struct, frozen=True):
    document: Document
    nonce: str
    tag: str


async def get(storage: Storage, place: Place, state: State, name: str) -> Document | None:
    """A document, or ``None``."""
    stored = await _stored(storage, place, document_name(state.born, name))
    return None if stored is None else stored.document


async def put(
    storage: Storage, place: Place, state: State, document: Document, expected_revision: int | None
) -> Document:
    """Writes a document; its revision is given by what is there.

    Raises:
        ConflictError: The revision there is not ``expected_revision``.
    """
    folder, object_name, unique = place.documents, document_name(state.born, document.name), nonce()
    for _ in range(_MOST_ATTEMPTS):
        stored = await _stored(storage, place, object_name)
        if stored is not None and stored.nonce == unique:
            return stored.document  # written by a request whose answer was lost
        revision = 0 if stored is None else stored.document.revision
        if expected_revision is not None and expected_revision != revision:
            raise ConflictError(f"Document {document.name!r} has revision {revision}.", revision)
        new = msgspec.structs.replace(document, revision=revision + 1)
        record = DocumentRecord(v=LAYOUT, name=new.name, revision=new.revision, updated_ms=new.updated_ms, nonce=unique)
        data = encode(record, [new.value])
        if stored is None:
            written = await storage.create(folder, object_name, data)
        else:
            written = await storage.replace(folder, object_name, data, stored.tag)
        if written:
            return new
    raise StoreUnavailableError("Too many writers are at this document at the same time; nothing was written.")


async def delete(storage: Storage, place: Place, state: State, name: str) -> bool:
    """Forgets a document; says whether there was one."""
    object_name = document_name(state.born, name)
    if await storage.get(place.documents, object_name) is None:
        return False
    await storage.delete(place.documents, [object_name])
    return True


async def names(storage: Storage, place: Place, state: State) -> tuple[str, ...]:
    """The names of a thread's documents, sorted."""
    life = document_life(state.born)
    found: list[str] = []
    async for chunk in storage.list(place.documents, after=life):
        ours = [listed.name for listed in chunk if listed.name.startswith(life)]
        found.extend([name for name in await asyncio.gather(*(_name(storage, place, each) for each in ours)) if name])
        if len(ours) < len(chunk):
            break
    return tuple(sorted(found))


async def _name(storage: Storage, place: Place, object_name: str) -> str:
    _, _, plain = object_name.partition("-")
    # A "~" means that the name was shortened: only the document itself knows it.
    if "~" not in plain:
        return plain
    stored = await _stored(storage, place, object_name)
    return "" if stored is None else stored.document.name


async def _stored(storage: Storage, place: Place, object_name: str) -> _Stored | None:
    found = await storage.get(place.documents, object_name)
    if found is None:
        return None
    record, value = decode_document(found.data, f"{place.documents}/{object_name}")
    return _Stored(Document(record.name, value, record.revision, record.updated_ms), record.nonce, found.tag)
