"""``everthread threads``: what is stored, the newest activity first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from everthread.cli.common import Age, Output, Place, Tag, json_option, run, store_command
from everthread.cli.retention import limits
from everthread.cli.stores import place_for_people

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.model import Thread
    from everthread.threads import ThreadFilter

EXAMPLES = """\b
Examples:
  everthread threads
  everthread threads @prod --limit 100
  everthread threads --title rome --tag customer=acme
  everthread threads --newer-than 24h
  everthread threads --older-than 90d --all --json
  everthread threads --longer-than 500
  everthread threads --cursor CURSOR

\b
In a pipe: number, thread, title, messages, size, last activity (ISO 8601), with
tabs between them. The cursor of the next page is told on standard error.
"""
COLUMNS = ("#", "thread", "title", "messages", "size", "last activity")
MOST_A_PAGE = 1000


@store_command(epilog=EXAMPLES)
@click.option("--title", default="", metavar="TEXT", help="Only threads with this in their title.")
@click.option("--tag", "tags", type=Tag(), multiple=True, help="Only threads with this metadata. Repeatable.")
@click.option("--newer-than", type=Age(), help="Only threads with activity within this time: 90m, 24h, 7d.")
@click.option("--older-than", type=Age(), help="Only threads without activity for so long.")
@click.option("--longer-than", type=click.IntRange(min=0), metavar="N", help="Only threads with more than N messages.")
@click.option("--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--all", "is_all", is_flag=True, help="All of them.")
@click.option("--cursor", help="Go on where an earlier page ended.")
@json_option
def threads(
    *,
    place: Place,
    title: str,
    tags: tuple[tuple[str, object], ...],
    newer_than: timedelta | None,
    older_than: timedelta | None,
    longer_than: int | None,
    limit: int,
    is_all: bool,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List threads, the newest activity first."""
    from everthread.threads import ALL_THREADS, ThreadFilter

    now = datetime.now().astimezone()
    after, before = (None if age is None else now - age for age in (newer_than, older_than))
    only = ThreadFilter(title, dict(tags), after, before, longer_than)
    if cursor is not None and (is_all or only != ALL_THREADS):
        raise click.UsageError("--cursor goes on with a plain list: give a larger --limit, or --all, with a filter.")
    listing = _Listing(place.tenant, None if is_all else limit, Output(as_json=as_json), now)
    run(lambda store: listing.plain(store, cursor) if only == ALL_THREADS else listing.filtered(store, only), place)


class _Listing:
    """Prints threads in pages, numbered."""

    def __init__(self, tenant: str, limit: int | None, output: Output, now: datetime) -> None:
        self._tenant = tenant
        self._left = limit
        self._output = output
        self._now = now
        self._number = 0

    async def plain(self, store: Store, cursor: str | None) -> None:
        """A page of the store's own list, and how to go on from there."""
        while True:
            limit = MOST_A_PAGE if self._left is None else min(self._left, MOST_A_PAGE)
            page = await store.list_threads(self._tenant, limit=limit, cursor=cursor)
            await self._print(store, page.items)
            cursor = page.cursor
            if cursor is None or self._left == 0:
                break
        if cursor is not None:
            self._output.note(f"More: the same with --cursor {cursor}")
        whose = f" of tenant {self._tenant!r}" if self._tenant else ""
        self._say_if_none(f"There are no threads{whose} in {place_for_people(store.location)} yet.")

    async def filtered(self, store: Store, only: ThreadFilter) -> None:
        """The threads that pass a filter."""
        from everthread.threads import find_threads

        async for some in _in_groups(find_threads(store, self._tenant, only), self._left):
            await self._print(store, some)
        self._say_if_none("No thread is like that.")

    async def _print(self, store: Store, some: list[Thread] | tuple[Thread, ...]) -> None:
        if self._left is not None:
            self._left -= len(some)
        rows: list[tuple[list[str], dict[str, object]]] = []
        for thread in some:
            self._number += 1
            rows.append((await self._cells(store, thread), _value(self._number, thread)))
        self._output.rows(COLUMNS, rows)

    async def _cells(self, store: Store, thread: Thread) -> list[str]:
        from everthread.cli.rendering import ago, file_size
        from everthread.threads import title_of

        if self._output.as_json:
            return []
        title = await title_of(store, thread) or ""
        size, when = str(thread.size), thread.updated_at.isoformat(timespec="seconds")
        if self._output.is_terminal:
            title, size, when = title[:60], file_size(thread.size), ago(thread.updated_at, self._now)
        return [str(self._number), thread.key.thread_id, title, str(thread.count), size, when]

    def _say_if_none(self, text: str) -> None:
        if not self._number:
            self._output.note(text)


async def _in_groups(found: AsyncIterator[Thread], limit: int | None, size: int = 100) -> AsyncIterator[list[Thread]]:
    group: list[Thread] = []
    async for thread in found:
        group.append(thread)
        if limit is not None:
            limit -= 1
        if len(group) == size or limit == 0:
            yield group
            group = []
        if limit == 0:
            return
    if group:
        yield group


def _value(number: int, thread: Thread) -> dict[str, object]:
    return {
        "number": number,
        "thread_id": thread.key.thread_id,
        "tenant": thread.key.tenant,
        "title": thread.title,
        "messages": thread.count,
        "size": thread.size,
        "created": thread.created_at,
        "last_activity": thread.updated_at,
        "expires": thread.expires_at,
        "retention": None if thread.retention is None else limits(thread.retention),
        "metadata": thread.metadata,
    }
