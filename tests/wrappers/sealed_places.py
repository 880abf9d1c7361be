"""Encrypted stores for the conformance kit."""

from __future__ import annotations

import msgspec

from everthread.contract import Store
from everthread.readable import read_all_around
from everthread.testing import CorruptibleHarness
from everthread.wrappers import ABILITIES, ForwardingStore
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import KeySource, MasterKey
from tests.wrappers.harnesses import WrappedHarness


def source_of(*keys: MasterKey) -> KeySource:
    """The first seals."""
    return lambda key_id: keys[0] if key_id is None else next((key for key in keys if key.id == key_id), None)


MASTER = MasterKey("m1", bytes(range(32)))
KEYRING = Keyring(source_of(MASTER))


class PlainSizes(ForwardingStore):
    """Tells a thread's size as the sum of what comes back: an encrypted store tells that of what is kept, which is
    the only thing in which it may differ.
    """

    carries = ABILITIES

    async def get_thread(self, key):
        thread = await super().get_thread(key)
        return thread and await self._resized(thread)

    async def update_thread(self, key, **changes):
        return await self._resized(await super().update_thread(key, **changes))

    async def restore_times(self, key, **times):
        return await self._resized(await super().restore_times(key, **times))

    async def list_threads(self, tenant="", **options):
        page = await super().list_threads(tenant, **options)
        return msgspec.structs.replace(page, items=tuple([await self._resized(thread) for thread in page]))

    async def _resized(self, thread):
        if thread.count == 0:
            return thread
        size = sum([len(message.payload) async for message in read_all_around(self._inner, thread.key)])
        return msgspec.structs.replace(thread, size=size)


class EncryptedHarness(WrappedHarness):
    def open(self, **options) -> Store:
        limit = {"max_message_bytes": options.pop("max_message_bytes")} if "max_message_bytes" in options else {}
        return PlainSizes(Encrypted(self.place(**options), KEYRING, **limit))

    def another(self):
        return type(self)(self._fresh_place, self._wrap)


class CorruptibleEncryptedHarness(EncryptedHarness, CorruptibleHarness):
    """Around the memory engine, whose records a test can reach."""

    async def corrupt(self, key, seq, payload) -> None:
        threads = self.place()._threads
        messages = threads[key].messages
        at = next(i for i, message in enumerate(messages) if message.seq == seq)
        messages[at] = msgspec.structs.replace(messages[at], payload=payload)

    async def corrupt_metadata(self, key) -> None:
        self.place()._threads[key].metadata = b'{"not": "sealed"}'
