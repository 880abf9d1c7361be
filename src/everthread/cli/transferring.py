"""The output of commands that move threads: progress, the result of each thread, and the sums."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any

import click
import msgspec

from everthread._wording import file_size
from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.json_output import MovedThread, MoveReport, SkippedRecord
from everthread.cli.output import Output
from everthread.cli.places import Place
from everthread.cli.plain import counted
from everthread.cli.progress import progress
from everthread.cli.runner import run
from everthread.transfer.model import PROBLEMS, Outcome, Report, Watcher

COLUMNS = ("thread", "status", "messages", "reason")


class _Shown(Watcher):
    """Shows the progress, or each thread with ``--dry-run``."""

    def __init__(self, what: str, output: Output, *, each: bool) -> None:
        self._what = what
        self._output = output
        self._each = each
        self._stack = ExitStack()
        self._advance: Callable[[int], None] = lambda count: None

    def begin(self, total: int | None) -> None:
        if not self._each:
            self._advance = self._stack.enter_context(progress(self._what, total))

    def advance(self, count: int) -> None:
        self._advance(count)

    def finished(self, outcome: Outcome) -> None:
        if self._each and outcome.status != "unchanged":
            cells = (outcome.key.thread_id, outcome.status, str(outcome.written), outcome.reason)
            self._output.rows(COLUMNS, [(cells, _moved(outcome))])

    def close(self) -> None:
        """End the bar."""
        self._stack.close()


def carry_out(
    what: str,
    work: Callable[..., Coroutine[Any, Any, Report]],
    *places: Place,
    output: Output,
    dry_run: bool = False,
    is_beside: bool = False,
    notes: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Open the stores, move the threads, print the result, and end with status 1 if it is incomplete.

    Problems and skipped records are printed on standard error.

    Args:
        what: The verb in the past, as in "copied 12 messages".
        work: Called with the stores and a watcher.
        dry_run: Print each thread; the work writes nothing.
        is_beside: Print the result on standard error: standard output carries the threads themselves.
        notes: Returns lines for standard error, after the result.
    """
    watcher = _Shown(what, output, each=dry_run)

    async def watched(*stores: Any) -> Report:
        try:
            return await work(*stores, watcher)
        finally:
            watcher.close()

    report = run(watched, *places)
    if is_beside:
        output.note(_in_words(what, report, dry_run=dry_run))
    else:
        output.result(_in_words(what, report, dry_run=dry_run), _sums(report, dry_run=dry_run))
    for note in notes():
        output.note(note)
    for problem in report.problems:
        output.note(f"{problem.status}: {problem.key.thread_id!r}: {problem.reason}")
    for skipped in report.skipped:
        output.note(f"skipped: {skipped.place}: {skipped.reason}")
    if not report.is_complete:
        raise click.exceptions.Exit(EXIT_FAILED)


def _moved(outcome: Outcome) -> MovedThread:
    return MovedThread(
        thread=outcome.key.thread_id,
        tenant=outcome.key.tenant,
        status=outcome.status,
        written=outcome.written,
        present=outcome.present,
        documents=outcome.documents,
        reason=outcome.reason,
    )


def _sums(report: Report, *, dry_run: bool) -> MoveReport:
    return MoveReport(
        threads=report.threads,
        written=report.written,
        present=report.present,
        documents=report.documents,
        files=report.files,
        bytes=report.size,
        keeps_times=report.keeps_times,
        skipped=msgspec.convert(report.skipped, list[SkippedRecord], from_attributes=True),
        problems=[_moved(problem) for problem in report.problems],
        dry_run=dry_run,
    )


def _in_words(what: str, report: Report, *, dry_run: bool) -> str:
    done = sum(count for status, count in report.threads.items() if status not in PROBLEMS)
    by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(report.threads.items()))
    threads = counted(done, "thread") + (f" ({by_status})" if by_status else "")
    parts = [f"{what}: {counted(report.written, 'message')}", threads]
    if report.documents:
        parts.append(counted(report.documents, "document"))
    if report.present:
        parts.append(f"{counted(report.present, 'message')} present before")
    if report.files:
        parts.append(f"{file_size(report.size)} in {counted(report.files, 'file')}")
    if report.skipped:
        # An export holds the bytes of a message that is not JSON, or a note in its place.
        parts.append(f"{len(report.skipped):,} unreadable{'' if what == 'exported' else ' left out'}")
    if not report.keeps_times:
        parts.append("with the present time, because this store accepts no other times")
    return ("would be " if dry_run else "") + ", ".join(parts)
