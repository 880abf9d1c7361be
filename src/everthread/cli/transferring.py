"""How moving threads is shown: progress, what became of each thread, and the sum of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import click
import msgspec

from everthread.cli.common import EXIT_FAILED, Output, Place, counted, progress, run
from everthread.cli.rendering import file_size
from everthread.transfer.model import PROBLEMS, Outcome, Report, Watcher

COLUMNS = ("thread", "what", "messages", "reason")


class Shown(Watcher):
    """Draws a bar or prints lines now and then; with ``--dry-run`` each thread, and always what went wrong."""

    def __init__(self, what: str, output: Output, *, each: bool = False) -> None:
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
            self._output.rows(COLUMNS, [(cells, as_json(outcome))])

    def close(self) -> None:
        """Ends the bar."""
        self._stack.close()


def carry_out(
    what: str,
    work: Callable[..., Coroutine[Any, Any, Report]],
    *places: Place,
    output: Output,
    dry_run: bool = False,
    is_beside: bool = False,
) -> None:
    """Opens the stores, moves the threads, tells what became of it, and ends with a status that says so.

    Args:
        what: The verb in the past, as in "copied 12 messages".
        work: Gets the stores and a watcher.
        dry_run: Nothing is written, and each thread is named.
        is_beside: Standard output carries the threads themselves.

    What went wrong, and what was left out, is told on standard error.
    """
    watcher = Shown(what, output, each=dry_run)

    async def watched(*stores: Any) -> Report:
        try:
            return await work(*stores, watcher)
        finally:
            watcher.close()

    report = run(watched, *places)
    if is_beside:
        output.note(_in_words(what, report, dry_run=dry_run))
    else:
        output.result(_in_words(what, report, dry_run=dry_run), {**_sum(report), "dry_run": dry_run})
    for problem in report.problems:
        output.note(f"{problem.status}: {problem.key.thread_id!r}: {problem.reason}")
    for skipped in report.skipped:
        output.note(f"skipped: {skipped.place}: {skipped.reason}")
    if not report.is_complete:
        raise click.exceptions.Exit(EXIT_FAILED)


def as_json(outcome: Outcome) -> dict[str, object]:
    """An outcome for ``--json``."""
    return {
        "thread": outcome.key.thread_id,
        "tenant": outcome.key.tenant,
        "status": outcome.status,
        "written": outcome.written,
        "present": outcome.present,
        "documents": outcome.documents,
        "reason": outcome.reason,
    }


def _sum(report: Report) -> dict[str, object]:
    counts: dict[str, object] = msgspec.to_builtins(
        {
            "threads": report.threads,
            "written": report.written,
            "present": report.present,
            "documents": report.documents,
            "files": report.files,
            "bytes": report.size,
            "keeps_times": report.keeps_times,
            "skipped": report.skipped,
        }
    )
    return {**counts, "problems": [as_json(problem) for problem in report.problems]}


def _in_words(what: str, report: Report, *, dry_run: bool) -> str:
    done = sum(count for status, count in report.threads.items() if status not in PROBLEMS)
    by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(report.threads.items()))
    threads = counted(done, "thread") + (f" ({by_status})" if by_status else "")
    parts = [f"{what}: {counted(report.written, 'message')}", threads]
    if report.documents:
        parts.append(counted(report.documents, "document"))
    if report.present:
        parts.append(f"{report.present:,} messages were there already")
    if report.files:
        parts.append(f"{file_size(report.size)} in {counted(report.files, 'file')}")
    if report.skipped:
        parts.append(f"{len(report.skipped):,} unreadable left out")
    if not report.keeps_times:
        parts.append("threads have the times of now, since this store takes no others")
    return ("would be " if dry_run else "") + ", ".join(parts)
