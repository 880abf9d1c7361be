"""``everthread doctor --repair`` and ``--undo``: print the problems, ask, repair, and name the backup."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from everthread.cli.json_output import FoundInconsistency, RepairStatus
from everthread.cli.runner import confirm, run

if TYPE_CHECKING:
    from everthread.cli.output import Output
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.model import Inconsistency
    from everthread.operations.repair import Outcome

COLUMNS = ("status", "thread", "position", "problem", "repair", "description", "answer of the service")


def repair(
    place: Place, backup: Path | None, output: Output, *, yes: bool, dry_run: bool, stopped: bool = False
) -> bool:
    """Repair the threads of a tenant; return whether no problem is left."""
    file = new_backup(backup)
    inconsistencies = run(lambda store: _reconcile(store, place, output, repair=False), place.to_read())
    examined = run(lambda store: _repair(store, place, None, output, stopped=stopped), place.to_read())
    sealed = sum(outcome.status == "sealed" for outcome in examined)
    found = [outcome for outcome in examined if outcome.status != "sealed"]
    if sealed:
        output.note(f"{sealed:,} encrypted threads were not examined.")
    repairable = [outcome for outcome in found if outcome.changes]
    if not (examined or inconsistencies) and not output.as_json:
        output.note("No problems were found.")
    if dry_run or not (repairable or inconsistencies):
        return all(outcome.is_well for outcome in found) and not inconsistencies
    confirm(f"Repair this? {file} will hold the present messages of {len(repairable):,} threads.", yes=yes)
    # Threads that no listing shows come first: only then they can be examined.
    run(lambda store: _reconcile(store, place, output, repair=True), place)
    done = run(lambda store: _repair(store, place, file, output, stopped=stopped, known=examined), place)
    if file.exists():
        output.note(f"Backup: {file}. To undo the repair: everthread doctor --undo {file}")
    return all(outcome.is_well for outcome in done)


def new_backup(backup: Path | None) -> Path:
    """Return the file for a backup, which does not exist yet."""
    file = backup or Path(f"everthread-repair-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl")
    if file.exists():
        raise click.UsageError(f"{file} exists: name a new file for the backup.")
    return file


def undo(place: Place, backup: Path, output: Output, *, yes: bool, dry_run: bool) -> bool:
    """Undo a repair; return whether all its threads are restored, or would be."""
    from everthread.operations.undo_repair import undo_repair as restored

    if not dry_run:
        confirm(f"Restore the threads in {backup}?", yes=yes)
    done = run(lambda store: shown(restored(store, backup, dry_run=dry_run), output), place)
    return all(outcome.status in {"undone", "found"} for outcome in done)


async def _reconcile(store: Store, place: Place, output: Output, *, repair: bool) -> tuple[Inconsistency, ...]:
    from everthread.capabilities import SupportsReconciling, capability
    from everthread.errors import UnsupportedError

    reconcilable = capability(store, SupportsReconciling)
    if reconcilable is None:
        return ()
    try:
        found = await reconcilable.reconcile(place.tenant, repair=repair)
    except UnsupportedError as error:
        output.note(str(error))
        return ()
    for each in found:
        value = FoundInconsistency(status="repaired" if each.repaired else "found", problem=each.what, count=each.count)
        output.result(f"{value.status} {each.count:,} {each.what}", value)
    return found


async def _repair(
    store: Store,
    place: Place,
    backup: Path | None,
    output: Output,
    *,
    stopped: bool,
    known: Collection[Outcome] = (),
) -> list[Outcome]:
    from everthread.operations.repair import repair as repaired

    return await shown(repaired(store, place.tenant, backup=backup, is_stopped=stopped), output, known)


async def shown(outcomes: AsyncIterator[Outcome], output: Output, known: Collection[Outcome] = ()) -> list[Outcome]:
    """Print outcomes as they come, without those that are already known, and return them all."""
    found: list[Outcome] = []
    of_threads = {outcome.thread: outcome for outcome in known}
    async for outcome in outcomes:
        found.append(outcome)
        if outcome != of_threads.get(outcome.thread):
            show_outcome(outcome, output)
    return found


def show_outcome(outcome: Outcome, output: Output) -> None:
    """Print the problems of a thread, or its outcome."""
    thread_id, status = outcome.thread, outcome.status
    if status == "sealed":
        return
    rows = [
        (
            (
                status,
                thread_id,
                "" if each.seq is None else str(each.seq),
                each.kind,
                each.repair or "none",
                each.text,
                each.refusal,
            ),
            RepairStatus(
                status=status,
                thread_id=thread_id,
                seq=each.seq,
                problem=each.kind,
                repair=each.repair,
                description=each.text,
                answer=each.refusal,
            ),
        )
        for each in outcome.problems
    ]
    output.rows(COLUMNS, rows)
    if outcome.reason or not rows:
        value = RepairStatus(status=status, thread_id=thread_id, reason=outcome.reason)
        output.result(f"{status} {thread_id} {outcome.reason}".rstrip(), value)
