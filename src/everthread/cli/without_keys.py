"""The guard around a store that a command opens without keys: it writes no plain text into an encrypted store.

Readers with keys would reject a title or message in plain text, and it would reveal what encryption hides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, Unpack, cast

from everthread._validation import KEYS_TENANT, SEALED, is_sealed
from everthread.cli.keyrings import VARIABLE
from everthread.cli.plain import readable_location, say
from everthread.contract import Store
from everthread.errors import EncryptionKeyError
from everthread.messages.codec import encode
from everthread.model import Appended, Document, MessagePage, NewMessage, Page, Rewrite, SearchHit, Thread, ThreadKey
from everthread.wrappers import ABILITIES, AppendOptions, ForwardingStore, ThreadChanges

T = TypeVar("T")

_ADVICE = f"Name its keys with {VARIABLE}=file:PATH or env:NAME."


class WithoutKeys(ForwardingStore):
    """A store that may be encrypted. The first write of plain text checks whether it is.

    After encrypted data was read, closing the store prints a remark on standard error.
    """

    carries = ABILITIES

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._is_encrypted: bool | None = None
        self._has_seen_sealed = False
        self._lock = asyncio.Lock()

    async def aclose(self) -> None:
        await super().aclose()
        if self._has_seen_sealed:
            say(f"{readable_location(self.location)} is encrypted. {_ADVICE}", err=True)

    async def append(
        self, key: ThreadKey, messages: Sequence[NewMessage], **options: Unpack[AppendOptions]
    ) -> Appended:
        await self._check([message.payload for message in messages], title=options.get("default_title"))
        return await super().append(key, messages, **options)

    async def update_thread(self, key: ThreadKey, **changes: Unpack[ThreadChanges]) -> Thread:
        metadata = changes.get("metadata")
        await self._check([] if metadata is None else [encode(dict(metadata))], title=changes.get("title"))
        return await super().update_thread(key, **changes)

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        await self._check([value])
        return await super().put_document(key, name, value, expected_revision=expected_revision)

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        await self._check([change.new for change in changes])
        return await super().rewrite(key, changes)

    async def search(self, tenant: str, text: str, *, limit: int = 20, cursor: str | None = None) -> Page[SearchHit]:
        found = await super().search(tenant, text, limit=limit, cursor=cursor)
        if not found.items and await self._holds_keys():
            self._has_seen_sealed = True
        return found

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        result = await proceed()
        self._has_seen_sealed |= _is_sealed(result)
        return result

    async def _holds_keys(self) -> bool:
        # One call at a time, so that appends keep the order of their calls.
        async with self._lock:
            if self._is_encrypted is None:
                self._is_encrypted = len(await self._inner.list_threads(KEYS_TENANT, limit=1)) > 0
            return self._is_encrypted

    async def _check(self, values: Sequence[bytes], *, title: str | None = None) -> None:
        is_plain = title is not None and not title.startswith(SEALED)
        if not is_plain and all(map(is_sealed, values)):
            return
        if await self._holds_keys():
            raise EncryptionKeyError(f"This store is encrypted, and cannot be written to without its keys. {_ADVICE}")


def _is_sealed(result: object) -> bool:
    match result:
        case MessagePage():
            return any(is_sealed(message.payload) for message in result)
        case Page():
            return any(map(_is_sealed, cast(Page[object], result)))
        case Thread():
            return (result.title or "").startswith(SEALED)
        case _:
            return False
