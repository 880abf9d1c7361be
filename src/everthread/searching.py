"""Search on every engine: through its index where it has one, otherwise by a bounded scan that says it is one.

found = await search(store, "acme", 'refund "last week"')
for hit in found.hits: ...
if found.is_scan and found.cursor: ...   # there is more that was not looked at
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from everthread.contract import Store, SupportsSearch
from everthread.engines._search import MAX_QUERY_CHARACTERS, hit, text_in
from everthread.errors import ConfigurationError, InvalidMessageError
from everthread.model import Message, SearchHit, ThreadKey, check_count, check_identifier
from everthread.words import holds, phrases_of

SCAN_LIMIT = 20_000
"""How many messages a scan looks at before it stops, unless told otherwise."""

_PAGE = 100


class Findings(msgspec.Struct, frozen=True):
    """What a search found.

    Attributes:
        hits: The newest first; of a scan, by thread: those of the thread with the newest activity first.
        cursor: Asks for more, and goes on where this search stopped; ``None``: everything was searched.
        is_scan: There is no index: messages were read one by one.
        scanned: How many messages a scan looked at.
    """

    hits: tuple[SearchHit, ...]
    cursor: str | None = None
    is_scan: bool = False
    scanned: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to look at."""
        return self.cursor is None


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a scan stands: before the thread that follows a cursor, or in it below a position."""

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
    scan_limit: int = SCAN_LIMIT,
    on_scanned: Callable[[int], None] | None = None,
) -> Findings:
    """A tenant's messages that hold every word of ``text``; words in double quotes must follow one another.

    Everything else in ``text`` is taken literally; there are no operators. Capitals do not count.

    Args:
        limit: At most so many hits; more with ``cursor``.
        scan: Do not use an index, nor make one.
        scan_limit: A scan stops after so many messages (and threads without any); go on with ``cursor``.
        on_scanned: Is told now and then how many more messages a scan has looked at.

    Raises:
        ConfigurationError: A limit is wrong, or the cursor is of another search.
        InvalidMessageError: ``text`` is not text, or longer than 1,000 characters.
    """
    if isinstance(store, SupportsSearch) and not scan:
        page = await store.search(tenant, text, limit=limit, cursor=cursor)
        return Findings(page.items, page.cursor)
    check_identifier(tenant, "tenant", may_be_empty=True)
    check_count(limit, "limit", least=1)
    check_count(scan_limit, "scan_limit", least=1)
    if not isinstance(text, str) or len(text) > MAX_QUERY_CHARACTERS:
        raise InvalidMessageError(f"A search is for text of at most {MAX_QUERY_CHARACTERS:,} characters.")
    # As elsewhere, lone surrogates are not text that anybody could have stored.
    text = text.encode("utf-8", "replace").decode()
    place = _Place() if cursor is None else _read_cursor(cursor, tenant, text)
    return await _scan(store, _Wanted(tenant, text, limit, scan_limit), place, on_scanned or _ignore)


class _Wanted(msgspec.Struct, frozen=True):
    """What a scan is for, and how far it goes."""

    tenant: str
    text: str
    limit: int
    most: int


async def _scan(store: Store, wanted: _Wanted, place: _Place, on_scanned: Callable[[int], None]) -> Findings:
    tenant, text = wanted.tenant, wanted.text
    phrases = phrases_of(text)
    hits: list[SearchHit] = []
    scanned = pages = 0
    if not phrases:
        return Findings((), is_scan=True)
    async for key, page, below in _newest_first(store, tenant, place):
        # A page counts as one, so that threads without messages come to an end too.
        pages += 1
        for message in reversed(page):
            scanned += 1
            if found := _hit(key, message, phrases, text):
                hits.append(found)
            if len(hits) == wanted.limit or scanned + pages > wanted.most:
                stopped = _Place(below.cursor, key.thread_id, message.seq)
                return Findings(tuple(hits), _cursor(tenant, text, stopped), is_scan=True, scanned=scanned)
        on_scanned(len(page))
        if scanned + pages > wanted.most:
            return Findings(tuple(hits), _cursor(tenant, text, below), is_scan=True, scanned=scanned)
    return Findings(tuple(hits), is_scan=True, scanned=scanned)


async def _newest_first(
    store: Store, tenant: str, place: _Place
) -> AsyncIterator[tuple[ThreadKey, Sequence[Message], _Place]]:
    """Pages of messages, the last first, each with the place from which to go on below it."""
    cursor, inside, before = place.cursor, place.thread_id, place.before
    while True:
        # One at a time: so each thread has a cursor that stays valid while others move to the front.
        threads = await store.list_threads(tenant, limit=1, cursor=cursor)
        for thread in threads:
            thread_id = thread.key.thread_id
            below = before if thread_id == inside else None
            while True:
                page = await store.read_last(thread.key, _PAGE, before=below)
                below = page[0].seq if len(page) else 0
                yield thread.key, page.messages, _Place(cursor, thread_id, below)
                if len(page) < _PAGE:
                    break
        if threads.cursor is None:
            return
        cursor = threads.cursor


def _hit(key: ThreadKey, message: Message, phrases: Sequence[Sequence[str]], text: str) -> SearchHit | None:
    if not holds(text_in(message.payload, message.format), phrases):
        return None
    return hit(key, message.seq, message.created_ms, payload=message.payload, format=message.format, query=text)


def _cursor(tenant: str, text: str, place: _Place) -> str:
    data = msgspec.json.encode(("scan", tenant, text, place))
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read_cursor(cursor: str, tenant: str, text: str) -> _Place:
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        _, of, query, place = msgspec.json.decode(data, type=tuple[str, str, str, _Place])
    except (msgspec.MsgspecError, binascii.Error, ValueError, TypeError):
        raise ConfigurationError("This is not a cursor that a scan gave: start again without one.") from None
    if (of, query) != (tenant, text):
        raise ConfigurationError("This cursor is of another search: start again without one.")
    return place


def _ignore(_: int) -> None: ...
