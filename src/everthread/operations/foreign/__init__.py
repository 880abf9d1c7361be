"""Inspect and repair threads where another program stored them.

For example:

    async with foreign_store("openai-agents", "sessions.db") as store:
        async for outcome in repair_foreign(store):
            print(outcome.thread, outcome.problems)

Nothing is copied, and only affected records change. `repair_foreign` writes them to a backup first; `undo_foreign`
restores them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

from everthread import foreign_kinds
from everthread.errors import ConfigurationError, ConflictError, EverthreadError, StoreUnavailableError
from everthread.operations._backup import Entry, changes_fit, read_backup
from everthread.operations._planning import plan
from everthread.operations._targets import Target, applied, reversed_changes
from everthread.operations.foreign.recognizing import recognized_kind as recognized_kind
from everthread.operations.foreign.store import ForeignStore
from everthread.operations.repair import GRACE, LONGEST, Outcome, treat
from everthread.transfer.model import Skipped

KINDS = {kind.name: kind.description for kind in foreign_kinds.KINDS if kind.examined}
"""The kinds of stores, and a description of each."""


def foreign_store(
    kind: str,
    place: str,
    *,
    prefix: str | None = None,
    is_stopped: bool = False,
    clock: Callable[[], float] = time.time,
) -> ForeignStore:
    """Return a store of another program.

    Args:
        kind: One of `KINDS`.
        place: A URL of Redis or PostgreSQL, or a path.
        prefix: The beginning of the keys in Redis, or of the tables' names. Default: that program's default.
        is_stopped: The program is not running, so calls without a result are lost. Otherwise those of the last turn may
            still get one for an hour, or for any time where the store keeps no times.
        clock: Returns seconds since 1970.

    Raises:
        ConfigurationError: The kind is unknown, or an extra that it needs is missing.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"Unknown kind of store: {kind!r}. Use one of: {', '.join(KINDS)}.")

    def is_running(changed_ms: int | None) -> bool:
        age_ms = None if changed_ms is None else clock() * 1000 - changed_ms
        return not is_stopped and (age_ms is None or age_ms <= GRACE / timedelta(milliseconds=1))

    if scheme_in(place) in POSTGRES and kind in {"openai-agents", "agent-framework-postgres"}:
        from everthread.operations.foreign.postgres_rows import PostgresRows

        return PostgresRows(kind, place, prefix, is_running)
    if scheme_in(place) in POSTGRES and kind == "langgraph":
        from everthread.operations.foreign.langgraph import DatabaseCheckpoints

        return DatabaseCheckpoints(place, is_running)
    if kind == "openai-agents":
        from everthread.operations.foreign.sqlite_sessions import SqliteSessions

        return SqliteSessions(Path(place), is_running)
    if kind == "langgraph":
        from everthread.operations.foreign.langgraph import Checkpoints

        return Checkpoints(Path(place), is_running)
    if kind == "agent-framework-files":
        from everthread.operations.foreign.history_files import HistoryFiles

        return HistoryFiles(Path(place), is_running)
    from everthread.operations.foreign import redis_lists

    return redis_lists.RedisListStore(kind, place, prefix, is_running)


POSTGRES = frozenset({"postgres", "postgresql"})
"""The schemes of a database's URL."""


def scheme_in(place: str) -> str:
    """Return the scheme of a URL in lower case; empty for a path."""
    scheme, separator, _ = place.partition("://")
    return scheme.lower() if separator else ""


async def repair_foreign(store: ForeignStore, *, backup: Path | None = None) -> AsyncIterator[Outcome]:
    """Repair the threads of a store, and yield the result for each with problems.

    A thread that another program changes at the same time fails with a reason, and can be tried again. A run that stops
    at any moment leaves each thread unchanged or repaired.

    Args:
        store: The store.
        backup: The file that receives each thread's changes before its repair. It may exist. ``None``: change nothing.
    """
    async for target in store.targets():
        if isinstance(target, Skipped):
            yield Outcome(target.place, (), "failed", target.reason)
            continue
        try:
            outcome = await _treat(store, target, backup)
        except StoreUnavailableError:
            raise
        except EverthreadError as error:
            outcome = Outcome(target.name, (), "failed", str(error))
        if outcome is not None:
            yield outcome


async def _treat(store: ForeignStore, target: Target, backup: Path | None) -> Outcome | None:
    if len(target.payloads) > LONGEST:
        return Outcome(target.name, (), "failed", f"it has more than {LONGEST:,} messages")
    _, changes = plan(target)
    after = applied(target.payloads, changes)
    entry = Entry(store.kind, target.name, "", [], target.digest(target.payloads), target.digest(after), len(after))
    return await treat(target, backup, entry)


async def undo_foreign(store: ForeignStore, backup: Path, *, dry_run: bool = False) -> AsyncIterator[Outcome]:
    """Restore the records of a backup. A thread that was changed since its repair stays, and fails with a reason.

    Messages that were added at the end since then stay. A dry run changes nothing, and yields threads to restore as
    ``"found"``.

    Raises:
        ConfigurationError: The file is not a backup of a store of this kind.
    """
    for entry in read_backup(backup):
        if entry.source != store.kind:
            of = f"of {entry.source}" if entry.source else "of a store of everthread"
            raise ConfigurationError(f"This backup is {of}, not of {store.kind}.")
        try:
            yield await _undo(store, entry, dry_run=dry_run)
        except StoreUnavailableError:
            raise
        except EverthreadError as error:
            yield Outcome(entry.thread, (), "failed", str(error))


async def _undo(store: ForeignStore, entry: Entry, *, dry_run: bool) -> Outcome:
    target = await store.target(entry.thread)
    if target is None:
        raise ConflictError(f"There is no thread {entry.thread!r} any more.", 0)
    payloads = target.payloads
    former = entry.count - sum((each.new is not None) - (each.old is not None) for each in entry.changes)
    is_same = len(payloads) >= entry.count and target.digest(payloads[: entry.count]) == entry.after
    if not is_same or not changes_fit(entry.changes, former):
        if target.digest(payloads[:former]) == entry.before:
            # The repair stopped before it changed the thread, or an undo did so after it.
            return Outcome(entry.thread, (), "undone", "its messages are unchanged")
        raise ConflictError(f"The thread {entry.thread!r} was changed since the repair: it stays unchanged.", 0)
    changes = reversed_changes(entry.changes)
    if dry_run:
        return Outcome(entry.thread, (), "found", f"{len(changes):,} messages would be restored")
    if target.refusal:
        raise ConflictError(target.refusal, 0)
    await target.apply(changes)
    return Outcome(entry.thread, (), "undone")
