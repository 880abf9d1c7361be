"""Search on every engine: through its index, or by a bounded scan if it has none.

For example:

    found = await search(store, "acme", 'refund "last week"')
    for hit in found.hits: ...
    if found.is_scan and found.cursor: ...   # the scan stopped at a limit
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from everthread.capabilities import SupportsSearch, capability
from everthread.contract import Store
from everthread.engines._cursors import read_cursor, written_cursor
from everthread.engines._search import MAX_QUERY_CHARACTERS, hit, text_in
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError, UnsupportedError
from everthread.listing import ALL_MESSAGES, ALL_THREADS, MessageFilter, ThreadFilter
from everthread.messages.codec import View, decode, view
from everthread.messages.tokenizer import holds, phrases_of
from everthread.model import Message, MessagePage, SearchHit, ThreadKey, check_count, check_identifier, to_milliseconds
from everthread.readable import OnUnreadable, Unreadable, read_last_around

SCAN_LIMIT = 20_000
"""The default number of messages after which a scan stops."""

_PAGE = 100
_SCAN = "scan:"
"""The mark of the cursor of a scan, which an index made since cannot continue."""


class Findings(msgspec.Struct, frozen=True):
    """The result of a search.

    Attributes:
        hits: The newest first. Of a scan: those of the thread with the newest activity first.
        cursor: Continues this search; ``None`` if everything was searched.
        is_scan: The search read messages one by one, without an index.
        scanned: The number of messages that a scan read.
        unreadable: Records that are not JSON: those that a scan met, or that the index found by their earlier words.
    """

    hits: tuple[SearchHit, ...]
    cursor: str | None = None
    is_scan: bool = False
    scanned: int = 0
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Return whether everything was searched."""
        return self.cursor is None


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """The place of a scan: before the thread that follows a cursor, or in it below a position."""

    cursor: str | None = None
    thread_id: str | None = None
    before: int | None = None


async def search(
    store: Store,
    tenant: str,
    text: str,
    *,
    limit: int = 20,
    cursor: str | None = None,
    scan: bool = False,
    scan_limit: int | None = SCAN_LIMIT,
    seconds: float | None = None,
    only: MessageFilter = ALL_MESSAGES,
    threads: ThreadFilter = ALL_THREADS,
    on_scanned: Callable[[int], None] | None = None,
) -> Findings:
    """Return a tenant's messages that contain every word of ``text``. Words in double quotes must follow one another.

    Everything else in ``text`` is literal; there are no operators. The search ignores case.

    Args:
        store: The store.
        tenant: The owner of the messages.
        text: The words.
        limit: The most hits; ``cursor`` returns more.
        cursor: The cursor of the previous page.
        scan: Neither use nor create an index.
        scan_limit: A scan stops after this number of messages (and of threads without any), and a search of an index
            after this number of hits that pass no filter; ``cursor`` continues it. ``None``: no limit.
        seconds: The search stops after about this time; ``cursor`` continues it.
        only: Selects messages. An index knows no calls and results, so ``tool`` and ``text`` require ``scan``.
        threads: Selects threads, by what they store: `ThreadFilter.title` finds no displayed title.
        on_scanned: Receives the number of further messages scanned.

    Raises:
        ConfigurationError: A limit is wrong, or the cursor is of another search.
        InvalidMessageError: ``text`` is not text, or longer than 1,000 characters.
    """
    check_identifier(tenant, "tenant", may_be_empty=True)
    check_count(limit, "limit", least=1)
    check_count(scan_limit, "scan_limit", least=1, optional=True)
    ends_at = math.inf if seconds is None else time.monotonic() + seconds
    wanted = _Wanted(tenant, text, limit, math.inf if scan_limit is None else scan_limit, ends_at, only, threads)
    searchable = None if scan else capability(store, SupportsSearch)
    if searchable is not None:
        if only.tool or only.text:
            raise ConfigurationError("An index knows no tool calls and results: search with scan=True.")
        return await _indexed(store, searchable, wanted, cursor)
    if not isinstance(text, str) or len(text) > MAX_QUERY_CHARACTERS:
        raise InvalidMessageError(f"A search is for text of at most {MAX_QUERY_CHARACTERS:,} characters.")
    # No stored text has lone surrogates.
    text = text.encode("utf-8", "replace").decode()
    place = _Place() if cursor is None else _read_cursor(cursor, tenant, text)
    return await _scan(store, msgspec.structs.replace(wanted, text=text), place, on_scanned or _ignore)


async def continued_search(
    store: Store,
    tenant: str,
    text: str,
    *,
    limit: int = 20,
    cursor: str | None = None,
    seconds: float | None = None,
    only: MessageFilter = ALL_MESSAGES,
) -> Findings:
    """Search as `search` does, through an index if the store has one or makes one, else by a scan.

    The cursor of a scan continues the scan, also if another process has made an index since.
    """
    is_scan = (cursor or "").startswith(_SCAN)
    place = (cursor or "").removeprefix(_SCAN) or None
    try:
        findings = await search(
            store, tenant, text, limit=limit, cursor=place, scan=is_scan, seconds=seconds, only=only
        )
    except UnsupportedError:
        # A store that was opened read-only makes no index.
        findings = await search(store, tenant, text, limit=limit, scan=True, seconds=seconds, only=only)
    if findings.cursor is None or not findings.is_scan:
        return findings
    return msgspec.structs.replace(findings, cursor=_SCAN + findings.cursor)


class _Wanted(msgspec.Struct, frozen=True):
    """The words, limits and filters of a search; ``ends_at`` is a time of the monotonic clock."""

    tenant: str
    text: str
    limit: int
    most: float
    ends_at: float
    only: MessageFilter
    threads: ThreadFilter


async def _indexed(store: Store, index: SupportsSearch, wanted: _Wanted, cursor: str | None) -> Findings:
    hits: list[SearchHit] = []
    unreadable: list[Unreadable] = []
    chosen: dict[ThreadKey, bool] = {}
    looked_at = 0
    while True:
        page = await index.search(wanted.tenant, wanted.text, limit=wanted.limit - len(hits), cursor=cursor)
        for found in page:
            if wanted.threads != ALL_THREADS and found.key not in chosen:
                try:
                    thread = await store.get_thread(found.key)
                except CorruptRecordError as error:
                    thread = None
                    unreadable.append(Unreadable(found.key, None, str(error)))
                chosen[found.key] = thread is not None and wanted.threads.accepts(thread)
            if not chosen.get(found.key, True):
                continue
            if found.damage:
                unreadable.append(Unreadable(found.key, found.seq, found.damage))
            elif wanted.only.accepts(found.created_ms, View(role=found.role)):
                hits.append(found)
        looked_at, cursor = looked_at + len(page), page.cursor
        is_filtered = wanted.only != ALL_MESSAGES or wanted.threads != ALL_THREADS
        is_enough = len(hits) == wanted.limit or looked_at >= wanted.most or time.monotonic() > wanted.ends_at
        if cursor is None or is_enough or not is_filtered:
            return Findings(tuple(hits), cursor, unreadable=tuple(unreadable))


async def _scan(store: Store, wanted: _Wanted, place: _Place, on_scanned: Callable[[int], None]) -> Findings:
    tenant, text = wanted.tenant, wanted.text
    phrases = phrases_of(text)
    hits: list[SearchHit] = []
    unreadable: list[Unreadable] = []
    scanned = pages = 0

    def findings(stopped: _Place | None = None) -> Findings:
        cursor = None if stopped is None else _cursor(tenant, text, stopped)
        return Findings(tuple(hits), cursor, is_scan=True, scanned=scanned, unreadable=tuple(unreadable))

    if not phrases:
        return findings()
    async for key, page, below in _newest_first(store, wanted, place, unreadable.append):
        # A page counts as one, so that threads without messages reach the limit too.
        pages += 1
        for message in reversed(page):
            scanned += 1
            try:
                hits += _hit(key, message, phrases, wanted)
            except CorruptRecordError as error:
                unreadable.append(Unreadable(key, message.seq, str(error)))
            if len(hits) == wanted.limit or scanned + pages > wanted.most:
                return findings(_Place(below.cursor, key.thread_id, message.seq))
        on_scanned(len(page))
        if scanned + pages > wanted.most or time.monotonic() > wanted.ends_at:
            return findings(below)
    return findings()


async def _newest_first(
    store: Store, wanted: _Wanted, place: _Place, on_unreadable: OnUnreadable
) -> AsyncIterator[tuple[ThreadKey, Sequence[Message], _Place]]:
    """Yield pages of messages, the last first, each with the place below it; none of a thread that is not wanted."""
    since_ms = None if wanted.only.since is None else to_milliseconds(wanted.only.since)
    cursor, inside, before = place.cursor, place.thread_id, place.before
    while True:
        # One at a time: each thread has a cursor that stays valid while others move to the front.
        threads = await store.list_threads(wanted.tenant, limit=1, cursor=cursor)
        for thread in threads:
            if since_ms is not None and thread.updated_ms < since_ms:
                return
            thread_id = thread.key.thread_id
            below = before if thread_id == inside else None
            if not wanted.threads.accepts(thread):
                yield thread.key, (), _Place(cursor, thread_id, 0)
                continue
            try:
                async for page in _pages(store, thread.key, below, on_unreadable):
                    below = page[0].seq if len(page) else 0
                    yield thread.key, page.messages, _Place(cursor, thread_id, below)
                    if since_ms is not None and page and (page[-1].created_ms or since_ms) < since_ms:
                        break
            except CorruptRecordError as error:
                on_unreadable(Unreadable(thread.key, None, str(error)))
        if threads.cursor is None:
            return
        cursor = threads.cursor


async def _pages(
    store: Store, key: ThreadKey, before: int | None, on_unreadable: OnUnreadable
) -> AsyncIterator[MessagePage]:
    while True:
        page = await read_last_around(store, key, _PAGE, before=before, on_unreadable=on_unreadable)
        yield page
        if len(page) < _PAGE:
            return
        before = page[0].seq


def _hit(key: ThreadKey, message: Message, phrases: Sequence[Sequence[str]], wanted: _Wanted) -> list[SearchHit]:
    """Return the message as a hit, if it is one. Raises `CorruptRecordError` if the record is not JSON."""
    searched = text_in(message.payload, message.format)
    if not searched:
        # A message without text and an undecodable record look the same here.
        decode(message, key)
    if not holds(searched, phrases) or not wanted.only.accepts(message.created_ms, view(message, key)):
        return []
    return [
        hit(key, message.seq, message.created_ms, payload=message.payload, format=message.format, query=wanted.text)
    ]


def _cursor(tenant: str, text: str, place: _Place) -> str:
    return written_cursor(("scan", tenant, text, place))


def _read_cursor(cursor: str, tenant: str, text: str) -> _Place:
    _, of, query, place = read_cursor(cursor, tuple[str, str, str, _Place], "a scan")
    if (of, query) != (tenant, text):
        raise ConfigurationError("This cursor belongs to another search: start again without one.")
    return place


def _ignore(_: int) -> None: ...
