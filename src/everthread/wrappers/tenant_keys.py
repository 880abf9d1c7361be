"""The tenants' keys: made at random, sealed with a master key, and kept as documents in a store.

A tenant's keys are a small document in a tenant of their own, so they are in no listing and shared by all processes;
writers compare revisions, so that two processes that meet a new tenant at once agree on one key.
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

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from everthread._arguments import KEYS_TENANT
from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, EncryptionKeyError
from everthread.model import ThreadKey
from everthread.wrappers.master_keys import KeySource, MasterKey
from everthread.wrappers.sealing import KEY_BYTES, NONCE_BYTES, DataKey, forget_ciphers

_DOCUMENT = "keys"


class _SealedKey(msgspec.Struct, frozen=True):
    id: str
    made: int
    master: str
    sealed: str


class _Known(msgspec.Struct, frozen=True):
    """A tenant's keys as they were read, the current one last."""

    revision: int
    read_at: float
    keys: tuple[DataKey, ...]
    masters: frozenset[str]

    @property
    def current(self) -> DataKey:
        return self.keys[-1]


class TenantKeys:
    """Finds, makes, changes and destroys tenants' keys.

    Args:
        source: The master keys.
        store: Where the sealed keys are kept; it is not closed here.
        refresh_after: Seconds after which it is looked up again which key is current, or whether it was destroyed.
        clock: Seconds that never go back.
        wall: Seconds since 1970.
    """

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
        # Fair, so that calls which wait for a key go on in the order in which they came.
        self._looking = asyncio.Lock()

    async def current(self, tenant: str) -> DataKey:
        """The key to seal with; made now if the tenant has none."""
        async with self._looking:
            known = self._fresh(tenant) or await self._load(tenant) or await self._add(tenant, None)
            return known.current

    def at_hand(self, tenant: str, key_id: str) -> DataKey | None:
        """The key of an id, if it need not be looked up."""
        return _of_id(self._fresh(tenant), key_id)

    async def find(self, tenant: str, key_id: str) -> DataKey:
        """The key of an id.

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

    async def rotate(self, tenant: str) -> DataKey:
        """Makes a new key the current one; the older ones still open what they sealed."""
        async with self._looking:
            return (await self._add(tenant, await self._load(tenant))).current

    async def reseal(self, tenant: str) -> bool:
        """Seals the tenant's keys with the current master key; says whether they were not."""
        async with self._looking:
            known = await self._load(tenant)
            if known is None or known.masters == frozenset({(await self._master(None)).id}):
                return False
            await self._save(tenant, known.keys, known.revision)
            return True

    async def forget_before(self, tenant: str, key_id: str) -> bool:
        """Forgets the keys that are older than one; says whether there were any.

        Only when nothing that they sealed is left, and not before every process has noticed the newer key: a key that
        is younger than twice ``refresh_after`` lets none be forgotten.
        """
        async with self._looking:
            known = await self._load(tenant)
            at = next((i for i, key in enumerate(known.keys) if key.id == key_id), 0) if known is not None else 0
            if known is None or at == 0 or self._wall() - known.keys[at].made < 2 * self._refresh_after:
                return False
            await self._save(tenant, known.keys[at:], known.revision)
            return True

    async def master_id(self) -> str:
        """The id of the master key that seals.

        Raises:
            EncryptionKeyError: The source gives none.
        """
        return (await self._master(None)).id

    async def destroy(self, tenant: str) -> bool:
        """Forgets all keys of a tenant for good; says whether it had any. What they sealed stays shut."""
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
            sealed = msgspec.json.decode(document.value, type=list[_SealedKey])
        except msgspec.MsgspecError:
            raise CorruptRecordError(f"The keys of tenant {tenant!r} cannot be decoded.") from None
        keys = tuple([await self._opened(tenant, key) for key in sealed])
        return self._remember(tenant, keys, document.revision, {key.master for key in sealed})

    async def _add(self, tenant: str, known: _Known | None) -> _Known:
        new = DataKey(os.urandom(6).hex(), os.urandom(KEY_BYTES), int(self._wall()))
        keys = (*(known.keys if known is not None else ()), new)
        try:
            return await self._save(tenant, keys, 0 if known is None else known.revision)
        except ConflictError:
            # Another process was first: its key is as good.
            loaded = await self._load(tenant)
            return loaded if loaded is not None else await self._add(tenant, None)

    async def _save(self, tenant: str, keys: tuple[DataKey, ...], revision: int) -> _Known:
        master = await self._master(None)
        value = msgspec.json.encode([_sealed(tenant, key, master) for key in keys])
        document = await self._store.put_document(_place(tenant), _DOCUMENT, value, expected_revision=revision)
        return self._remember(tenant, keys, document.revision, {master.id})

    def _remember(self, tenant: str, keys: tuple[DataKey, ...], revision: int, masters: set[str]) -> _Known:
        known = _Known(revision, self._clock(), keys, frozenset(masters))
        self._known[tenant] = known
        return known

    async def _opened(self, tenant: str, sealed: _SealedKey) -> DataKey:
        master = await self._master(sealed.master)
        try:
            data = binascii.a2b_base64(sealed.sealed)
            belongs = _belongs(tenant, sealed.id, master.id)
            secret = AESGCM(master.secret).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], belongs)
        except (InvalidTag, binascii.Error, ValueError):
            raise EncryptionKeyError(
                f"The master key {master.id!r} does not open the keys of tenant {tenant!r}: it is not the one that "
                "sealed them, or they were changed."
            ) from None
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


def _sealed(tenant: str, key: DataKey, master: MasterKey) -> _SealedKey:
    nonce = os.urandom(NONCE_BYTES)
    data = nonce + AESGCM(master.secret).encrypt(nonce, key.secret, _belongs(tenant, key.id, master.id))
    return _SealedKey(key.id, key.made, master.id, binascii.b2a_base64(data, newline=False).decode())


def _belongs(tenant: str, key_id: str, master_id: str) -> bytes:
    return msgspec.json.encode(("everthread tenant key", tenant, key_id, master_id))


def _place(tenant: str) -> ThreadKey:
    # A digest, since a tenant's name may be empty or as long as a thread's id may be.
    return ThreadKey(hashlib.sha256(tenant.encode()).hexdigest(), KEYS_TENANT)
