"""``everthread threads``: list threads, the newest activity first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.json_output import ListedThread
from everthread.cli.options import (
    flag_option,
    json_option,
    names_option,
    number_option,
    since_option,
    store_command,
    tags_option,
    until_option,
)
from everthread.cli.output import Output
from everthread.cli.plain import readable_location, readable_title
from everthread.cli.runner import run
from everthread.cli.tenants import note_other_tenants
from everthread.json_form import fields_of

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.listing import ThreadFilter
    from everthread.model import Thread
    from everthread.readable import Unreadable

EXAMPLES = """\b
Examples:
  everthread threads
  everthread threads @prod --limit 100
  everthread threads --title rome --tag customer=acme
  everthread threads --threads 'trip-*' --since yesterday
  everthread threads --until 90d --all --json
  everthread threads --longer-than 500
  everthread threads --cursor CURSOR

\b
In a pipe: number, thread, title, messages, size, last activity (ISO 8601), and
"cancelled" or "failed" if the run of the last turn ended so, separated by tabs. To
know that, the last message of each thread listed is read. The cursor of the next page is printed on standard error. A
thread whose title or metadata cannot be read is reported there, and in "damage"
with --json; the exit status is then 1.
"""
COLUMNS = ("#", "thread", "title", "messages", "size", "last activity", "last run")
MOST_A_PAGE = 1000
ROWS_AT_ONCE = 100
AT_ONCE = 16


@store_command(epilog=EXAMPLES, read_only=True)
@click.option("--title", default="", metavar="TEXT", help="Threads with this text in the title shown.")
@names_option
@tags_option
@since_option("--newer-than")
@until_option("--older-than")
@number_option("--longer-than", help="Threads with more than N messages.")
@number_option("--limit", "-n", help="Threads to list.", least=1, default=20)
@flag_option("--all", "is_all", help="List all threads.")
@click.option("--cursor", help="Cursor at which an earlier page ended.")
@json_option
def threads(
    *,
    place: Place,
    title: str,
    names: tuple[str, ...],
    tags: tuple[tuple[str, object], ...],
    since: datetime | None,
    until: datetime | None,
    longer_than: int | None,
    limit: int,
    is_all: bool,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List threads, the newest activity first."""
    from everthread.listing import ALL_THREADS, ThreadFilter

    now = datetime.now().astimezone()
    only = ThreadFilter(title, dict(tags), since, until, longer_than, names)
    if cursor is not None and (is_all or only != ALL_THREADS):
        raise click.UsageError("--cursor continues a list without filters: with a filter, give --limit or --all.")
    listing = _Listing(place.tenant, None if is_all else limit, Output(as_json=as_json), now)
    run(lambda store: listing.plain(store, cursor) if only == ALL_THREADS else listing.filtered(store, only), place)
    if listing.has_damage:
        raise click.exceptions.Exit(EXIT_FAILED)


class _Listing:
    """Prints threads in pages, numbered."""

    def __init__(self, tenant: str, limit: int | None, output: Output, now: datetime) -> None:
        self._tenant = tenant
        self._left = limit
        self._output = output
        self._now = now
        self._number = 0
        self.has_damage = False

    async def plain(self, store: Store, cursor: str | None) -> None:
        """Print the store's own list, and the cursor of its next page."""
        while True:
            limit = MOST_A_PAGE if self._left is None else min(self._left, MOST_A_PAGE)
            page = await store.list_threads(self._tenant, limit=limit, cursor=cursor)
            await self._print(store, page.items)
            cursor = page.cursor
            if cursor is None or self._left == 0:
                break
        if cursor is not None:
            self._output.note(f"More: the same command with --cursor {cursor}")
        owner = f" of tenant {self._tenant!r}" if self._tenant else ""
        if not self._number:
            self._output.note(f"There are no threads{owner} in {readable_location(store.location)} yet.")
            await note_other_tenants(store, self._tenant, self._output)

    async def filtered(self, store: Store, only: ThreadFilter) -> None:
        """Print the threads that pass a filter."""
        from everthread.listing import find_threads

        found: list[Thread] = []
        async for thread in find_threads(store, self._tenant, only):
            found.append(thread)
            if len(found) == min(ROWS_AT_ONCE, self._left or ROWS_AT_ONCE):
                await self._print(store, found)
                found = []
            if self._left == 0:
                break
        await self._print(store, found)
        if not self._number:
            self._output.note("No thread matches.")
            await note_other_tenants(store, self._tenant, self._output)

    async def _print(self, store: Store, some: Sequence[Thread]) -> None:
        if self._left is not None:
            self._left -= len(some)
        rows: list[tuple[list[str], ListedThread]] = []
        for thread, ended in zip(some, await _ends(store, some), strict=True):
            self._number += 1
            if thread.damage:
                self._output.note(thread.damage)
                self.has_damage = True
            value = ListedThread(number=self._number, ended=ended, **fields_of(thread))
            rows.append((await self._cells(store, thread, ended), value))
        # On a terminal, a column that is empty for nearly all threads would take the room of others.
        self._output.rows(COLUMNS[:-1] if self._output.is_terminal else COLUMNS, rows)

    async def _cells(self, store: Store, thread: Thread, ended: str) -> list[str]:
        from everthread._wording import ago, file_size
        from everthread.listing import title_of

        if self._output.as_json:
            return []
        shown = None if thread.damage else await title_of(store, thread, on_unreadable=self._note_unreadable)
        title = readable_title(shown or "")
        size, when = str(thread.size), thread.updated_at.isoformat(timespec="seconds")
        if self._output.is_terminal:
            title, size, when = title[:60], file_size(thread.size), ago(thread.updated_at, self._now)
            when += f" ({ended})" if ended else ""
        cells = [str(self._number), thread.key.thread_id, title, str(thread.count), size, when]
        return cells if self._output.is_terminal else [*cells, ended]

    def _note_unreadable(self, unreadable: Unreadable) -> None:
        self._output.note(unreadable.reason)
        self.has_damage = True


async def _ends(store: Store, threads: Sequence[Thread]) -> list[str]:
    """Return for each thread how the run of its last turn ended early; empty if it did not."""
    from everthread.listing import end_of, for_each

    async def each() -> AsyncIterator[Thread]:
        for thread in threads:
            yield thread

    async with aclosing(for_each(each(), lambda thread: end_of(store, thread), at_once=AT_ONCE)) as found:
        return [ended async for ended in found]
