"""``everthread prune``: forgets what is no longer wanted of a tenant's threads; made for cron."""

from __future__ import annotations

import re
from contextlib import aclosing, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import click

from everthread.cli.common import EXIT_FAILED, Age, Output, Place, confirm, counted, destructive_command, progress, run

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.pruning import Pruned, PrunePolicy

EXAMPLES = """\b
Examples:
  everthread prune --max-messages 500 --dry-run
  everthread prune --max-age 90d --max-idle 365d --yes
  everthread prune @prod --tenant acme --max-size 5MB --yes --json
  17 3 * * *  everthread prune @prod --max-idle 180d --yes     (a line for cron)

\b
The oldest messages of each thread go first; a tool result is never cut from its
call, so a few more may go. --max-idle forgets whole threads, with titles and
documents. Stopped at any moment, it is simply run again. What comes meanwhile is
never lost: a thread that somebody writes to may be left for the next run.
With --json each thread that changed is an object, and the totals are the last.
A thread that cannot be read is told of, the others are pruned, and the exit
status is 1.
"""
COLUMNS = ("thread", "messages", "size", "what goes")
ROWS_AT_ONCE = 50


class Size(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only in the newest click
    """A number of bytes: ``800``, ``500kB``, ``10MB``, ``2GB``."""

    name = "size"
    _units: ClassVar = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]{1,12})\s*([A-Za-z]*)", str(value).strip())
        unit = None if found is None else self._units.get(found[2].lower())
        if found is None or unit is None:
            self.fail(f"{value!r} is no size: 800, 500kB, 10MB and 2GB are.", param, ctx)
        return int(found[1]) * unit


@destructive_command(epilog=EXAMPLES)
@click.option("--max-messages", type=click.IntRange(min=0), metavar="N", help="Keep at most N messages of a thread.")
@click.option("--max-size", type=Size(), metavar="SIZE", help="Keep at most so much of a thread, e.g. 5MB.")
@click.option("--max-age", type=Age(), metavar="AGE", help="Drop messages that are older, e.g. 90d.")
@click.option("--max-idle", type=Age(), metavar="AGE", help="Forget threads without activity for so long, e.g. 365d.")
@click.option("--each", is_flag=True, help="Name each thread that changes, as --dry-run and --json do.")
def prune(
    *,
    place: Place,
    max_messages: int | None,
    max_size: int | None,
    max_age: timedelta | None,
    max_idle: timedelta | None,
    each: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Forget what is old, idle or too much, in all threads.

    Of one tenant: by messages, size, age and idleness.
    """
    if (max_messages, max_size, max_age, max_idle) == (None, None, None, None):
        raise click.UsageError("Say what may go: --max-messages, --max-size, --max-age, --max-idle.")
    from everthread.pruning import PrunePolicy

    policy = PrunePolicy(max_messages, max_size, max_age, max_idle)
    if not dry_run:
        whose = f"of tenant {place.tenant!r}" if place.tenant else "of the default tenant"
        confirm(f"Forget for good what is beyond these limits, in all threads {whose}?", yes=yes)
    report = _Report(Output(as_json=as_json), each=each or dry_run or as_json, dry_run=dry_run)
    run(lambda store: _prune(store, policy, place.tenant, report), place)
    report.end()


async def _prune(store: Store, policy: PrunePolicy, tenant: str, report: _Report) -> None:
    from everthread.pruning import prune

    # Lines about threads and a bar would run into each other.
    told = nullcontext(_ignore) if report.each else progress("Pruning", unit="threads")
    async with aclosing(prune(store, policy, tenant, dry_run=report.dry_run)) as outcomes:
        with told as advance:
            async for pruned in outcomes:
                report.add(pruned)
                advance(1)


def _ignore(_: int) -> None: ...


class _Report:
    """Tells what went, thread by thread or in one sentence."""

    def __init__(self, output: Output, *, each: bool, dry_run: bool) -> None:
        self.each, self.dry_run = each, dry_run
        self._output = output
        self._rows: list[Pruned] = []
        self._totals = {"threads": 0, "shortened": 0, "deleted": 0, "messages": 0, "size": 0, "busy": 0, "failed": 0}

    def add(self, pruned: Pruned) -> None:
        totals = self._totals
        totals["threads"] += 1
        if pruned.failure is not None:
            totals["failed"] += 1
            self._output.note(f"{pruned.key} is left as it is: {pruned.failure}")
        if pruned.is_busy:
            totals["busy"] += 1
            self._output.note(f"{pruned.key} is left for the next run: somebody wrote to it meanwhile.")
        if not pruned.is_changed:
            return
        totals["deleted" if pruned.is_deleted else "shortened"] += 1
        totals["messages"] += pruned.messages
        totals["size"] += pruned.size
        if self.each:
            self._rows.append(pruned)
            if len(self._rows) >= ROWS_AT_ONCE:
                self._print_rows()

    def end(self) -> None:
        """Prints the totals; ends the command with a failure if a thread had one."""
        from everthread.cli.rendering import file_size

        self._print_rows()
        totals = self._totals
        done = "Would free" if self.dry_run else "Freed"
        freed = f"{counted(totals['messages'], 'message')} ({file_size(totals['size'])})"
        busy = f" {totals['busy']:,} left for the next run." if totals["busy"] else ""
        self._output.result(
            f"{done} {freed}: {totals['shortened']:,} of {counted(totals['threads'], 'thread')} shortened, "
            f"{totals['deleted']:,} deleted.{busy}",
            {"dry_run": self.dry_run, **totals},
        )
        if totals["failed"]:
            raise click.exceptions.Exit(EXIT_FAILED)

    def _print_rows(self) -> None:
        if not self._rows:
            return
        self._output.rows(COLUMNS, [(_cells(pruned), _value(pruned)) for pruned in self._rows])
        self._rows.clear()


def _cells(pruned: Pruned) -> tuple[str, ...]:
    from everthread.cli.rendering import file_size

    what = "the whole thread" if pruned.is_deleted else f"all below position {pruned.start:,}"
    return pruned.key.thread_id, f"{pruned.messages:,}", file_size(pruned.size), what


def _value(pruned: Pruned) -> dict[str, object]:
    return {
        "thread_id": pruned.key.thread_id,
        "messages": pruned.messages,
        "size": pruned.size,
        "deleted": pruned.is_deleted,
        "start": None if pruned.is_deleted else pruned.start,
    }
