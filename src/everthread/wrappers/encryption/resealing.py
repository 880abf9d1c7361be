"""Seal the records of one thread anew, while readers and writers work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from everthread._validation import SEALED
from everthread.capabilities import SupportsRewrite, required_capability
from everthread.contract import Store
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    EncryptionKeyError,
    EverthreadError,
    ThreadNotFoundError,
)
from everthread.messages.codec import encode
from everthread.model import Rewrite, Thread, ThreadKey
from everthread.wrappers.encryption.sealing import DataKey, Seal, as_json, as_title, from_json, from_title, is_current

RESEALED_PAGE = 100
_MOST_ATTEMPTS = 20


class Opened(Protocol):
    """Open a token. Return ``plain`` if there is none and plain records are accepted."""

    async def __call__(self, seal: Seal, token: str | None, plain: bytes, where: str = "") -> bytes: ...


class Resealed(msgspec.Struct, frozen=True):
    """The result for one thread.

    Attributes:
        records: The number of records (messages, documents, title and metadata as one) that were sealed anew.
        left: The number of records that other writers changed too often to be sealed anew.
        errors: One error for each unreadable record.
    """

    records: int = 0
    left: int = 0
    errors: tuple[EverthreadError, ...] = ()


class Resealing:
    """Seal one thread with one key.

    Replaces a record only if it did not change since it was read, and skips records that the key has sealed. The run
    ends even if other writers append: it seals messages up to the position that was the next one at its start.
    """

    def __init__(self, inner: Store, key: ThreadKey, data_key: DataKey, opened: Opened, *, dry_run: bool) -> None:
        self._inner = inner
        self._key = key
        self._data_key = data_key
        self._opened = opened
        self._dry_run = dry_run
        self._done = self._left = 0
        self._errors: list[EverthreadError] = []

    async def run(self) -> Resealed:
        """Seal all records. A damaged record does not stop the others."""
        # The description first: an engine that rewrites messages into new objects then erases the former one too.
        for part in (partial(self._repeated, self._description), self._messages, self._documents):
            try:
                await part()
            except (CorruptRecordError, EncryptionKeyError) as error:
                self._errors.append(error)
        return Resealed(self._done, self._left, tuple(self._errors))

    async def _documents(self) -> None:
        for name in await self._inner.list_documents(self._key):
            await self._repeated(partial(self._document, Seal(self._key, "document", name)))

    async def _messages(self) -> None:
        thread = await self._inner.get_thread(self._key)
        start, stop = 0, 0 if thread is None else thread.next_seq
        while page := await self._inner.read(self._key, start=start, stop=stop, limit=RESEALED_PAGE):
            changes: list[Rewrite] = []
            for message in page:
                seal = Seal(self._key, "message", format=message.format)
                where = f" at position {message.seq}"
                token = await self._resealed(seal, from_json(message.payload), message.payload, where)
                if token is not None:
                    changes.append(Rewrite(message.seq, message.payload, as_json(token)))
            self._done += await self._rewritten(changes)
            start = page[-1].seq + 1

    async def _rewritten(self, changes: list[Rewrite]) -> int:
        if self._dry_run or not changes:
            return len(changes)
        return await required_capability(self._inner, SupportsRewrite).rewrite(self._key, changes)

    async def _repeated(self, part: Callable[[], Awaitable[bool]]) -> None:
        """Seal a part, again if another writer changed it; it returns whether that was necessary."""
        for _ in range(_MOST_ATTEMPTS):
            try:
                self._done += await part()
                return
            except ConflictError:
                continue
            except ThreadNotFoundError:
                return
        self._left += 1

    async def _description(self) -> bool:
        thread = await self._inner.get_thread(self._key)
        title, metadata = await self._resealed_description(thread)
        if thread is None or (title is None and metadata is None):
            return False
        if not self._dry_run:
            await self._inner.update_thread(
                self._key, title=title, metadata=metadata, expected_revision=thread.revision
            )
        return True

    async def _resealed_description(self, thread: Thread | None) -> tuple[str | None, Mapping[str, object] | None]:
        if thread is None:
            return None, None
        title = metadata = None
        if thread.title is not None:
            seal, plain = Seal(thread.key, "title"), thread.title.encode()
            title = await self._resealed(seal, from_title(thread.title), plain)
        if thread.metadata:
            seal, plain = Seal(thread.key, "metadata"), encode(dict(thread.metadata))
            metadata = await self._resealed(seal, metadata_token(thread.metadata), plain)
        return None if title is None else as_title(title), None if metadata is None else {SEALED: metadata}

    async def _document(self, seal: Seal) -> bool:
        document = await self._inner.get_document(self._key, seal.name)
        token = None if document is None else await self._resealed(seal, from_json(document.value), document.value)
        if document is None or token is None:
            return False
        if not self._dry_run:
            await self._inner.put_document(self._key, seal.name, as_json(token), expected_revision=document.revision)
        return True

    async def _resealed(self, seal: Seal, token: str | None, plain: bytes, where: str = "") -> str | None:
        """Return the token under the current key; ``None`` if it has that key already or does not open."""
        if token is not None and is_current(token, self._data_key.id):
            return None
        try:
            return seal.close(self._data_key, await self._opened(seal, token, plain, where))
        except (CorruptRecordError, EncryptionKeyError) as error:
            self._errors.append(error)
            return None


def metadata_token(metadata: Mapping[str, object]) -> str | None:
    """Return the token in sealed metadata; ``None`` for plain metadata."""
    token = metadata.get(SEALED) if len(metadata) == 1 else None
    return token if isinstance(token, str) else None
