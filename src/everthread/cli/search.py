"""``everthread search``: find messages by their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from everthread.cli.exit_statuses import EXIT_FAILED, CommandFailed
from everthread.cli.indexes import embedder_named, index_of, index_options
from everthread.cli.json_output import RecalledTurn
from everthread.cli.options import (
    flag_option,
    json_option,
    names_option,
    number_option,
    roles_option,
    since_option,
    store_command,
    tags_option,
    until_option,
)
from everthread.cli.output import Output
from everthread.cli.plain import say_json
from everthread.cli.progress import progress
from everthread.cli.runner import run
from everthread.json_form import found_message, unreadable_record

if TYPE_CHECKING:
    from rich.text import Text

    from everthread.capabilities import SupportsSearch
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.model import SearchHit
    from everthread.operations.search import Findings
    from everthread.recall import Recalled

WORTH_A_BAR = 5000
"""Indexing this many messages takes long enough to show progress."""

EXAMPLES = """\b
Examples:
  everthread search refund
  everthread search '"last week" refund'
  everthread search @prod --tenant acme invoice --limit 100
  everthread search refund --tag customer=acme --since yesterday --role assistant
  everthread search invoice --json | jq -r .thread_id | sort -u

\b
A message must contain all the words; words in double quotes must follow one
another. Case is ignored. Everything else is literal: there are no operators.

\b
SQLite makes an index at the first search; PostgreSQL has one if its URL has
search=true. Other stores, and --scan, read the messages one by one, those of the
newest threads first. A search ends at --limit messages or after --seconds; standard
error says how to continue from there. A record that cannot be read is reported there, and as an
object of its own with --json; the exit status is then 1.

\b
With --by-meaning, TEXT is a question or a description. It needs an index, which
everthread recall follow makes and keeps up to date. IDs, numbers and names in TEXT
decide; the meaning orders the rest.

\b
In a pipe: thread, position, role (with --by-meaning: score), time (ISO 8601), text,
separated by tabs.
"""


@store_command(epilog=EXAMPLES, read_only=True)
@click.argument("text")
@names_option
@tags_option
@since_option()
@until_option()
@roles_option
@number_option("--limit", "-n", help="Messages to print.", least=1, default=20)
@click.option("--cursor", help="Cursor at which an earlier search for the same text ended.")
@flag_option("--scan", help="Use no index, and make none.")
@number_option("--scan-limit", help="Messages to read without index. (default: as many as --seconds allow)", least=1)
@flag_option("--by-meaning", help="Find turns by their meaning, in the index of everthread recall follow.")
@index_options
@number_option("--seconds", help="Time after which to stop, if there are fewer messages than --limit.", default=10)
@json_option
def search(
    *,
    place: Place,
    text: str,
    names: tuple[str, ...],
    tags: tuple[tuple[str, object], ...],
    since: datetime | None,
    until: datetime | None,
    roles: tuple[str, ...],
    limit: int,
    cursor: str | None,
    scan: bool,
    scan_limit: int | None,
    seconds: int,
    by_meaning: bool,
    index_path: Path | None,
    embedder: str | None,
    as_json: bool,
) -> None:
    """Find messages by their words, in all threads of a tenant."""
    from everthread.capabilities import SupportsSearch, capability
    from everthread.errors import UnsupportedError
    from everthread.listing import MessageFilter, ThreadFilter
    from everthread.messages.tokenizer import phrases_of
    from everthread.operations.search import search as find

    if by_meaning:
        if roles or cursor or scan or scan_limit:
            raise click.UsageError("--by-meaning has no --role, --cursor, --scan and --scan-limit.")
        wanted: dict[str, Any] = {"limit": limit, "threads": ThreadFilter(metadata=dict(tags), ids=names)}
        wanted |= {"since": since, "until": until, "index_path": index_path, "embedder": embedder}
        _search_by_meaning(place, Output(as_json=as_json), text, **wanted)
        return
    if not phrases_of(text):
        raise click.UsageError("TEXT holds no word to search for.")
    only, threads = MessageFilter(since, until, roles), ThreadFilter(metadata=dict(tags), ids=names)
    options: dict[str, Any] = {"limit": limit, "scan_limit": scan_limit, "cursor": cursor, "only": only}
    options |= {"threads": threads, "seconds": seconds}

    async def by_index(store: Store) -> Findings | None:
        if capability(store, SupportsSearch) is None:
            return await one_by_one(store)
        try:
            return await find(store, place.tenant, text, **options)
        except UnsupportedError:
            return None  # opened read-only, a store makes no index

    async def one_by_one(store: Store) -> Findings:
        with progress("Searching") as on_scanned:
            return await find(store, place.tenant, text, scan=True, on_scanned=on_scanned, **options)

    output = Output(as_json=as_json)
    findings = None if scan else run(by_index, place)
    if findings is None and not scan and _make_index(place, output):
        findings = run(by_index, place)
    findings = findings or run(one_by_one, place)
    _show(findings, text, output)
    _show_end(findings, output)
    if findings.unreadable:
        raise click.exceptions.Exit(EXIT_FAILED)


def _search_by_meaning(
    place: Place, output: Output, question: str, *, index_path: Path | None, embedder: str | None, **options: Any
) -> None:
    model = embedder_named(embedder)

    async def ask(store: Store) -> tuple[Recalled, ...]:
        from everthread.recall import recall

        index = index_of(store, place, index_path, model, create=False)
        try:
            return await recall(store, index, model, question, tenant=place.tenant, **options)
        finally:
            await index.aclose()

    found = run(ask, place)
    if output.is_terminal:
        output.show(*(line for each in found for line in _recalled_lines(each, output.width)))
    else:
        rows = [
            ((each.key.thread_id, str(each.seq), f"{each.score:.3f}", _time(each), each.snippet), _recalled(each))
            for each in found
        ]
        output.rows(("thread", "position", "score", "time", "text"), rows)
    if not found and not output.as_json:
        output.note("Nothing was found. Is the index up to date? everthread recall status")


def _recalled_lines(each: Recalled, width: int | None) -> Iterator[Text]:
    from rich.text import Text

    from everthread._wording import ago
    from everthread.cli.rendering import INDENT, one_line, wrapped
    from everthread.model import from_milliseconds

    heading = Text(one_line(each.key.thread_id, 200), style="bold").append(f" #{each.seq}", style="not bold cyan")
    when = "" if each.created_ms is None else ago(from_milliseconds(each.created_ms), datetime.now().astimezone())
    yield heading.append(f"  {each.score:.2f}  {when}".rstrip(), style="not bold dim")
    yield Text(wrapped(one_line(each.snippet, 300), width, INDENT))


def _recalled(each: Recalled) -> RecalledTurn:
    return RecalledTurn(
        thread_id=each.key.thread_id,
        seq=each.seq,
        turn=each.turn,
        created=_time(each) or None,
        score=each.score,
        text=each.snippet,
    )


def _make_index(place: Place, output: Output) -> bool:
    """Open the store for writing and make its index; return whether that was possible."""
    from everthread.capabilities import SupportsSearch, capability

    async def make(store: Store) -> None:
        searchable = capability(store, SupportsSearch)
        if searchable is not None:
            await _prepare(searchable)

    try:
        run(make, msgspec.structs.replace(place, read_only=False))
    except CommandFailed as failed:
        output.note(f"Cannot make an index: {failed.message}")
        return False
    return True


async def _prepare(store: SupportsSearch) -> None:
    """Make the index, and show the progress of a large one."""
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
        [
            ((hit.key.thread_id, str(hit.seq), hit.role, _time(hit), hit.snippet), found_message(hit))
            for hit in findings.hits
        ],
    )


def _lines(hit: SearchHit, text: str, width: int | None) -> Iterator[Text]:
    from rich.text import Text

    from everthread._wording import ago
    from everthread.cli.rendering import INDENT, one_line, wrapped
    from everthread.messages.tokenizer import phrases_of, places_of
    from everthread.model import from_milliseconds

    heading = Text(one_line(hit.key.thread_id, 200), style="bold").append(f" #{hit.seq}", style="not bold cyan")
    when = "" if hit.created_ms is None else ago(from_milliseconds(hit.created_ms), datetime.now().astimezone())
    yield heading.append(f"  {one_line(hit.role, 20)}  {when}".rstrip(), style="not bold dim")
    snippet = Text(wrapped(one_line(hit.snippet, 1000), width, INDENT))
    for start, stop in places_of(snippet.plain, phrases_of(text)):
        snippet.stylize("bold black on yellow", start, stop)
    yield snippet


def _show_end(findings: Findings, output: Output) -> None:
    if not findings.hits and not output.as_json:
        output.note("Nothing was found.")
    if findings.is_scan:
        extent = "all there are" if findings.is_complete else "there are more"
        output.note(f"Without an index: {findings.scanned:,} messages were read one by one; {extent}.")
    if findings.cursor is not None:
        output.note(f"More: --cursor {findings.cursor}")
    for each in findings.unreadable:
        output.note(f"Not searched: {each.reason}")
        if output.as_json:
            say_json(unreadable_record(each))


def _time(hit: SearchHit | Recalled) -> str:
    from everthread.model import from_milliseconds

    return "" if hit.created_ms is None else from_milliseconds(hit.created_ms).isoformat(timespec="seconds")
