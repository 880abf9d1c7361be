"""Read a thread around the records that a store cannot return, so that one bad record does not hide the others.

Most stores return every record unchanged, and decoding finds the bad one. Where the store itself must understand its
records (an encrypted one opens them, object storage decodes segments), reading a page with a bad one raises
`CorruptRecordError`. Then these functions read the page in parts, down to the bad record. A page without one costs the
same as a plain read.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from everthread.contract import Store
from everthread.errors import CorruptRecordError
from everthread.model import Message, MessagePage, ThreadKey

MOST_UNREADABLE = 100
"""The most bad records of one page: each costs several round trips."""

log = logging.getLogger("everthread.readable")


class Unreadable(msgspec.Struct, frozen=True):
    """A record that cannot be read: its place and the reason, without content.

    Attributes:
        seq: Its position; ``None``: none of the thread can be read.
    """

    key: ThreadKey
    seq: int | None
    reason: str


OnUnreadable = Callable[[Unreadable], object]


def warn(unreadable: Unreadable) -> None:
    """Log a record that is left out."""
    log.warning("Position %s of %s is left out: %s", unreadable.seq, unreadable.key, unreadable.reason)


def ignore(_: Unreadable) -> None:
    """Leave a record out without a message."""


async def read_around(
    store: Store,
    key: ThreadKey,
    *,
    start: int = 0,
    stop: int | None = None,
    limit: int | None = None,
    on_unreadable: OnUnreadable = warn,
) -> MessagePage:
    """Read as ``Store.read`` does, without the records that cannot be read.

    Raises:
        CorruptRecordError: There are more than `MOST_UNREADABLE` of them.
    """
    try:
        return await store.read(key, start=start, stop=stop, limit=limit)
    except CorruptRecordError:
        pass
    # A page without messages still has the bounds.
    bounds = await store.read(key, limit=0)
    at, end = max(start, bounds.head_seq), bounds.next_seq if stop is None else min(stop, bounds.next_seq)
    found = await _Around(store, key, on_unreadable).between(at, end, limit) if at < end else []
    return MessagePage(tuple(found), bounds.head_seq, bounds.next_seq)


async def read_last_around(
    store: Store, key: ThreadKey, count: int, *, before: int | None = None, on_unreadable: OnUnreadable = warn
) -> MessagePage:
    """Read as ``Store.read_last`` does, without the records that cannot be read.

    Raises:
        CorruptRecordError: There are more than `MOST_UNREADABLE` of them.
    """
    try:
        return await store.read_last(key, count, before=before)
    except CorruptRecordError:
        pass
    bounds = await store.read(key, limit=0)
    at = bounds.next_seq if before is None else min(before, bounds.next_seq)
    found = await _Around(store, key, on_unreadable).last(bounds.head_seq, at, count)
    return MessagePage(tuple(found), bounds.head_seq, bounds.next_seq)


async def read_all_around(
    store: Store, key: ThreadKey, *, start: int = 0, page_size: int = 500, on_unreadable: OnUnreadable = warn
) -> AsyncIterator[Message]:
    """Yield every kept message of a thread from ``start`` on, in pages, without those that cannot be read."""
    while True:
        page = await read_around(store, key, start=start, limit=page_size, on_unreadable=on_unreadable)
        for message in page:
            yield message
        if len(page) < page_size:
            return
        start = page[-1].seq + 1


class _Around:
    def __init__(self, store: Store, key: ThreadKey, on_unreadable: OnUnreadable) -> None:
        self._store = store
        self._key = key
        self._on_unreadable = on_unreadable
        self._left = MOST_UNREADABLE

    async def between(self, start: int, stop: int, limit: int | None = None) -> list[Message]:
        """Return the first ``limit`` readable messages at ``start`` ≤ seq < ``stop``."""
        try:
            return list(await self._store.read(self._key, start=start, stop=stop, limit=limit))
        except CorruptRecordError as error:
            if not self._left:
                raise
            if stop - start == 1:
                self._left -= 1
                self._on_unreadable(Unreadable(self._key, start, str(error)))
                return []
        middle = (start + stop) // 2
        found = await self.between(start, middle, limit)
        if limit is None or len(found) < limit:
            found += await self.between(middle, stop, None if limit is None else limit - len(found))
        return found

    async def last(self, start: int, stop: int, count: int) -> list[Message]:
        """Return the newest ``count`` readable messages at ``start`` ≤ seq < ``stop``."""
        found: list[Message] = []
        wanted = width = count
        while start < stop and wanted:
            low = max(start, stop - width)
            page = await self._at_most(low, stop, wanted) if width > wanted else await self.between(low, stop)
            if page is None:
                width = max(width // 2, wanted)
                continue
            found, stop = page + found, low
            wanted = count - len(found)
            # A gap may have any width.
            width = wanted if page else 2 * width
        return found

    async def _at_most(self, start: int, stop: int, most: int) -> list[Message] | None:
        """Return the messages of a wide range; ``None`` if there are more than ``most``, or one is unreadable."""
        try:
            page = await self._store.read(self._key, start=start, stop=stop, limit=most + 1)
        except CorruptRecordError:
            return None
        return list(page) if len(page) <= most else None
