"""``everthread search``: finds messages by their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING

import click

from everthread.cli.common import Output, Place, json_option, progress, run, store_command

if TYPE_CHECKING:
    from rich.text import Text

    from everthread.contract import Store, SupportsSearch
    from everthread.model import SearchHit
    from everthread.searching import Findings

WORTH_A_BAR = 5000
"""So many messages to index take long enough to show how it goes."""

EXAMPLES = """\b
Examples:
  everthread search refund
  everthread search '"last week" refund'
  everthread search @prod --tenant acme invoice --limit 100
  everthread search invoice --json | jq -r .thread_id | sort -u

\b
All the words must be in a message; those in double quotes must follow one another.
Capitals do not count. Everything else is taken literally: there are no operators.

\b
SQLite makes its index at the first search and keeps it from then on; PostgreSQL
has one if its URL says search=true. Elsewhere, and with --scan, messages are read
one by one, those of the newest threads first, at most --scan-limit of them. How to
go on from there is said on standard error.

\b
In a pipe: thread, position, role, time (ISO 8601), text, with tabs between them.
"""


@store_command(epilog=EXAMPLES)
@click.argument("text")
@click.option("--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--cursor", help="Go on where an earlier search of the same text ended.")
@click.option("--scan", is_flag=True, help="Use no index, and make none.")
@click.option(
    "--scan-limit", type=click.IntRange(min=1), default=20_000, show_default=True, help="Read at most so many."
)
@json_option
def search(
    *, place: Place, text: str, limit: int, cursor: str | None, scan: bool, scan_limit: int, as_json: bool
) -> None:
    """Find messages by their words, in all threads of a tenant."""
    from everthread.contract import SupportsSearch
    from everthread.searching import search as find

    async def work(store: Store) -> Findings:
        if isinstance(store, SupportsSearch) and not scan:
            await _prepare(store)
            return await find(store, place.tenant, text, limit=limit, cursor=cursor)
        limits = {"limit": limit, "scan_limit": scan_limit}
        with progress("Searching") as on_scanned:
            return await find(store, place.tenant, text, cursor=cursor, scan=True, on_scanned=on_scanned, **limits)

    output = Output(as_json=as_json)
    findings = run(work, place)
    _show(findings, text, output)
    _summarise(findings, output)


async def _prepare(store: SupportsSearch) -> None:
    """Makes the index, if that is still to be done, and shows how it goes: a large file takes a while."""
    shown = 0
    with ExitStack() as stack:
        bar: Callable[[int], None] | None = None

        def advance(done: int, total: int) -> None:
            nonlocal bar, shown
            if total < WORTH_A_BAR:
                return
            bar = bar or stack.enter_context(progress("Making the index", total))
            bar(done - shown)
            shown = done

        await store.prepare_search(advance=advance)


def _show(findings: Findings, text: str, output: Output) -> None:
    if output.is_terminal:
        output.show(*(line for hit in findings.hits for line in _lines(hit, text, output.width)))
        return
    output.rows(
        ("thread", "position", "role", "time", "text"),
        [((hit.key.thread_id, str(hit.seq), hit.role, _time(hit), hit.snippet), _value(hit)) for hit in findings.hits],
    )


def _lines(hit: SearchHit, text: str, width: int | None) -> Iterator[Text]:
    from rich.text import Text

    from everthread.cli.rendering import INDENT, ago, one_line, wrapped
    from everthread.model import from_milliseconds
    from everthread.words import phrases_of, places_of

    heading = Text(one_line(hit.key.thread_id, 200), style="bold").append(f" #{hit.seq}", style="not bold cyan")
    when = "" if hit.created_ms is None else ago(from_milliseconds(hit.created_ms), datetime.now().astimezone())
    yield heading.append(f"  {one_line(hit.role, 20)}  {when}".rstrip(), style="not bold dim")
    snippet = Text(wrapped(one_line(hit.snippet, 1000), width, INDENT))
    for start, stop in places_of(snippet.plain, phrases_of(text)):
        snippet.stylize("bold black on yellow", start, stop)
    yield snippet


def _summarise(findings: Findings, output: Output) -> None:
    if not findings.hits and not output.as_json:
        output.note("Nothing was found.")
    if findings.is_scan:
        extent = "all there are" if findings.is_complete else "there are more"
        output.note(f"Without an index: {findings.scanned:,} messages were read one by one; {extent}.")
    if findings.cursor is not None:
        output.note(f"More: --cursor {findings.cursor}")


def _time(hit: SearchHit) -> str:
    from everthread.model import from_milliseconds

    return "" if hit.created_ms is None else from_milliseconds(hit.created_ms).isoformat(timespec="seconds")


def _value(hit: SearchHit) -> dict[str, object]:
    return {
        "thread_id": hit.key.thread_id,
        "seq": hit.seq,
        "role": hit.role,
        "created": _time(hit) or None,
        "text": hit.snippet,
    }
