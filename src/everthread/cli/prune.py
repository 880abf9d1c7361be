"""``everthread prune``: delete old messages and idle threads; made for cron."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.json_output import PrunedThread, PruneTotals
from everthread.cli.options import Size, age_option, destructive_command, flag_option, number_option
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.progress import progress
from everthread.cli.runner import confirm, run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.operations.prune import Pruned, PrunePolicy

EXAMPLES = """\b
Examples:
  everthread prune --max-messages 500 --dry-run
  everthread prune --max-age 90d --older-than 365d --yes
  everthread prune @prod --tenant acme --max-size 5MB --yes --json
  17 3 * * *  everthread prune @prod --older-than 180d --yes     (a line for cron)

\b
The limits apply to each thread, and its oldest messages are deleted first. A tool
result is never separated from its call, so a few more messages may be deleted.
--older-than deletes whole threads, with titles and documents. No new message is
lost: a thread to which another process writes is left for the next run. After an
interruption, run the command again. With --json, each changed thread is an object,
and the totals are the last one. A thread that cannot be read is reported, the
others are pruned, and the exit status is 1.
"""
COLUMNS = ("thread", "messages", "size", "removed")
ROWS_AT_ONCE = 50


@destructive_command(epilog=EXAMPLES)
@number_option("--max-messages", help="Newest messages of a thread to keep. (default: all)")
@click.option("--max-size", type=Size(), metavar="SIZE", help="Size of a thread to keep, e.g. 5MB. (default: all)")
@age_option("--max-age", help="Age of messages from which they are deleted, e.g. 90d. (default: any)")
@age_option("--older-than", help="Delete threads without activity for this time, e.g. 365d.")
@flag_option("--each", help="Print each thread that changes, as with --dry-run and --json.")
def prune(
    *,
    place: Place,
    max_messages: int | None,
    max_size: int | None,
    max_age: timedelta | None,
    older_than: timedelta | None,
    each: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete old messages and idle threads.

    Prunes all threads of one tenant, by number and size of messages, age and idleness.
    """
    if (max_messages, max_size, max_age, older_than) == (None, None, None, None):
        raise click.UsageError("Give a limit: --max-messages, --max-size, --max-age or --older-than.")
    from everthread.operations.prune import PrunePolicy

    policy = PrunePolicy(max_messages, max_size, max_age, older_than)
    output = Output(as_json=as_json)
    if not (dry_run or yes):
        _ask(place, policy, output)
    report = _Report(output, each=each or dry_run or as_json, dry_run=dry_run)
    run(lambda store: _prune(store, policy, place.tenant, report), place)
    report.end()


def _ask(place: Place, policy: PrunePolicy, output: Output) -> None:
    owner = f"tenant {place.tenant!r}" if place.tenant else "the default tenant"
    if not sys.stdin.isatty():
        confirm(f"Delete everything beyond these limits in all threads of {owner}?", yes=False)
    preview = _Report(output, each=False, dry_run=True)
    run(lambda store: _prune(store, policy, place.tenant, preview), place.to_read())
    if preview.is_empty:
        output.note(f"Nothing is beyond these limits in the threads of {owner}.")
        raise click.exceptions.Exit
    confirm(f"{preview.in_words(f'In {owner}, delete')} Continue?", yes=False)


async def _prune(store: Store, policy: PrunePolicy, tenant: str, report: _Report) -> None:
    from everthread.listing import usage
    from everthread.operations.prune import prune

    # Lines about threads and a bar would mix.
    shown = nullcontext[Callable[[int], None]](lambda _: None)
    if not report.each:
        total = (await usage(store, tenant)).threads if sys.stderr.isatty() else None
        shown = progress("Examining" if report.dry_run else "Pruning", total, unit="threads")
    async with aclosing(prune(store, policy, tenant, dry_run=report.dry_run)) as outcomes:
        with shown as advance:
            async for pruned in outcomes:
                report.add(pruned)
                advance(1)


class _Report:
    """Prints the deletions, thread by thread or in one sentence."""

    def __init__(self, output: Output, *, each: bool, dry_run: bool) -> None:
        self.each, self.dry_run = each, dry_run
        self._output = output
        self._rows: list[Pruned] = []
        self._totals = Counter[str]()

    def add(self, pruned: Pruned) -> None:
        self._totals["threads"] += 1
        if pruned.failure is not None:
            self._totals["failed"] += 1
            self._output.note(f"{pruned.key} is left unchanged: {pruned.failure}")
        if pruned.is_busy:
            self._totals["busy"] += 1
            self._output.note(f"{pruned.key} is left for the next run: another process wrote to it.")
        if not pruned.is_changed:
            return
        self._totals["deleted" if pruned.is_deleted else "shortened"] += 1
        self._totals["messages"] += pruned.messages
        self._totals["size"] += pruned.size
        if self.each:
            self._rows.append(pruned)
            if len(self._rows) >= ROWS_AT_ONCE:
                self._print_rows()

    def end(self) -> None:
        """Print the totals, and end the command with status 1 if a thread failed."""
        self._print_rows()
        names = (name for name in PruneTotals.__struct_fields__ if name not in {"dry_run", "schema"})
        totals = PruneTotals(dry_run=self.dry_run, **{name: self._totals[name] for name in names})
        self._output.result(self.in_words("Would free" if self.dry_run else "Freed"), totals)
        if totals.failed:
            raise click.exceptions.Exit(EXIT_FAILED)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be deleted."""
        return not (self._totals["shortened"] or self._totals["deleted"])

    def in_words(self, done: str) -> str:
        """Return the totals as a sentence that begins with ``done``."""
        from everthread._wording import file_size

        totals = self._totals
        freed = f"{counted(totals['messages'], 'message')} ({file_size(totals['size'])})"
        busy = f" {totals['busy']:,} left for the next run." if totals["busy"] else ""
        return (
            f"{done} {freed}: {totals['shortened']:,} of {counted(totals['threads'], 'thread')} shortened, "
            f"{totals['deleted']:,} deleted.{busy}"
        )

    def _print_rows(self) -> None:
        self._output.rows(COLUMNS, [(_cells(pruned), _value(pruned)) for pruned in self._rows])
        self._rows.clear()


def _cells(pruned: Pruned) -> tuple[str, ...]:
    from everthread._wording import file_size

    removed = "the whole thread" if pruned.is_deleted else f"all before position {pruned.start:,}"
    return pruned.key.thread_id, f"{pruned.messages:,}", file_size(pruned.size), removed


def _value(pruned: Pruned) -> PrunedThread:
    return PrunedThread(
        thread_id=pruned.key.thread_id,
        messages=pruned.messages,
        size=pruned.size,
        deleted=pruned.is_deleted,
        start=None if pruned.is_deleted else pruned.start,
    )
