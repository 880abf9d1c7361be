"""`Encrypted`: what people and agents said is unreadable to whoever has only the store.

Messages, documents, titles and metadata are sealed (`everthread.wrappers.sealing`) with a key of their tenant, which
is itself sealed with a master key (`everthread.wrappers.master_keys`) that never lies in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar, Unpack, cast

import msgspec

from everthread._arguments import (
    KEYS_TENANT,
    SEALED,
    check_document,
    checked_changes,
    checked_key,
    checked_metadata,
    checked_title,
    checked_turn,
)
from everthread.codec import decode, encode
from everthread.contract import (
    Store,
    SupportsCompaction,
    SupportsDiagnosis,
    SupportsImport,
    SupportsReconciling,
    SupportsRewrite,
    SupportsSealing,
    SupportsShredding,
)
from everthread.errors import (
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    EncryptionKeyError,
    InvalidIdentifierError,
    ThreadNotFoundError,
    UnsupportedError,
)
from everthread.model import (
    MAX_SEQ,
    Appended,
    Document,
    Fact,
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
from everthread.wrappers._forwarding import AppendOptions, ForwardingStore, ThreadChanges
from everthread.wrappers.master_keys import KeySource
from everthread.wrappers.redacted import Redacted
from everthread.wrappers.sealing import (
    DataKey,
    Seal,
    as_json,
    as_title,
    from_json,
    from_title,
    key_id_of,
)
from everthread.wrappers.tenant_keys import TenantKeys

MAX_MESSAGE_BYTES = 12_000_000
"""Sealed, a message is a third larger: this much fits the 16 MiB that engines take by default."""

_REWRAP_PAGE = 100

T = TypeVar("T")


class Keyring(msgspec.Struct, frozen=True):
    """Which keys an `Encrypted` store uses.

    Attributes:
        source: Gives the master keys: `keys_from_file`, `keys_from_environment`, or a function that asks a vault.
        store: Where the tenants' sealed keys are kept; the encrypted store itself if not given. In a store of its own,
            which is backed up apart from the data, destroying a key also shuts the data's backups. Not closed here.
        refresh_after: Within so many seconds every process notices that a key was changed or destroyed.
    """

    source: KeySource
    store: Store | None = None
    refresh_after: float = 60.0

    def __post_init__(self) -> None:
        if not callable(self.source):
            raise ConfigurationError("A keyring's source is a function, such as keys_from_file('keys.txt') gives.")


class Encrypted(ForwardingStore, SupportsDiagnosis, SupportsSealing, SupportsShredding):
    """A store that keeps nothing that was said in plain text: AES-256-GCM, with keys of each tenant's own.

        keyring = Keyring(keys_from_file("~/everthread.keys"))
        async with Encrypted(open_store("redis://…"), keyring) as store: ...

    Each record names its key, so keys change while programs run: new writes use the new key, and
    `everthread.wrappers.rewrapping` seals what is old anew. A record opens in its own thread only. Readable stay: ids
    of tenants, threads and tool calls, names of documents, formats, positions, times, counts and sizes.

    ``Thread.size`` counts what is kept, sealed. There is no search: the engine has no words to find. Rewriting takes
    and gives plain payloads. Whoever looks at the store's health learns whether the keys are at hand. A tenant's first
    append asks for its key; after that an append is one round trip as before.

    Args:
        inner: Where it is kept; this store takes it over.
        keyring: The keys.
        accept_plain: Also read records that are not sealed, while a store is being encrypted. Otherwise they are
            `CorruptRecordError`, since anybody who can write to the store could have put them there.
        max_message_bytes: Larger payloads, before they are sealed, are refused with `LimitExceededError`.
        clock: Seconds that never go back, for ``refresh_after``.
        wall: Seconds since 1970, for the age of keys.

    Raises:
        ConfigurationError: There is a `Redacted` inside, where it would see nothing of what was said.
        EncryptionKeyError: In every call that reads or writes content, where a key is missing, wrong or destroyed.
    """

    carries = frozenset({SupportsCompaction, SupportsImport, SupportsReconciling, SupportsRewrite})

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
            raise ConfigurationError("Redacted goes around Encrypted: inside it would see nothing of what was said.")
        self._accept_plain = accept_plain
        self._max_message_bytes = max_message_bytes
        kept_in = inner if keyring.store is None else keyring.store
        self._keys = TenantKeys(keyring.source, kept_in, keyring.refresh_after, clock=clock, wall=wall)

    @property
    def keys(self) -> TenantKeys:
        """The tenants' keys: to rotate or destroy one."""
        return self._keys

    async def shred_tenant(self, tenant: str) -> int:
        """Forgets a tenant's threads, then destroys its keys; says how many there were.

        After it nothing of the tenant can be read any more, wherever copies of it lie, unless copies of its keys lie
        there too. Other processes notice within ``refresh_after``. Being stopped in between leaves nothing that cannot
        be erased by doing it again, which threads without keys would be: nobody could say any more what they were.
        """
        count = await self.delete_tenant(tenant)
        await self._keys.destroy(self._tenant(tenant))
        return count

    async def diagnose(self) -> tuple[Fact, ...]:
        """What the engine tells of itself, and whether the keys are at hand."""
        facts = await super().diagnose() if isinstance(self._inner, SupportsDiagnosis) else ()
        try:
            master = await self._keys.master_id()
        except (ConfigurationError, EncryptionKeyError) as error:
            return (*facts, Fact("keys", str(error), "error", "Without its keys nothing in this store can be read."))
        return (*facts, Fact("keys", f"AES-256-GCM; the master key {master!r} seals the tenants' keys"))

    async def probe(self) -> tuple[Fact, ...]:
        """As `SupportsDiagnosis` says."""
        return await super().probe() if isinstance(self._inner, SupportsDiagnosis) else ()

    async def seal(self, key: ThreadKey, payload: bytes) -> bytes:
        """As `SupportsSealing` says: with the tenant's current key."""
        return as_json(Seal(key, "message").close(await self._keys.current(self._key(key).tenant), payload))

    async def unseal(self, key: ThreadKey, payload: bytes) -> bytes:
        """As `SupportsSealing` says."""
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
        data_key = await self._keys.current(key.tenant)
        seal = Seal(key, "message")
        sealed = [msgspec.structs.replace(m, payload=as_json(seal.close(data_key, m.payload))) for m in turn]
        options["default_title"] = None if title is None else _sealed_title(key, data_key, title)
        return await super().append(key, sealed, **options)

    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        return await self._opened_page(key, await super().read(key, start=start, stop=stop, limit=limit))

    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        return await self._opened_page(key, await super().read_last(key, count, before=before))

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        """As `SupportsRewrite` says, with payloads that are not sealed. Costs a reading of what is there.

        Raises:
            CorruptRecordError: What is there does not open.
        """
        self._inner_that(SupportsRewrite)
        wanted = checked_changes(self._key(key), changes, self._max_message_bytes)
        done, written = 0, set[bytes]()
        while sealed := await self._sealed_changes(key, wanted, written):
            count = await super().rewrite(key, sealed)
            done += count
            if count == len(sealed):
                break
            # Meanwhile some were dropped, changed, or sealed with another key: those still are what was read.
            written.update(change.new for change in sealed)
        return done

    async def _sealed_changes(self, key: ThreadKey, changes: Sequence[Rewrite], written: set[bytes]) -> list[Rewrite]:
        kept = await self._payloads_at(key, [change.seq for change in changes])
        seal, sealed = Seal(key, "message"), list[Rewrite]()
        for change in changes:
            old = kept.get(change.seq)
            if old is None or old in written:
                continue
            if await self._opened(seal, from_json(old), old, f" at position {change.seq}") == change.old:
                token = seal.close(await self._keys.current(key.tenant), change.new)
                sealed.append(Rewrite(change.seq, old, as_json(token)))
        return sealed

    async def _payloads_at(self, key: ThreadKey, seqs: Sequence[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        looked_to = -1
        for seq in sorted(seqs):
            if seq > looked_to:
                # The next ones are probably wanted too.
                page = await self._inner.read(key, start=seq, limit=_REWRAP_PAGE)
                found |= {message.seq: message.payload for message in page}
                looked_to = page[-1].seq if page else MAX_SEQ
        return found

    # Threads

    async def get_thread(self, key: ThreadKey) -> Thread | None:
        thread = await super().get_thread(key)
        return None if thread is None else await self._opened_thread(thread)

    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        page = await super().list_threads(tenant, limit=limit, cursor=cursor)
        return Page(tuple([await self._opened_thread(thread) for thread in page]), page.cursor)

    async def update_thread(self, key: ThreadKey, **changes: Unpack[ThreadChanges]) -> Thread:
        self._key(key)
        metadata, title = checked_metadata(changes.get("metadata")), checked_title(changes.get("title"))
        if metadata is not None or title is not None:
            data_key = await self._keys.current(key.tenant)
            changes["title"] = None if title is None else _sealed_title(key, data_key, title)
            sealed = None if metadata is None else Seal(key, "metadata").close(data_key, metadata)
            changes["metadata"] = None if sealed is None else {SEALED: sealed}
        return await self._opened_thread(await super().update_thread(key, **changes))

    async def restore_times(self, key: ThreadKey, *, created_at: datetime, updated_at: datetime) -> Thread:
        """As `SupportsImport` says."""
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
        data_key = await self._keys.current(self._key(key).tenant)
        sealed = as_json(Seal(key, "document", name).close(data_key, value))
        document = await super().put_document(key, name, sealed, expected_revision=expected_revision)
        return msgspec.structs.replace(document, value=value)

    # Sealing anew

    async def rewrap_thread(self, key: ThreadKey, *, dry_run: bool = False) -> int:
        """Seals with the tenant's current key what another key sealed, and with ``accept_plain`` what none did.

        May be broken off at any moment and begun again, and runs beside readers and writers. Sealing a title,
        metadata or a document anew counts its revision.

        Args:
            dry_run: Only count.

        Returns:
            How many records (messages, documents, title and metadata as one) that were.

        Raises:
            UnsupportedError: The engine cannot put a payload in the place of another.
        """
        inner = self._inner
        if not isinstance(inner, SupportsRewrite):
            raise UnsupportedError(f"{inner.location} cannot rewrite messages: copy the threads to another store.")
        data_key = await self._keys.current(self._key(key).tenant)
        # The description first: an engine that rewrites messages into new objects erases what held the former one too.
        done = await self._rewrap_description(key, data_key, dry_run)
        done += await self._rewrap_messages(inner, key, data_key, dry_run)
        for name in await self._inner.list_documents(key):
            done += await self._rewrap_document(Seal(key, "document", name), data_key, dry_run)
        return done

    async def _rewrap_messages(self, inner: SupportsRewrite, key: ThreadKey, data_key: DataKey, dry_run: bool) -> int:
        seal, done, start = Seal(key, "message"), 0, 0
        while page := await self._inner.read(key, start=start, limit=_REWRAP_PAGE):
            changes: list[Rewrite] = []
            for message in page:
                where = f" at position {message.seq}"
                token = await self._resealed(seal, data_key, from_json(message.payload), message.payload, where)
                if token is not None:
                    changes.append(Rewrite(message.seq, message.payload, as_json(token)))
            done += len(changes) if dry_run else await inner.rewrite(key, changes)
            start = page[-1].seq + 1
        return done

    async def _rewrap_description(self, key: ThreadKey, data_key: DataKey, dry_run: bool) -> int:
        while True:
            thread = await self._inner.get_thread(key)
            title, metadata = await self._resealed_description(thread, data_key)
            if thread is None or (title is None and metadata is None):
                return 0
            try:
                if not dry_run:
                    await self._inner.update_thread(
                        key, title=title, metadata=metadata, expected_revision=thread.revision
                    )
                return 1
            except ConflictError:
                continue
            except ThreadNotFoundError:
                return 0

    async def _resealed_description(
        self, thread: Thread | None, data_key: DataKey
    ) -> tuple[str | None, Mapping[str, object] | None]:
        if thread is None:
            return None, None
        title = metadata = None
        if thread.title is not None:
            seal, plain = Seal(thread.key, "title"), thread.title.encode()
            title = await self._resealed(seal, data_key, from_title(thread.title), plain)
        if thread.metadata:
            seal, plain = Seal(thread.key, "metadata"), encode(dict(thread.metadata))
            metadata = await self._resealed(seal, data_key, _metadata_token(thread.metadata), plain)
        return None if title is None else as_title(title), None if metadata is None else {SEALED: metadata}

    async def _rewrap_document(self, seal: Seal, data_key: DataKey, dry_run: bool) -> int:
        while True:
            document = await self._inner.get_document(seal.key, seal.name)
            if document is None:
                return 0
            token = await self._resealed(seal, data_key, from_json(document.value), document.value)
            if token is None:
                return 0
            try:
                if not dry_run:
                    await self._inner.put_document(
                        seal.key, seal.name, as_json(token), expected_revision=document.revision
                    )
                return 1
            except ConflictError:
                continue

    async def _resealed(
        self, seal: Seal, data_key: DataKey, token: str | None, plain: bytes, where: str = ""
    ) -> str | None:
        """The token by the current key, or ``None`` if it is that already."""
        if token is not None and key_id_of(token) == data_key.id:
            return None
        return seal.close(data_key, await self._opened(seal, token, plain, where))

    # Opening

    async def _opened_page(self, key: ThreadKey, page: MessagePage) -> MessagePage:
        seal = Seal(key, "message")
        return msgspec.structs.replace(page, messages=tuple([await self._opened_message(seal, m) for m in page]))

    async def _opened_message(self, seal: Seal, message: Message) -> Message:
        token = from_json(message.payload)
        payload = await self._opened(seal, token, message.payload, f" at position {message.seq}")
        return msgspec.structs.replace(message, payload=payload)

    async def _opened_thread(self, thread: Thread) -> Thread:
        title, metadata = thread.title, thread.metadata
        if title is not None:
            value = await self._opened(Seal(thread.key, "title"), from_title(title), title.encode())
            title = value.decode()
        if metadata:
            value = await self._opened(Seal(thread.key, "metadata"), _metadata_token(metadata), None)
            metadata = metadata if value is None else cast(Mapping[str, object], decode(value, thread.key))
        return msgspec.structs.replace(thread, title=title, metadata=metadata)

    async def _opened(self, seal: Seal, token: str | None, plain: T, where: str = "") -> bytes | T:
        key_id = None if token is None else key_id_of(token)
        if token is None or key_id is None:
            if self._accept_plain and token is None:
                return plain
            raise CorruptRecordError(
                f"The {seal.kind}{where} of {seal.key} is not sealed by this release. If the store is only now being "
                "encrypted, open it with accept_plain=True, and rewrap it."
            )
        tenant = seal.key.tenant
        return seal.open(self._keys.at_hand(tenant, key_id) or await self._keys.find(tenant, key_id), token, where)


def _sealed_title(key: ThreadKey, data_key: DataKey, title: str) -> str:
    return as_title(Seal(key, "title").close(data_key, title.encode()))


def _metadata_token(metadata: Mapping[str, object]) -> str | None:
    token = metadata.get(SEALED) if len(metadata) == 1 else None
    return token if isinstance(token, str) else None
