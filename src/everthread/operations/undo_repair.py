"""Undo a repair: restore the records in its backup."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from everthread._validation import is_sealed
from everthread.capabilities import SupportsRewrite, SupportsSealing, capability, required_capability
from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError, EncryptionKeyError, EverthreadError
from everthread.messages.rules.rows import row_of_payload
from everthread.model import Rewrite, ThreadKey
from everthread.operations._backup import read_backup
from everthread.operations._targets import Change
from everthread.operations.repair import Outcome


async def undo_repair(store: Store, backup: Path, *, dry_run: bool = False) -> AsyncIterator[Outcome]:
    """Restore the messages of a backup, except for records that are not strict JSON: those stay in the backup.

    A thread with a message that was changed since its repair stays unchanged, and fails with a reason. The backup of a
    repair that stopped may end with a thread that was not repaired, perhaps cut off: it is left out. A dry run changes
    nothing, and yields threads to restore as ``"found"``.

    Raises:
        ConfigurationError: The file is not a backup of a store of everthread.
    """
    for entry in read_backup(backup):
        if entry.source:
            raise ConfigurationError(f"This backup is of a store of another program ({entry.source}): give --as.")
        key = ThreadKey(entry.thread, entry.tenant)
        try:
            outcome = await _undo(store, key, [await _opened(store, key, each) for each in entry.changes], dry_run)
        except EverthreadError as error:
            outcome = Outcome(entry.thread, (), "failed", str(error))
        yield msgspec.structs.replace(outcome, key=key)


async def _opened(store: Store, key: ThreadKey, change: Change) -> Change:
    if not is_sealed(change.old or b""):
        return change
    sealing = capability(store, SupportsSealing)
    if sealing is None:
        raise EncryptionKeyError("The backup is of an encrypted store: give its keys.")
    old, new = [await sealing.unseal(key, payload or b"") for payload in (change.old, change.new)]
    return msgspec.structs.replace(change, old=old, new=new)


async def _undo(store: Store, key: ThreadKey, changes: Sequence[Change], dry_run: bool) -> Outcome:
    now = await _payloads(store, key, changes)
    restorable = [change for change in changes if row_of_payload(change.old or b"").is_strict_object]
    left = len(changes) - len(restorable)
    if any(now.get(change.row) not in {change.old, change.new} for change in changes):
        raise ConflictError(f"{key} was changed since the repair: it stays unchanged.", 0)
    rewrites = [
        Rewrite(int(change.row or 0), change.new or b"", change.old or b"")
        for change in restorable
        if now.get(change.row) == change.new != change.old
    ]
    if dry_run:
        return Outcome(key.thread_id, (), "found", f"{len(rewrites):,} messages would be restored")
    if rewrites:
        done = await required_capability(store, SupportsRewrite).rewrite(key, rewrites)
        if done < len(rewrites):
            raise ConflictError(f"Another program changes {key}: try again.", 0)
    if left:
        return Outcome(key.thread_id, (), "partial", f"{left} records that are not strict JSON stay in the backup")
    return Outcome(key.thread_id, (), "undone", "" if rewrites else "its messages are unchanged")


async def _payloads(store: Store, key: ThreadKey, changes: Sequence[Change]) -> dict[int | str | None, bytes]:
    found: dict[int | str | None, bytes] = {}
    for change in changes:
        if change.row not in found:
            page = await store.read(key, start=int(change.row or 0), limit=100)
            found |= {message.seq: message.payload for message in page}
    return found
