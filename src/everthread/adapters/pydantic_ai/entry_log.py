"""The entries of conversations in the threads of one tenant: found by ID, and followed from the newest to the first.

A thread holds the entries of one conversation. The entries before a fork stay in the thread of the conversation that
was forked, and branches of a conversation share its thread.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import NamedTuple

from everthread.adapters.pydantic_ai.marks import (
    Mark,
    Newest,
    Place,
    State,
    absolute,
    mark_of,
    names_in,
    place_in_id,
    plain_id,
)
from everthread.adapters.pydantic_ai.messages import check_format
from everthread.adapters.retrying import retried
from everthread.contract import Store, read_all
from everthread.errors import CorruptRecordError, ThreadNotFoundError
from everthread.listing import every_thread
from everthread.model import Message, MessagePage, ThreadKey

_FIRST_PAGE, _LARGEST_PAGE = 32, 500
_MOST_REMEMBERED = 20_000


class Entry(NamedTuple):
    """A stored entry."""

    id: str
    parent_id: str | None
    parent: Place | None
    place: Place
    message: Message


class EntryLog:
    """The entries in the threads of one tenant."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self.tenant = tenant
        # Places never change: a wrong one is of a thread that was deleted and created again, and is noticed.
        self._places: dict[str, Place] = {}
        self._changing = threading.Lock()

    def key(self, thread: str) -> ThreadKey:
        """Return the key of a thread."""
        return ThreadKey(thread, self.tenant)

    def remember(self, entry_id: str, place: Place) -> None:
        """Remember the place of an entry, so that it is found without a search."""
        with self._changing:
            self._places.pop(entry_id, None)
            self._places[entry_id] = place
            while len(self._places) > _MOST_REMEMBERED:
                del self._places[next(iter(self._places))]

    async def newest(self, thread: str) -> Newest:
        """Return the state of a thread.

        Raises:
            CorruptRecordError: A record that was read is not JSON.
            UnsupportedError: The newest messages have another format.
        """
        key, count = self.key(thread), 1
        while True:
            page = await retried(lambda size=count: self._store.read_last(key, size))
            for at in range(len(page) - 1, -1, -1):
                check_format(page[at], key)
                state = mark_of(page[at], key).state
                if state is not None:
                    self._remember_tips(state, key)
                    return Newest(state, page.messages[at + 1 :], page.next_seq)
            if len(page) < count:
                return Newest(None, page.messages, page.next_seq)
            count = max(count * 4, _FIRST_PAGE)

    def tip_of(self, newest: Newest, thread: str) -> Entry | None:
        """Return the entry of the newest message that another program stored after the state, if there is one."""
        if not newest.tail:
            return None
        place = Place(newest.tail[-1].seq, thread)
        entry_id = mark_of(newest.tail[-1], self.key(thread)).id or plain_id(place)
        self.remember(entry_id, place)
        return Entry(entry_id, None, None, place, newest.tail[-1])

    async def find(self, entry_id: str, *threads: str) -> Place | None:
        """Return the place of an entry; ``None`` if it is not stored.

        One that was not read before is searched for: first in the given threads, then in all of the tenant.
        """
        known = self._places.get(entry_id) or place_in_id(entry_id)
        if known is not None:
            # Entries do not move between threads.
            return known if await self._is_at(entry_id, known) else await self._search(entry_id, known.thread)
        searched: set[str] = set()
        for thread in threads:
            if (found := await self._search(entry_id, thread)) is not None:
                return found
            searched.add(thread)
        async for each in every_thread(self._store, self.tenant):
            thread = each.key.thread_id
            if thread not in searched and (found := await self._search(entry_id, thread)) is not None:
                return found
        return None

    async def follow(self, entry: str | Place, limit: int | None = None) -> AsyncIterator[Entry]:
        """Yield an entry, given by its ID or place, and those before it, newest first, at most ``limit``.

        The history begins with the oldest entry that the retention of its thread left.

        Raises:
            CorruptRecordError: A record is not JSON, or the entries do not form a history.
            ThreadNotFoundError: An entry is not stored.
        """
        pages, seen = _Pages(self._store), set[Place]()
        expected = entry if isinstance(entry, str) else None
        place = entry if isinstance(entry, Place) else self._places.get(entry) or await self.find(entry)
        if place is None:
            raise ThreadNotFoundError(f"The entry {expected!r} is not stored.")
        while place is not None and (limit is None or len(seen) < limit):
            found = await self._entry_at(place, pages)
            if found is None and seen and place.seq < pages.head_seq:
                return
            if expected is not None and (found is None or found.id != expected):
                # The thread is a copy with other positions.
                moved = await self._search(expected, place.thread)
                found = None if moved is None else await self._entry_at(moved, pages)
            if found is None:
                raise ThreadNotFoundError(f"The entry {expected!r} of {self.key(place.thread)} is not stored.")
            if found.place in seen:
                raise CorruptRecordError(f"The entries of {self.key(place.thread)} form a circle: restore a backup.")
            seen.add(found.place)
            self.remember(found.id, found.place)
            yield found
            place, expected = found.parent, found.parent_id

    async def _entry_at(self, place: Place, pages: _Pages) -> Entry | None:
        key = self.key(place.thread)
        message = await pages.newest_below(key, place.seq + 1)
        if message is None or message.seq != place.seq:
            return None
        mark = mark_of(message, key)
        if mark.id:
            return Entry(mark.id, mark.parent_id, absolute(mark.parent, place.thread), place, message)
        if mark.state is not None or mark.erased:
            return None
        parent_id, parent = await self._before(place, pages)
        return Entry(plain_id(place), parent_id, parent, place, message)

    async def _before(self, place: Place, pages: _Pages) -> tuple[str | None, Place | None]:
        """Return the entry that a message without a mark follows: the newest one at that time."""
        key = self.key(place.thread)
        message = await pages.newest_below(key, place.seq)
        if message is None:
            return None, None
        mark = mark_of(message, key)
        if mark.state is not None:
            head = absolute(mark.state.head, place.thread)
            return (names_in(mark.state, key).head_id, head) if head and not mark.state.deleted else (None, None)
        before = Place(message.seq, place.thread)
        return mark.id or plain_id(before), before

    async def _is_at(self, entry_id: str, place: Place) -> bool:
        page = await retried(lambda: self._store.read_last(self.key(place.thread), 1, before=place.seq + 1))
        if not page or page[0].seq != place.seq:
            return False
        return _id_of(page[0], self.key(place.thread)) == entry_id

    async def _search(self, entry_id: str, thread: str) -> Place | None:
        key = self.key(thread)
        async for message in read_all(self._store, key):
            if _id_of(message, key) == entry_id:
                self.remember(entry_id, Place(message.seq, thread))
                return Place(message.seq, thread)
        return None

    def _remember_tips(self, state: State, key: ThreadKey) -> None:
        if state.deleted:
            return
        names = names_in(state, key)
        for entry_id, place in zip((names.head_id, *names.branches), (state.head, *state.branches), strict=False):
            known = absolute(place, key.thread_id)
            if entry_id is not None and known is not None:
                self.remember(entry_id, known)


class _Pages:
    """Messages of threads, read backwards in pages that grow.

    Attributes:
        head_seq: The oldest kept position of the thread that was read last.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key: ThreadKey | None = None
        self._page = MessagePage((), 0, 0)
        self._stop = 0
        self._size = _FIRST_PAGE
        self.head_seq = 0

    async def newest_below(self, key: ThreadKey, stop: int) -> Message | None:
        """Return the newest message of a thread at a position below ``stop``."""
        if self._key != key or stop > self._stop or not self._page or self._page[0].seq >= stop:
            self._page = await retried(lambda: self._store.read_last(key, self._size, before=stop))
            self._key, self._stop, self.head_seq = key, stop, self._page.head_seq
            self._size = min(self._size * 2, _LARGEST_PAGE)
        low, high = 0, len(self._page)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._page[middle].seq < stop else (low, middle)
        return self._page[low - 1] if low else None


def _id_of(message: Message, key: ThreadKey) -> str:
    mark: Mark = mark_of(message, key)
    is_entry = mark.id or (mark.state is None and not mark.erased)
    return (mark.id or plain_id(Place(message.seq, key.thread_id))) if is_entry else ""
