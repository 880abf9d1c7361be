"""Seal a whole tenant anew while readers and writers work: after a change of keys, or to encrypt a plain store.

Each record is replaced only if it did not change since it was read, and records under the current key are skipped. So
a run can be killed at any moment and repeated, and two runs can work at the same time.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from everthread.errors import CorruptRecordError, EverthreadError
from everthread.wrappers.encryption.encrypted import Encrypted

_MOST_PASSES = 3


class Rewrapped(msgspec.Struct, frozen=True):
    """The result of a run.

    Attributes:
        threads: The number of threads that were read; one that is listed twice counts twice.
        records: The number of records that were sealed anew.
        keys_resealed: Whether the tenant's keys had to be sealed with the current master key, or as a list.
        keys_in_first_form: Whether the list of the tenant's keys was of the first version, not authenticated as
            a whole; unless this was a dry run, it no longer is.
        keys_forgotten: Whether the older keys were deleted.
        remains: Copies of former records in the store's files, and the reasons; see `Store.erase_remains`.
        left: The number of records that other writers changed too often to be sealed anew: repeat the run.
    """

    threads: int
    records: int
    keys_resealed: bool = False
    keys_forgotten: bool = False
    remains: tuple[str, ...] = ()
    left: int = 0
    keys_in_first_form: bool = False


async def rewrap(
    store: Encrypted,
    tenant: str = "",
    *,
    forget_old: bool = False,
    dry_run: bool = False,
    advance: Callable[[int], None] = lambda threads: None,
) -> Rewrapped:
    """Seal all records of a tenant with its current key, and its keys with the current master key.

    The run ends even if other writers append: it seals the records that it finds.

    Args:
        forget_old: Then delete the older keys. This needs two conditions, in this order: every process writes with the
            current key (twice the longest `Keyring.refresh_after` of the writers has passed), and a pass over all
            threads finds no record under an older key. Otherwise the older keys stay.
        dry_run: Only count.
        advance: Called with 1 after each thread.

    Raises:
        UnsupportedError: The engine cannot rewrite.
        CorruptRecordError: Records or threads cannot be read. The error names the first; all others are sealed.
        EncryptionKeyError: The same, if a key is not among the tenant's.
    """
    was_first_form = await store.keys.is_first_form(tenant)
    resealed = False if dry_run else await store.keys.reseal(tenant)
    current = "" if dry_run else (await store.keys.current(tenant)).id
    threads = records = left = 0
    forgotten = False
    for _ in range(_MOST_PASSES):
        # Asked before the pass over the threads: after that, no process seals with an older key.
        may_forget = forget_old and not dry_run and await store.keys.may_forget_before(tenant, current)
        done = await _pass(store, tenant, dry_run=dry_run, advance=advance)
        threads, records, left = done.threads, records + done.records, done.left
        if not may_forget or left:
            break
        if done.records == 0:
            forgotten = await store.keys.forget_before(tenant, current)
            break
    changed = not dry_run and (records > 0 or resealed or forgotten)
    remains = await store.erase_remains() if changed else ()
    return Rewrapped(threads, records, resealed, forgotten, remains, left, was_first_form)


async def _pass(store: Encrypted, tenant: str, *, dry_run: bool, advance: Callable[[int], None]) -> Rewrapped:
    """Seal every thread once.

    Raises:
        EverthreadError: The first record or thread that could not be read.
    """
    threads = records = left = 0
    errors: list[EverthreadError] = []
    try:
        async for key in store.every_key(tenant):
            done = await store.rewrap_thread(key, dry_run=dry_run)
            threads, records, left = threads + 1, records + done.records, left + done.left
            errors.extend(done.errors[: 1 - len(errors)])
            advance(1)
    except CorruptRecordError as error:
        errors.append(error)
    if errors:
        raise errors[0]
    return Rewrapped(threads, records, left=left)
