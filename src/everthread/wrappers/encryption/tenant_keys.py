"""The tenants' keys: random, sealed with a master key, and stored as documents.

A tenant's keys are a small document in a reserved tenant, so no listing shows them and all processes share them.
Writers compare revisions, so that two processes that use a new tenant at the same time agree on one key.

The list is sealed as a whole, with its order and a generation number: an attacker with write access to the store can
neither reorder the keys nor restore a single one. An older list as a whole opens in a process that saw no newer one:
detecting it would need a number outside the store.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import os
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import cast
from weakref import WeakKeyDictionary

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from everthread._validation import KEYS_TENANT
from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, EncryptionKeyError
from everthread.model import ThreadKey
from everthread.wrappers.encryption.master_keys import KeySource, MasterKey
from everthread.wrappers.encryption.sealing import KEY_BYTES, NONCE_BYTES, DataKey, forget_ciphers

_DOCUMENT = "keys"
_DEFAULT_PATIENCE = 60.0
"""The ``refresh_after`` of a process that did not say so in the list: what `Keyring` has by default."""


class _SealedKey(msgspec.Struct, frozen=True):
    """A key in a list of the first version, which sealed each key separately."""

    id: str
    made: int
    master: str
    sealed: str


class _SealedList(msgspec.Struct, frozen=True):
    v: int
    generation: int
    master: str
    sealed: str


class _KeyList(msgspec.Struct, frozen=True):
    """The sealed content of a list: the keys, the current one last.

    Attributes:
        patience: The longest ``refresh_after`` of the processes that seal with these keys.
    """

    keys: tuple[DataKey, ...]
    patience: float


class _Known(msgspec.Struct, frozen=True):
    """A tenant's keys in memory, the current one last.

    Attributes:
        generation: Rises with each write of the list; 0 for one of the first version.
        masters: The master keys that sealed it.
    """

    revision: int
    read_at: float
    keys: tuple[DataKey, ...]
    patience: float
    generation: int
    masters: frozenset[str]

    @property
    def current(self) -> DataKey:
        return self.keys[-1]


class TenantKeys:
    """Find, make, change and destroy tenants' keys; see `Keyring` and `Encrypted` for the arguments."""

    def __init__(
        self,
        source: KeySource,
        store: Store,
        refresh_after: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._store = store
        self._refresh_after = refresh_after
        self._clock = clock
        self._wall = wall
        self._known: dict[str, _Known] = {}
        # The highest generation of each tenant's list that this process has seen; it outlives the keys.
        self._seen: dict[str, int] = {}
        # A lock belongs to one event loop, but a store that failed to open may be opened in another one.
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @property
    def _looking(self) -> asyncio.Lock:
        # Fair, so that calls that wait for a key continue in the order of their arrival.
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    async def current(self, tenant: str) -> DataKey:
        """Return the key to seal with. Make one if the tenant has none."""
        async with self._looking:
            known = self._fresh(tenant) or await self._load(tenant) or await self._add(tenant, None)
            while known.patience < self._refresh_after:
                # Other processes must know this one's `refresh_after`.
                known = await self._saved(tenant, known, known.keys)
            return known.current

    async def preview(self, tenant: str) -> DataKey:
        """Return the key to seal with, without writing: a random one that sealed nothing if the tenant has none."""
        async with self._looking:
            known = self._fresh(tenant) or await self._load(tenant)
            return self._made() if known is None else known.current

    def at_hand(self, tenant: str, key_id: str) -> DataKey | None:
        """Return the key of an id if it is in memory and fresh."""
        return _of_id(self._fresh(tenant), key_id)

    async def find(self, tenant: str, key_id: str) -> DataKey:
        """Return the key of an id.

        Raises:
            EncryptionKeyError: There is none, or its master key is missing or wrong.
        """
        async with self._looking:
            found = _of_id(self._fresh(tenant), key_id) or _of_id(await self._load(tenant), key_id)
            if found is not None:
                return found
        raise EncryptionKeyError(
            f"The key {key_id!r} of tenant {tenant!r} is not among its keys: it was destroyed, or is kept elsewhere."
        )

    async def has(self, tenant: str, key_id: str) -> bool:
        """Read the list and return whether a key is still in it."""
        async with self._looking:
            return _of_id(await self._load(tenant), key_id) is not None

    async def rotate(self, tenant: str) -> DataKey:
        """Make a new key the current one. The older ones still open the records that they sealed."""
        async with self._looking:
            return (await self._add(tenant, await self._load(tenant))).current

    async def is_first_form(self, tenant: str) -> bool:
        """Return whether the list of the tenant's keys is of the first version, not authenticated as a whole."""
        async with self._looking:
            known = await self._load(tenant)
            return known is not None and known.generation == 0

    async def reseal(self, tenant: str) -> bool:
        """Seal the tenant's keys with the current master key. Return whether that was necessary."""
        async with self._looking:
            known = await self._load(tenant)
            if known is None or (known.generation and known.masters == frozenset({(await self._master(None)).id})):
                return False
            await self._save(tenant, known, known.keys)
            return True

    async def may_forget_before(self, tenant: str, key_id: str) -> bool:
        """Return whether there are keys older than this one and no process seals with them any more.

        A process reads the list again after its ``refresh_after``. The list contains the longest of these times.
        """
        async with self._looking:
            return self._may_forget_before(await self._load(tenant), key_id)

    async def forget_before(self, tenant: str, key_id: str) -> bool:
        """Delete the keys that are older than this one; return whether it did. Their records become unreadable.

        Call it only if a pass over all threads, begun after `may_forget_before` was true, found no record of theirs.
        """
        async with self._looking:
            known = await self._load(tenant)
            if known is None or not self._may_forget_before(known, key_id):
                return False
            await self._save(tenant, known, known.keys[_place_of(known, key_id) :])
            return True

    def _may_forget_before(self, known: _Known | None, key_id: str) -> bool:
        if known is None or (at := _place_of(known, key_id)) == 0:
            return False
        return self._wall() - known.keys[at].made >= 2 * max(known.patience, self._refresh_after)

    async def master_id(self) -> str:
        """Return the id of the master key that seals.

        Raises:
            EncryptionKeyError: The source returns none.
        """
        return (await self._master(None)).id

    async def destroy(self, tenant: str) -> bool:
        """Destroy all keys of a tenant; return whether it had any. Its records become unreadable."""
        async with self._looking:
            self._known.pop(tenant, None)
            forget_ciphers()
            return await self._store.delete_thread(_place(tenant))

    def _fresh(self, tenant: str) -> _Known | None:
        known = self._known.get(tenant)
        return known if known is not None and self._clock() - known.read_at < self._refresh_after else None

    async def _load(self, tenant: str) -> _Known | None:
        document = await self._store.get_document(_place(tenant), _DOCUMENT)
        if document is None:
            self._known.pop(tenant, None)
            return None
        try:
            stored = msgspec.json.decode(document.value, type=_SealedList | list[_SealedKey])
        except msgspec.MsgspecError:
            raise CorruptRecordError(f"The keys of tenant {tenant!r} cannot be decoded.") from None
        generation = stored.generation if isinstance(stored, _SealedList) else 0
        if generation < self._seen.get(tenant, 0):
            raise EncryptionKeyError(
                f"The keys of tenant {tenant!r} are older than those that this process has seen: somebody put "
                "them back. If you restored a backup of the keys, restart this process."
            )
        if isinstance(stored, _SealedList):
            opened = await self._opened_list(tenant, stored)
            return self._remember(tenant, opened, document.revision, generation, {stored.master})
        keys = tuple([await self._opened(tenant, key) for key in stored])
        opened = _KeyList(keys, _DEFAULT_PATIENCE)
        return self._remember(tenant, opened, document.revision, 0, {key.master for key in stored})

    async def _add(self, tenant: str, known: _Known | None) -> _Known:
        return await self._saved(tenant, known, (*(known.keys if known is not None else ()), self._made()))

    def _made(self) -> DataKey:
        return DataKey(os.urandom(6).hex(), os.urandom(KEY_BYTES), int(self._wall()))

    async def _saved(self, tenant: str, known: _Known | None, keys: tuple[DataKey, ...]) -> _Known:
        try:
            return await self._save(tenant, known, keys)
        except ConflictError:
            # Another process was first: use its key.
            loaded = await self._load(tenant)
            return loaded if loaded is not None else await self._add(tenant, None)

    async def _save(self, tenant: str, known: _Known | None, keys: tuple[DataKey, ...]) -> _Known:
        master = await self._master(None)
        generation, patience = (0, 0.0) if known is None else (known.generation, known.patience)
        new = _KeyList(keys, max(patience, self._refresh_after))
        # At least the time, so that a new list is newer than the one that was destroyed.
        generation = max(generation + 1, self._seen.get(tenant, 0) + 1, int(self._wall() * 1000))
        value = msgspec.json.encode(_sealed(tenant, new, generation, master))
        revision = 0 if known is None else known.revision
        document = await self._store.put_document(_place(tenant), _DOCUMENT, value, expected_revision=revision)
        return self._remember(tenant, new, document.revision, generation, {master.id})

    def _remember(self, tenant: str, keys: _KeyList, revision: int, generation: int, masters: set[str]) -> _Known:
        known = _Known(revision, self._clock(), keys.keys, keys.patience, generation, frozenset(masters))
        self._known[tenant] = known
        self._seen[tenant] = max(self._seen.get(tenant, 0), generation)
        return known

    async def _opened_list(self, tenant: str, stored: _SealedList) -> _KeyList:
        master = await self._master(stored.master)
        belongs = _belongs_to_list(tenant, stored.generation, master.id)
        found = msgspec.json.decode(_decrypted(tenant, master, stored.sealed, belongs), type=_KeyList)
        if not found.keys:
            raise CorruptRecordError(f"The keys of tenant {tenant!r} cannot be decoded.")
        return found

    async def _opened(self, tenant: str, sealed: _SealedKey) -> DataKey:
        master = await self._master(sealed.master)
        secret = _decrypted(tenant, master, sealed.sealed, _belongs(tenant, sealed.id, master.id))
        return DataKey(sealed.id, secret, sealed.made)

    async def _master(self, key_id: str | None) -> MasterKey:
        try:
            found = self._source(key_id)
            master = cast(object, await found if isawaitable(found) else found)
        except (ConfigurationError, EncryptionKeyError):
            raise
        except Exception as error:
            # Without its words: a vault's error may quote more than is wanted in a log.
            raise EncryptionKeyError(f"The source of master keys failed: {type(error).__name__}.") from None
        if isinstance(master, MasterKey) and key_id in (None, master.id):
            return master
        which = "to seal with" if key_id is None else repr(key_id)
        raise EncryptionKeyError(f"The source of master keys gives no key {which}: is it the right source?")


def _of_id(known: _Known | None, key_id: str) -> DataKey | None:
    return next((key for key in known.keys if key.id == key_id), None) if known is not None else None


def _place_of(known: _Known, key_id: str) -> int:
    return next((at for at, key in enumerate(known.keys) if key.id == key_id), 0)


def _sealed(tenant: str, keys: _KeyList, generation: int, master: MasterKey) -> _SealedList:
    nonce = os.urandom(NONCE_BYTES)
    belongs = _belongs_to_list(tenant, generation, master.id)
    data = nonce + AESGCM(master.secret).encrypt(nonce, msgspec.json.encode(keys), belongs)
    return _SealedList(2, generation, master.id, binascii.b2a_base64(data, newline=False).decode())


def _decrypted(tenant: str, master: MasterKey, sealed: str, belongs: bytes) -> bytes:
    try:
        data = binascii.a2b_base64(sealed)
        return AESGCM(master.secret).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], belongs)
    except (InvalidTag, binascii.Error, ValueError):
        raise EncryptionKeyError(
            f"The master key {master.id!r} does not open the keys of tenant {tenant!r}: it is not the one that "
            "sealed them, or they were changed."
        ) from None


def _belongs(tenant: str, key_id: str, master_id: str) -> bytes:
    return msgspec.json.encode(("everthread tenant key", tenant, key_id, master_id))


def _belongs_to_list(tenant: str, generation: int, master_id: str) -> bytes:
    return msgspec.json.encode(("everthread tenant keys", 2, tenant, generation, master_id))


def _place(tenant: str) -> ThreadKey:
    # A digest, since a tenant's name may be empty or as long as a thread's id may be.
    return ThreadKey(hashlib.sha256(tenant.encode()).hexdigest(), KEYS_TENANT)
