"""``everthread doctor --repair`` and ``--undo``: says what is wrong, asks, mends, and tells where the backup is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from everthread.cli.common import Output, Place, confirm, run

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.model import Drift
    from everthread.repairing import Outcome

COLUMNS = ("status", "thread", "position", "problem", "what is done")


def repair(place: Place, backup: Path | None, output: Output, *, yes: bool, dry_run: bool) -> bool:
    """Mends the threads of a tenant; says whether all is well now."""
    file = backup or Path(f"everthread-repair-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl")
    if file.exists():
        raise click.UsageError(f"{file} exists: a repair writes a backup of its own.")
    drifts = run(lambda store: _reconcile(store, place, output, mend=False), place)
    looked_at = run(lambda store: _repair(store, place, None, output), place)
    sealed = sum(outcome.status == "sealed" for outcome in looked_at)
    found = [outcome for outcome in looked_at if outcome.status != "sealed"]
    if sealed:
        output.note(f"{sealed:,} encrypted threads were not looked into.")
    mendable = [outcome for outcome in found if any(problem.mend for problem in outcome.problems)]
    if not (looked_at or drifts) and not output.as_json:
        output.note("Nothing is wrong.")
    if dry_run or not (mendable or drifts):
        return not (found or drifts)
    confirm(f"Mend this? Threads whose messages change ({len(mendable):,}) go to {file} as they were.", yes=yes)
    # First what is not listed: only then it can be looked through.
    run(lambda store: _reconcile(store, place, output, mend=True), place)
    done = run(lambda store: _repair(store, place, file, output), place)
    if file.exists():
        output.note(f"The threads as they were: {file}. To take it back: everthread doctor --undo {file}")
    return all(
        outcome.status == "sealed" or (outcome.status == "mended" and all(p.mend for p in outcome.problems))
        for outcome in done
    )


def undo(place: Place, backup: Path, output: Output, *, yes: bool) -> bool:
    """Takes a repair back; says whether all threads are as they were."""
    confirm(f"Bring the threads in {backup} back as they were?", yes=yes)
    done = run(lambda store: _undo(store, backup, output), place)
    return all(outcome.status == "undone" for outcome in done)


async def _reconcile(store: Store, place: Place, output: Output, *, mend: bool) -> tuple[Drift, ...]:
    from everthread.contract import SupportsReconciling
    from everthread.errors import UnsupportedError

    if not isinstance(store, SupportsReconciling):
        return ()
    try:
        drifts = await store.reconcile(place.tenant, mend=mend)
    except UnsupportedError as error:
        output.note(str(error))
        return ()
    for drift in drifts:
        value = {"status": "mended" if drift.mended else "found", "problem": drift.what, "count": drift.count}
        output.result(f"{value['status']} {drift.count:,} {drift.what}", value)
    return drifts


async def _repair(store: Store, place: Place, backup: Path | None, output: Output) -> list[Outcome]:
    from everthread.repairing import repair as repairing

    outcomes: list[Outcome] = []
    async for outcome in repairing(store, place.tenant, backup=backup):
        outcomes.append(outcome)
        if outcome.status != "sealed":
            _show(outcome, output)
    return outcomes


async def _undo(store: Store, backup: Path, output: Output) -> list[Outcome]:
    from everthread.repairing import undo as undoing

    outcomes: list[Outcome] = []
    async for outcome in undoing(store, backup):
        outcomes.append(outcome)
        _show(outcome, output)
    return outcomes


def _show(outcome: Outcome, output: Output) -> None:
    thread_id = outcome.key.thread_id
    rows = [
        (
            (outcome.status, thread_id, "" if each.seq is None else str(each.seq), each.kind, each.mend or "nothing"),
            {
                "status": outcome.status,
                "thread_id": thread_id,
                "seq": each.seq,
                "problem": each.kind,
                "mend": each.mend,
            },
        )
        for each in outcome.problems
    ]
    output.rows(COLUMNS, rows)
    if outcome.reason or not rows:
        value = {"status": outcome.status, "thread_id": thread_id, "reason": outcome.reason}
        output.result(f"{outcome.status} {thread_id} {outcome.reason}".rstrip(), value)
