"""Sealing a whole tenant anew beside its readers and writers: after a key was changed, or to encrypt a store at all.

Each record is replaced only if it still is what was read, and those that the current key sealed are passed over. So a
run may be killed at any moment, and run again, or twice at once.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from everthread.threads import every_thread
from everthread.wrappers.encrypted import Encrypted


class Rewrapped(msgspec.Struct, frozen=True):
    """What a run did.

    Attributes:
        threads: How many threads were looked at; one with activity meanwhile may count twice.
        records: How many records were sealed anew.
        keys_resealed: Whether the tenant's keys had to be sealed with the current master key.
        keys_forgotten: Whether the older keys were forgotten.
    """

    threads: int
    records: int
    keys_resealed: bool = False
    keys_forgotten: bool = False


async def rewrap(
    store: Encrypted,
    tenant: str = "",
    *,
    forget_old: bool = False,
    dry_run: bool = False,
    advance: Callable[[int], None] = lambda threads: None,
) -> Rewrapped:
    """Seals with a tenant's current key whatever is not, and its keys with the current master key.

    Args:
        forget_old: Then forget its older keys, if this run found nothing to do and the current key is no newer than
            twice `Keyring.refresh_after`: until then another process may seal with an old one.
        dry_run: Only count.
        advance: Told of each thread that is done.

    Raises:
        UnsupportedError: The engine cannot rewrite.
        CorruptRecordError: A record does not open, and says which; those before it are done.
    """
    resealed = False if dry_run else await store.keys.reseal(tenant)
    current = await store.keys.current(tenant)
    threads = records = 0
    async for thread in every_thread(store, tenant):
        records += await store.rewrap_thread(thread.key, dry_run=dry_run)
        threads += 1
        advance(1)
    may_forget = forget_old and not dry_run and records == 0
    forgotten = may_forget and await store.keys.forget_before(tenant, current.id)
    return Rewrapped(threads, records, resealed, forgotten)
