"""Reads for the viewer: pages of threads and messages, finds and faults, each bounded in number and time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from everthread._validation import SEALED, is_sealed
from everthread.contract import Store
from everthread.errors import CorruptRecordError
from everthread.listing import MessageFilter, ThreadFilter, passes, title_of
from everthread.messages import codec
from everthread.messages.codec import View
from everthread.messages.rules.examining import examine
from everthread.messages.rules.rows import row_of_stored, service_of, with_prevailing_format
from everthread.model import MessagePage, Thread, ThreadKey
from everthread.operations.repair import GRACE
from everthread.operations.summarize import Summary, get_summary
from everthread.readable import Unreadable, ignore, read_around, read_last_around
from everthread.server.view.entries import Page, opens_with_results, seen_of
from everthread.transfer.rendering import readable_text

THREADS_A_PAGE = 50
MESSAGES_A_PAGE = 60
MESSAGES_BEFORE = 12
"""The messages above a position that was asked for."""
EXAMINED = 1000
"""The newest messages of a thread that are examined for faults."""
FILTER_SECONDS = 2.0
FIND_SECONDS = 3.0
MOST_FOUND = 50
_FURTHER_BACK = 32
_TIMES_BACK = 4
_FILTER_PAGE = 500
_SEALED_TITLE = "(sealed)"


@dataclass(frozen=True)
class ListedThread:
    """A thread with the title to show."""

    thread: Thread
    title: str


@dataclass(frozen=True)
class ThreadList:
    """A page of threads. ``cursor`` continues it; a filter may have ended early, having looked at ``looked_at``."""

    rows: list[ListedThread]
    cursor: str | None
    looked_at: int = 0


async def list_threads(store: Store, text: str, cursor: str | None) -> ThreadList:
    """Return a page of threads whose ID or title contains a text, in any case."""
    found: list[Thread] = []
    looked_at = 0
    ends_at = time.monotonic() + FILTER_SECONDS
    wanted, only = text.casefold(), ThreadFilter(title=text)
    while True:
        page = await store.list_threads(limit=_FILTER_PAGE if text else THREADS_A_PAGE, cursor=cursor)
        looked_at += len(page)
        for thread in page:
            if wanted in thread.key.thread_id.casefold() or await passes(store, thread, only):
                found.append(thread)
        cursor = page.cursor
        if cursor is None or len(found) >= THREADS_A_PAGE or time.monotonic() > ends_at:
            break
    return ThreadList(list(await asyncio.gather(*[_listed(store, thread) for thread in found])), cursor, looked_at)


async def _listed(store: Store, thread: Thread) -> ListedThread:
    return ListedThread(thread, shown_title(await title_of(store, thread) if not thread.damage else None))


def shown_title(title: str | None) -> str:
    """Return a title on one line; that of an encrypted thread is sealed without its keys."""
    if title is None or title.startswith(f"{SEALED}:"):
        return "" if title is None else _SEALED_TITLE
    return codec.shorten(readable_text(title), 200)


async def read_page(
    store: Store, key: ThreadKey, *, before: int | None = None, start: int | None = None, at: int | None = None
) -> Page:
    """Return the newest messages, those before or from a position, or those around one.

    A page reaches back to the calls of its first results, if they are near.
    """
    bad: list[Unreadable] = []
    if at is not None:
        newer = await read_around(store, key, start=at, limit=MESSAGES_A_PAGE, on_unreadable=bad.append)
        older = await read_last_around(store, key, MESSAGES_BEFORE, before=at, on_unreadable=bad.append)
        page = MessagePage(older.messages + newer.messages, newer.head_seq, newer.next_seq)
    elif start is not None:
        page = await read_around(store, key, start=start, limit=MESSAGES_A_PAGE, on_unreadable=bad.append)
    else:
        page = await read_last_around(store, key, MESSAGES_A_PAGE, before=before, on_unreadable=bad.append)
    seen = [seen_of(message, key) for message in page]
    for _ in range(_TIMES_BACK if start is None else 0):
        if not seen or not opens_with_results(seen):
            break
        first = seen[0].message.seq
        more = await read_last_around(store, key, _FURTHER_BACK, before=first, on_unreadable=bad.append)
        if not more:
            break
        seen = [seen_of(message, key) for message in more] + seen
    places = [each.message.seq for each in seen] + [each.seq for each in bad if each.seq is not None]
    first, stop = (min(places), max(places) + 1) if places else (page.next_seq, page.next_seq)
    has_older = bool(places) and first > page.head_seq
    has_newer = bool(places) and stop < (page.next_seq if before is None else before)
    return Page(seen, page.head_seq, page.next_seq, has_older, has_newer, bad, await _summary(store, key))


async def _summary(store: Store, key: ThreadKey) -> Summary | None:
    try:
        return await get_summary(store, key)
    except CorruptRecordError:
        # Encrypted without its keys, or not a summary.
        return None


@dataclass(frozen=True)
class Hit:
    """A message that contains a text."""

    seq: int
    role: str
    snippet: str


@dataclass(frozen=True)
class Found:
    """The hits of a thread, newest first; ``before`` continues below a position."""

    hits: list[Hit]
    before: int | None


async def find(store: Store, key: ThreadKey, text: str, before: int | None) -> Found:
    """Find messages of a thread with a text in them, in any case, tool calls and results included."""
    hits: list[Hit] = []
    only = MessageFilter(text=text)
    ends_at = time.monotonic() + FIND_SECONDS
    while True:
        page = await read_last_around(store, key, 500, before=before, on_unreadable=ignore)
        for message in reversed(page.messages):
            view = seen_of(message, key).view or View()
            before = message.seq
            if only.accepts(message.created_ms, view):
                hits.append(Hit(message.seq, codec.shorten(readable_text(view.role), 40), _snippet(view, text)))
                if len(hits) == MOST_FOUND:
                    return Found(hits, before)
        if len(page) < 500:
            return Found(hits, None)
        if time.monotonic() > ends_at:
            return Found(hits, before)


def _snippet(view: View, text: str) -> str:
    wanted = text.casefold()
    parts = (
        view.text,
        *(f"{call.name} {call.arguments}" for call in view.calls),
        *(each.text for each in view.results),
    )
    for part in parts:
        at = part.casefold().find(wanted)
        if at >= 0:
            begin = max(at - 60, 0)
            return ("…" if begin else "") + codec.shorten(readable_text(part[begin:]), 200)
    return ""


@dataclass(frozen=True)
class ShownFault:
    """A fault and the position of its message."""

    seq: int
    kind: str
    text: str
    refusal: str
    repair: str


@dataclass(frozen=True)
class Health:
    """The faults of the newest messages.

    Attributes:
        sealed: The messages are encrypted and were not examined.
        start: The position from which on messages were examined.
    """

    faults: list[ShownFault]
    examined: int
    start: int
    is_all: bool
    sealed: bool = False


async def examine_thread(store: Store, thread: Thread) -> Health:
    """Apply the rules of model services to the newest messages of a thread."""
    bad: list[Unreadable] = []
    page = await read_last_around(store, thread.key, EXAMINED, on_unreadable=bad.append)
    messages = list(page)
    if any(is_sealed(message.payload) for message in messages):
        return Health([], 0, 0, is_all=False, sealed=True)
    rows = with_prevailing_format([row_of_stored(message) for message in messages])
    is_all = not messages or messages[0].seq == page.head_seq
    if not is_all:
        # Results at the beginning may have their calls before it.
        begin = next((at for at, row in enumerate(rows) if row.is_input), len(rows))
        messages, rows = messages[begin:], rows[begin:]
    is_running = time.time() * 1000 - thread.updated_ms <= GRACE.total_seconds() * 1000
    faults = [
        ShownFault(messages[fault.at].seq, fault.kind, readable_text(fault.text), fault.refusal, fault.repair)
        for fault in examine(rows, service_of(rows), is_running=is_running).faults
        if not fault.is_harmless
    ]
    faults += [ShownFault(each.seq, "unreadable", each.reason, "", "") for each in bad if each.seq is not None]
    return Health(faults, len(messages), messages[0].seq if messages else page.next_seq, is_all)
