"""`Encrypted`: conversations are unreadable for an attacker who has only the store.

Messages, documents, titles and metadata are sealed (`sealing`) with a key of their tenant. That key is itself sealed
with a master key (`master_keys`), which is never in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar, Unpack, cast

import msgspec

from everthread._validation import (
    KEYS_TENANT,
    SEALED,
    check_document,
    checked_changes,
    checked_key,
    checked_metadata,
    checked_title,
    checked_turn,
)
from everthread.capabilities import (
    ScansThreads,
    SupportsCompaction,
    SupportsDiagnosis,
    SupportsImport,
    SupportsReconciling,
    SupportsRewrite,
    SupportsSealing,
    SupportsTenantList,
    capability,
)
from everthread.contract import Store
from everthread.errors import (
    ConfigurationError,
    CorruptRecordError,
    EncryptionKeyError,
    InvalidIdentifierError,
    UnsupportedError,
)
from everthread.listing import every_thread
from everthread.messages.codec import decode
from everthread.model import (
    MAX_SEQ,
    Appended,
    Document,
    HealthCheck,
    Message,
    MessagePage,
    NewMessage,
    Page,
    Rewrite,
    Thread,
    ThreadKey,
    check_count,
    check_identifier,
)
from everthread.wrappers.encryption.master_keys import KeySource
from everthread.wrappers.encryption.resealing import RESEALED_PAGE, Resealed, Resealing, metadata_token
from everthread.wrappers.encryption.sealing import (
    DataKey,
    Seal,
    as_json,
    as_title,
    from_json,
    from_title,
    key_id_of,
)
from everthread.wrappers.encryption.tenant_keys import TenantKeys
from everthread.wrappers.forwarding import AppendOptions, ForwardingStore, ThreadChanges
from everthread.wrappers.redacted import Redacted

MAX_MESSAGE_BYTES = 12_000_000
"""Sealed, a message is a third larger: this much fits the 16 MiB that engines take by default."""

_log = logging.getLogger("everthread")

T = TypeVar("T")


class Keyring(msgspec.Struct, frozen=True):
    """The keys of an `Encrypted` store.

    Attributes:
        source: Returns the master keys: `keys_from_file`, `keys_from_environment`, or a function that asks a vault.
        store: The store of the tenants' sealed keys; by default the encrypted store itself. If it is a separate store
            with separate backups, destroying a key also makes the backups of the data unreadable. Not closed here.
        refresh_after: Seconds within which every process notices that a key was changed or destroyed.
    """

    source: KeySource
    store: Store | None = None
    refresh_after: float = 60.0

    def __post_init__(self) -> None:
        if not callable(self.source):
            raise ConfigurationError("A keyring's source is a function, such as keys_from_file('keys.txt') gives.")


class Encrypted(ForwardingStore, SupportsDiagnosis, SupportsSealing):
    """A store that encrypts all content: AES-256-GCM, with separate keys for each tenant.

        keyring = Keyring(keys_from_file("~/everthread.keys"))
        async with Encrypted(open_store("redis://…"), keyring) as store: ...

    Each record names its key, so keys can change while programs run: new writes use the new key, and
    `rewrapping` seals old records anew. A record opens in its own thread only. These stay readable: ids
    of tenants, threads and tool calls, names of documents, formats, positions, times, counts and sizes.

    ``Thread.size`` counts sealed bytes. There is no search: the engine has no words to find. `rewrite` takes plain
    payloads. A health check reports whether the keys are available. The first append of a tenant also reads its key;
    each later append is one round trip.

    Args:
        inner: The store of the sealed records; this store closes it.
        keyring: The keys.
        accept_plain: Also read records that are not sealed, while a store is being encrypted. Otherwise they raise
            `CorruptRecordError`, since an attacker with write access to the store could have stored them.
        max_message_bytes: A payload that is larger before it is sealed raises `LimitExceededError`.
        clock: Seconds that never go back, for ``refresh_after``.
        wall: Seconds since 1970, for the age of keys.

    Raises:
        ConfigurationError: There is a `Redacted` inside, where it would see ciphertext only.
        EncryptionKeyError: A key is missing, wrong or destroyed. Calls that read or write content raise it.
    """

    carries = frozenset({SupportsTenantList, SupportsCompaction, SupportsImport, SupportsReconciling, SupportsRewrite})

    def __init__(
        self,
        inner: Store,
        keyring: Keyring,
        *,
        accept_plain: bool = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(keyring, Keyring):
            raise ConfigurationError(f"Encrypted takes a Keyring, not {type(keyring).__name__}.")
        check_count(max_message_bytes, "max_message_bytes", least=1)
        super().__init__(inner)
        if self._wraps(Redacted):
            raise ConfigurationError("Put Redacted around Encrypted: inside, it would see ciphertext only.")
        self._accept_plain = accept_plain
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        self._refresh_after = keyring.refresh_after
        kept_in = inner if keyring.store is None else keyring.store
        self.keys = TenantKeys(keyring.source, kept_in, keyring.refresh_after, clock=clock, wall=wall)
        """The tenants' keys, to rotate or destroy."""

    async def shred_tenant(self, tenant: str) -> int:
        """Delete a tenant's threads, then destroy its keys. Return the number of deleted threads.

        Afterwards the tenant's data is unreadable in all its copies, unless a copy of the keys is with them. Other
        processes notice within ``refresh_after``. If the call is interrupted, repeat it: the keys are destroyed last,
        because threads without keys could not be identified any more.
        """
        count = await self.delete_tenant(tenant)
        await self.keys.destroy(self._tenant(tenant))
        # With the master key, a copy of the keys in a log would still open everything.
        await self.erase_remains()
        return count

    async def diagnose(self) -> tuple[HealthCheck, ...]:
        """Return the engine's own checks, and whether the keys are available."""
        engine = capability(self._inner, SupportsDiagnosis)
        facts = () if engine is None else await engine.diagnose()
        try:
            master = await self.keys.master_id()
        except (ConfigurationError, EncryptionKeyError) as error:
            advice = "Without its keys nothing in this store can be read."
            return (*facts, HealthCheck("keys", str(error), "error", advice))
        return (*facts, HealthCheck("keys", f"AES-256-GCM; the master key {master!r} seals the tenants' keys"))

    async def probe(self) -> tuple[HealthCheck, ...]:
        engine = capability(self._inner, SupportsDiagnosis)
        return () if engine is None else await engine.probe()

    async def seal(self, key: ThreadKey, payload: bytes) -> bytes:
        return as_json(Seal(key, "message").close(await self.keys.current(self._key(key).tenant), payload))

    async def unseal(self, key: ThreadKey, payload: bytes) -> bytes:
        return await self._opened(Seal(self._key(key), "message"), from_json(payload), payload)

    def _key(self, key: ThreadKey) -> ThreadKey:
        self._tenant(checked_key(key).tenant)
        return key

    def _tenant(self, tenant: str) -> str:
        if tenant == KEYS_TENANT:
            raise InvalidIdentifierError(f"The tenant {KEYS_TENANT!r} holds the keys of the others: take another name.")
        return tenant

    # Messages

    async def append(
        self, key: ThreadKey, messages: Sequence[NewMessage], **options: Unpack[AppendOptions]
    ) -> Appended:
        turn = checked_turn(self._key(key), messages, self._max_message_bytes)
        title = checked_title(options.get("default_title"))
        data_key, began = await self.keys.current(key.tenant), self._clock()
        sealed = [_sealed_message(key, data_key, message) for message in turn]
        options["default_title"] = None if title is None else _sealed_title(key, data_key, title)
        appended = await super().append(key, sealed, **options)
        if self._clock() - began > self._refresh_after and not await self.keys.has(key.tenant, data_key.id):
            # The key was destroyed during this append, after all visible records were sealed by another key.
            await self._seal_again(key, appended.first_seq, turn, sealed)
        return appended

    async def _seal_again(
        self, key: ThreadKey, first: int, turn: Sequence[NewMessage], sealed: Sequence[NewMessage]
    ) -> None:
        data_key = await self.keys.current(key.tenant)
        changes = [
            Rewrite(seq, former.payload, _sealed_message(key, data_key, message).payload)
            for seq, (message, former) in enumerate(zip(turn, sealed, strict=True), first)
        ]
        await self._inner_that(SupportsRewrite).rewrite(key, changes)

    async def check_append(self, key: ThreadKey, messages: Sequence[NewMessage]) -> None:
        # Without the inner store's limits, which apply to sealed payloads: sealing twice would be too expensive.
        checked_turn(self._key(key), messages, self._max_message_bytes)

    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        return await self._opened_page(key, await super().read(key, start=start, stop=stop, limit=limit))

    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        return await self._opened_page(key, await super().read_last(key, count, before=before))

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        """Replace payloads as `SupportsRewrite` does, with plain payloads. Reads the stored ones first.

        Raises:
            CorruptRecordError: A stored payload does not open.
        """
        self._inner_that(SupportsRewrite)
        wanted = checked_changes(self._key(key), changes, self._max_message_bytes)
        done, written = 0, set[bytes]()
        while sealed := await self._sealed_changes(key, wanted, written):
            count = await super().rewrite(key, sealed)
            done += count
            if count == len(sealed):
                break
            # Others were dropped, changed or sealed with another key since. The last kind still has the old payload.
            written.update(change.new for change in sealed)
        return done

    async def _sealed_changes(self, key: ThreadKey, changes: Sequence[Rewrite], written: set[bytes]) -> list[Rewrite]:
        kept = await self._messages_at(key, [change.seq for change in changes])
        sealed: list[Rewrite] = []
        for change in changes:
            old = kept.get(change.seq)
            if old is None or old.payload in written:
                continue
            if (await self._opened_message(key, old)).payload == change.old:
                token = _message_seal(key, old).close(await self.keys.current(key.tenant), change.new)
                sealed.append(Rewrite(change.seq, old.payload, as_json(token)))
        return sealed

    async def _messages_at(self, key: ThreadKey, seqs: Sequence[int]) -> dict[int, Message]:
        found: dict[int, Message] = {}
        looked_to = -1
        for seq in sorted(seqs):
            if seq > looked_to:
                # The next ones are probably wanted too.
                page = await self._inner.read(key, start=seq, limit=RESEALED_PAGE)
                found |= {message.seq: message for message in page}
                looked_to = page[-1].seq if page else MAX_SEQ
        return found

    # Threads

    async def get_thread(self, key: ThreadKey) -> Thread | None:
        thread = await super().get_thread(key)
        return None if thread is None else await self._opened_thread(thread)

    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        page = await super().list_threads(tenant, limit=limit, cursor=cursor)
        shown: list[Thread] = []
        missing: list[EncryptionKeyError] = []
        for thread in page:
            try:
                shown.append(await self._opened_thread(thread))
            except (CorruptRecordError, EncryptionKeyError) as error:
                # `Thread.damage` has the error; a warning would repeat it.
                _log.info("A thread is listed without title and metadata: %s", error)
                shown.append(msgspec.structs.replace(thread, title=None, metadata={}, damage=str(error)))
                missing += [error] if isinstance(error, EncryptionKeyError) else []
        if missing and len(missing) == len(page):
            raise missing[0]
        return Page(tuple(shown), page.cursor)

    async def update_thread(self, key: ThreadKey, **changes: Unpack[ThreadChanges]) -> Thread:
        self._key(key)
        metadata, title = checked_metadata(changes.get("metadata")), checked_title(changes.get("title"))
        if metadata is not None or title is not None:
            data_key = await self.keys.current(key.tenant)
            changes["title"] = None if title is None else _sealed_title(key, data_key, title)
            sealed = None if metadata is None else Seal(key, "metadata").close(data_key, metadata)
            changes["metadata"] = None if sealed is None else {SEALED: sealed}
        return await self._opened_thread(await super().update_thread(key, **changes))

    async def restore_times(self, key: ThreadKey, *, created_at: datetime, updated_at: datetime) -> Thread:
        return await self._opened_thread(await super().restore_times(key, created_at=created_at, updated_at=updated_at))

    # Documents

    async def get_document(self, key: ThreadKey, name: str) -> Document | None:
        document = await super().get_document(key, name)
        if document is None:
            return None
        value = await self._opened(Seal(key, "document", name), from_json(document.value), document.value)
        return msgspec.structs.replace(document, value=value)

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        check_identifier(name, "document name")
        check_document(value)
        data_key = await self.keys.current(self._key(key).tenant)
        sealed = as_json(Seal(key, "document", name).close(data_key, value))
        document = await super().put_document(key, name, sealed, expected_revision=expected_revision)
        return msgspec.structs.replace(document, value=value)

    # Sealing anew

    async def rewrap_thread(self, key: ThreadKey, *, dry_run: bool = False) -> Resealed:
        """Seal anew all records that are not sealed by the tenant's current key in this release's format.

        With ``accept_plain`` it also seals plain records. It can be interrupted at any moment and repeated, and runs
        while readers and writers work. It skips messages that are appended during the run: their writers seal them.
        Sealing a title, metadata or a document anew raises its revision.

        Args:
            dry_run: Only count.

        Raises:
            UnsupportedError: The engine cannot replace payloads.
        """
        inner = self._inner
        if capability(inner, SupportsRewrite) is None:
            raise UnsupportedError(f"{inner.location} cannot rewrite messages: copy the threads to another store.")
        tenant = self._key(key).tenant
        data_key = await (self.keys.preview(tenant) if dry_run else self.keys.current(tenant))
        return await Resealing(inner, key, data_key, self._opened, dry_run=dry_run).run()

    async def every_key(self, tenant: str = "") -> AsyncIterator[ThreadKey]:
        """Yield the key of every thread of a tenant, some more than once. Decrypts nothing.

        Raises:
            CorruptRecordError: A thread cannot be read, so its records are unknown.
        """
        inner, of = self._inner, self._tenant(tenant)
        scannable = capability(inner, ScansThreads)
        async for thread in every_thread(inner, of) if scannable is None else scannable.scan_threads(of):
            yield thread.key

    # Opening

    async def _opened_page(self, key: ThreadKey, page: MessagePage) -> MessagePage:
        return msgspec.structs.replace(page, messages=tuple([await self._opened_message(key, m) for m in page]))

    async def _opened_message(self, key: ThreadKey, message: Message) -> Message:
        where = f" at position {message.seq}"
        payload = await self._opened(_message_seal(key, message), from_json(message.payload), message.payload, where)
        return msgspec.structs.replace(message, payload=payload)

    async def _opened_thread(self, thread: Thread) -> Thread:
        title, metadata = thread.title, thread.metadata
        if title is not None:
            value = await self._opened(Seal(thread.key, "title"), from_title(title), title.encode())
            title = value.decode()
        if metadata:
            value = await self._opened(Seal(thread.key, "metadata"), metadata_token(metadata), None)
            metadata = metadata if value is None else cast(Mapping[str, object], decode(value, thread.key))
        return msgspec.structs.replace(thread, title=title, metadata=metadata)

    async def _opened(self, seal: Seal, token: str | None, plain: T, where: str = "") -> bytes | T:
        key_id = None if token is None else key_id_of(token)
        if token is None or key_id is None:
            if self._accept_plain and token is None:
                return plain
            reason = (
                "is not encrypted. If the store is only now being encrypted, run: everthread rewrap --accept-plain (in "
                "Python: accept_plain=True)."
                if token is None
                else "is encrypted in a form that this release does not know: upgrade everthread."
            )
            raise CorruptRecordError(f"The {seal.kind}{where} of {seal.key} {reason}")
        tenant = seal.key.tenant
        return seal.open(self.keys.at_hand(tenant, key_id) or await self.keys.find(tenant, key_id), token, where)


def _sealed_title(key: ThreadKey, data_key: DataKey, title: str) -> str:
    return as_title(Seal(key, "title").close(data_key, title.encode()))


def _message_seal(key: ThreadKey, message: Message | NewMessage) -> Seal:
    return Seal(key, "message", format=message.format)


def _sealed_message(key: ThreadKey, data_key: DataKey, message: NewMessage) -> NewMessage:
    token = _message_seal(key, message).close(data_key, message.payload)
    return msgspec.structs.replace(message, payload=as_json(token))
