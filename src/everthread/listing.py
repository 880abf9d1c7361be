"""Find, follow, tag and undo: operations on whole threads, on every engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import msgspec

from everthread.contract import Store
from everthread.errors import ConflictError, CorruptRecordError, ThreadNotFoundError
from everthread.messages import codec
from everthread.messages.link_reader import SpanReader, readable_view
from everthread.model import (
    Message,
    Page,
    Thread,
    ThreadKey,
    Truncated,
    check_count,
    to_milliseconds,
)
from everthread.readable import OnUnreadable, Unreadable, ignore, read_all_around, read_around, read_last_around, warn

T = TypeVar("T")

THREADS_A_PAGE = 1000
MESSAGES_A_PAGE = 500
_MOST_LOOKED_AT = 100_000
_MOST_CANDIDATES = 1000
_MOST_SHOWN = 5
_TITLE_SEARCH = 5
"""The number of first messages to search for the title of a thread without one."""


class ThreadFilter(msgspec.Struct, frozen=True):
    """Selects threads. A thread must pass all conditions.

    Attributes:
        title: The title as `title_of` returns it contains this text, in any case.
        metadata: Each of these keys has this value. A text also matches the JSON value with this form (``"7"`` and 7).
        active_after: The last activity was then or later.
        active_before: The last activity was before.
        longer_than: The thread has more messages than this.
        ids: IDs, or shell patterns (``trip-*``) of IDs. Empty for all threads.
    """

    title: str = ""
    metadata: Mapping[str, object] = {}
    active_after: datetime | None = None
    active_before: datetime | None = None
    longer_than: int | None = None
    ids: tuple[str, ...] = ()

    def accepts(self, thread: Thread) -> bool:
        """Return whether a thread passes. `find_threads` also knows the titles of threads that store none."""
        after, before = self.active_after, self.active_before
        return (
            self.title.casefold() in (thread.title or "").casefold()
            and all(_is_tagged(thread.metadata, name, value) for name, value in self.metadata.items())
            and (after is None or thread.updated_ms >= to_milliseconds(after))
            and (before is None or thread.updated_ms < to_milliseconds(before))
            and (self.longer_than is None or thread.count > self.longer_than)
            and (not self.ids or any(fnmatchcase(thread.key.thread_id, pattern) for pattern in self.ids))
        )


def _is_tagged(metadata: Mapping[str, object], name: str, wanted: object) -> bool:
    if name not in metadata:
        return False
    value = metadata[name]
    return value == wanted or (isinstance(wanted, str) and codec.encode(value) == wanted.encode())


ALL_THREADS = ThreadFilter()


class MessageFilter(msgspec.Struct, frozen=True):
    """Selects messages. A message must pass all conditions; one of unknown time passes no condition on time.

    Attributes:
        since: It was stored then or later.
        until: It was stored before.
        roles: It has one of these roles. Empty for any.
        tool: It calls the tool of this name, or has the result of such a call.
        text: Its text, the arguments of a call or a result contains this text, in any case.
    """

    since: datetime | None = None
    until: datetime | None = None
    roles: tuple[str, ...] = ()
    tool: str = ""
    text: str = ""

    def accepts(self, created_ms: int | None, seen: codec.View, calls: set[str] | None = None) -> bool:
        """Return whether a message passes.

        Args:
            created_ms: When it was stored, in milliseconds since 1970.
            seen: Its view.
            calls: The IDs of the calls of ``tool`` in earlier messages. Gets those of this message.
        """
        calls = set() if calls is None else calls
        called = {call.id for call in seen.calls if call.name == self.tool}
        calls |= called
        return (
            self._is_in_time(created_ms)
            and (not self.roles or seen.role in self.roles)
            and (not self.tool or bool(called) or any(result.id in calls for result in seen.results))
            and (not self.text or any(self.text.casefold() in part.casefold() for part in _texts_of(seen)))
        )

    def _is_in_time(self, created_ms: int | None) -> bool:
        if self.since is None and self.until is None:
            return True
        return (
            created_ms is not None
            and (self.since is None or created_ms >= to_milliseconds(self.since))
            and (self.until is None or created_ms < to_milliseconds(self.until))
        )


def _texts_of(seen: codec.View) -> Iterator[str]:
    yield seen.text
    yield from (call.arguments for call in seen.calls)
    yield from (result.text for result in seen.results)


ALL_MESSAGES = MessageFilter()


async def find_threads(
    store: Store, tenant: str = "", only: ThreadFilter = ALL_THREADS, *, page_size: int = THREADS_A_PAGE
) -> AsyncIterator[Thread]:
    """Yield a tenant's threads that pass the filter, the newest activity first.

    Reads pages on demand and has one in memory. With ``active_after`` it ends at the first older thread; with other
    filters it reads every thread until the caller stops. With ``title`` it reads the first messages of threads without
    a title. Misses threads that become active between two pages, as `Store.list_threads` does: `every_thread` finds
    them.
    """
    cursor: str | None = None
    oldest = 0 if only.active_after is None else to_milliseconds(only.active_after)
    while True:
        page: Page[Thread] = await store.list_threads(tenant, limit=page_size, cursor=cursor)
        for thread in page:
            if thread.updated_ms < oldest:
                return
            if await passes(store, thread, only):
                yield thread
        cursor = page.cursor
        if cursor is None:
            return


async def passes(store: Store, thread: Thread, only: ThreadFilter) -> bool:
    """Return whether a thread passes a filter. Reads the first messages of one without a title, if that decides."""
    if only.accepts(thread):
        return True
    if thread.title or not msgspec.structs.replace(only, title="").accepts(thread):
        return False
    return only.title.casefold() in (await title_of(store, thread) or "").casefold()


async def every_thread(store: Store, tenant: str = "", *, page_size: int = THREADS_A_PAGE) -> AsyncIterator[Thread]:
    """Yield all threads of a tenant, also those that become active during the walk.

    These move to the front, past a listing of many pages. So threads that were active since are listed again, until
    they fit one page: some threads come twice.
    """
    since = -1
    while True:
        page = await store.list_threads(tenant, limit=page_size)
        front = page.items[0].updated_ms if page.items else since
        # One page is a snapshot. Imported threads may all have one time although none has moved.
        is_last = page.cursor is None or page.items[-1].updated_ms < since or front == since
        while True:
            for thread in page:
                if thread.updated_ms >= since:
                    yield thread
            if page.cursor is None or page.items[-1].updated_ms < since:
                break
            page = await store.list_threads(tenant, limit=page_size, cursor=page.cursor)
        if is_last:
            return
        since = front


async def for_each(
    found: AsyncIterator[Thread], work: Callable[[Thread], Coroutine[Any, Any, T]], *, at_once: int
) -> AsyncGenerator[T, None]:
    """Yield the result of ``work`` for each thread, in the order of the threads, with ``at_once`` calls at a time.

    If a call fails, or the caller closes this generator (`contextlib.aclosing`), the others are cancelled.
    """
    under_way: deque[asyncio.Task[T]] = deque()
    try:
        async for thread in found:
            under_way.append(asyncio.create_task(work(thread)))
            if len(under_way) >= at_once:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def title_of(store: Store, thread: Thread, *, on_unreadable: OnUnreadable = ignore) -> str | None:
    """Return a thread's title; if it has none, one from its first user message that is still stored.

    Args:
        on_unreadable: Called for each record that a title was looked for in and that cannot be read.
    """
    if thread.title:
        return thread.title
    try:
        first = await read_around(store, thread.key, limit=_TITLE_SEARCH, on_unreadable=on_unreadable)
    except CorruptRecordError as error:
        on_unreadable(Unreadable(thread.key, None, str(error)))
        return None
    return codec.title_from(_readable_views(thread.key, first, on_unreadable))


async def end_of(store: Store, thread: Thread) -> str:
    """Return ``"cancelled"`` or ``"failed"`` if the run of a thread's last turn ended so; otherwise an empty text.

    Reads the last message. One that cannot be read has no end.
    """
    if not thread.count or thread.damage:
        return ""
    try:
        newest = await read_last_around(store, thread.key, 1, on_unreadable=ignore)
    except CorruptRecordError:
        return ""
    return next((seen.ended for seen in _readable_views(thread.key, newest, ignore)), "")


def _readable_views(key: ThreadKey, messages: Iterable[Message], on_unreadable: OnUnreadable) -> Iterator[codec.View]:
    for message in messages:
        try:
            yield codec.view(message, key)
        except CorruptRecordError as error:
            on_unreadable(Unreadable(key, message.seq, str(error)))


class Usage(msgspec.Struct, frozen=True):
    """The number of threads and messages of a tenant, and the bytes of their payloads."""

    threads: int = 0
    messages: int = 0
    size: int = 0


async def usage(store: Store, tenant: str = "", *, page_size: int = THREADS_A_PAGE) -> Usage:
    """Add up a tenant's threads. Costs a listing of all of them, ``page_size`` a round trip.

    Counts threads that move past the listing too, as `every_thread` does. Takes the memory of one number a thread.
    """
    threads = messages = size = 0
    seen = set[int]()
    async for thread in every_thread(store, tenant, page_size=page_size):
        if hash(thread.key) not in seen:
            seen.add(hash(thread.key))
            threads, messages, size = threads + 1, messages + thread.count, size + thread.size
    return Usage(threads, messages, size)


async def follow(
    store: Store, key: ThreadKey, *, start: int = 0, interval: float = 0.25, page_size: int = MESSAGES_A_PAGE
) -> AsyncIterator[Message]:
    """Yield the messages of a thread from position ``start`` on, and then each new one soon after it is stored.

    Ends only when the caller stops. Each poll costs one read of at most ``page_size`` messages. Does not report dropped
    messages. A thread that was deleted and created again starts from its beginning.

    Args:
        store: The store.
        key: The thread.
        start: The first position.
        interval: Seconds between two polls without new messages.
        page_size: The most messages of one read.
    """
    while True:
        page = await store.read(key, start=start, limit=page_size)
        for message in page:
            yield message
        if page:
            start = page[-1].seq + 1
        elif page.next_seq < start:
            start = 0
            continue
        if len(page) < page_size:
            await asyncio.sleep(interval)


async def tag_thread(store: Store, key: ThreadKey, tags: Mapping[str, object], *, remove: Iterable[str] = ()) -> Thread:
    """Change some of a thread's metadata and leave the rest, also if other writers change it at the same time.

    Raises:
        ThreadNotFoundError: There is no such thread.
    """
    dropped = set(remove)
    while True:
        thread = await existing_thread(store, key)
        kept = {name: value for name, value in thread.metadata.items() if name not in dropped}
        try:
            return await store.update_thread(key, metadata={**kept, **tags}, expected_revision=thread.revision)
        except ConflictError:
            # Another change succeeded, so all writers together make progress.
            continue


async def existing_thread(store: Store, key: ThreadKey) -> Thread:
    """Return a thread.

    Raises:
        ThreadNotFoundError: There is no such thread.
    """
    thread = await store.get_thread(key)
    if thread is None:
        raise ThreadNotFoundError(f"There is no {key}.")
    return thread


async def thread_named(store: Store, name: str, tenant: str = "") -> Thread:
    """Return the thread with this ID, else the only thread with an ID or title that begins with it.

    A title in any case; one that is equal comes before longer ones. Costs a listing of all threads unless ``name`` is
    an ID, and looks at the newest 100,000.

    Raises:
        ThreadNotFoundError: There is no such thread, or there are several; gives some of these.
    """
    key = ThreadKey(name, tenant)
    found = await store.get_thread(key)
    if found is not None:
        return found
    beginning: list[Thread] = []
    looked_at = 0
    async for thread in find_threads(store, tenant):
        looked_at += 1
        title = (thread.title or "").casefold()
        if thread.key.thread_id.startswith(name) or title.startswith(name.casefold()):
            beginning.append(thread)
        if looked_at == _MOST_LOOKED_AT or len(beginning) == _MOST_CANDIDATES:
            break
    equal = [thread for thread in beginning if (thread.title or "").casefold() == name.casefold()]
    chosen = equal or beginning
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise ThreadNotFoundError(f"There is no {key}, and no thread with an ID or title that begins so.")
    some = ", ".join(repr(thread.key.thread_id) for thread in chosen[:_MOST_SHOWN])
    raise ThreadNotFoundError(f"Several threads have an ID or title that begins with {name!r}: {some}. Give an ID.")


async def first_since(store: Store, key: ThreadKey, since: datetime) -> int:
    """Return a position from which on the messages since a time are, in the order in which they were stored.

    Reads the newest messages in pages, until all of a page are older.
    """
    since_ms, before = to_milliseconds(since), None
    while True:
        page = await read_last_around(store, key, MESSAGES_A_PAGE, before=before, on_unreadable=ignore)
        if not page or all(each.created_ms is not None and each.created_ms < since_ms for each in page):
            return page[-1].seq + 1 if page else page.head_seq
        before = page[0].seq


def is_another(latest: Thread, earlier: Thread) -> bool:
    """Return whether a thread was deleted and created again with the same ID since ``earlier`` was read."""
    return latest.created_ms != earlier.created_ms or latest.next_seq < earlier.next_seq


# Turns


async def read_turns(
    store: Store, key: ThreadKey, *, start: int = 0, on_unreadable: OnUnreadable = warn
) -> AsyncIterator[list[Message]]:
    """Yield the messages of a thread from ``start`` on, turn by turn. Has one page and one turn in memory."""
    turn: list[Message] = []
    async for message in read_all_around(store, key, start=start, on_unreadable=on_unreadable):
        if turn and turn[-1].turn != message.turn:
            yield turn
            turn = []
        turn.append(message)
    if turn:
        yield turn


async def undo_position(store: Store, key: ThreadKey, turns: int = 1) -> int:
    """Return the position at which the last ``turns`` turns begin, for ``truncate``. Costs their messages.

    Returns the oldest position if the thread has no more turns than that.
    """
    check_count(turns, "turns", least=1)
    begun: set[int] = set()
    start, before = 0, None
    while True:
        page = await store.read_last(key, MESSAGES_A_PAGE, before=before)
        for message in reversed(page.messages):
            if message.turn not in begun and len(begun) == turns:
                return start
            begun.add(message.turn)
            start = message.seq
        if len(page) < MESSAGES_A_PAGE:
            return page.head_seq
        before = start


async def undo(store: Store, key: ThreadKey, turns: int = 1, *, expected_seq: int | None = None) -> Truncated:
    """Drop the last whole turns of a thread permanently.

    A turn is the messages of one append. A call in an older turn goes too if only a dropped turn has its result. The
    positions are never reused. If another writer appends at the same time, nothing is dropped.

    Args:
        store: The store.
        key: The thread.
        turns: The number of turns.
        expected_seq: The thread's next position when the caller last read it.

    Raises:
        ThreadNotFoundError: There is no such thread.
        ConflictError: Another writer has appended; carries the next position.
    """
    seen = (await existing_thread(store, key)).next_seq if expected_seq is None else expected_seq
    return await store.truncate(key, stop=await undo_position(store, key, turns), expected_seq=seen)


async def safe_cut(store: Store, key: ThreadKey, position: int) -> int:
    """Return the highest position at or below ``position`` that separates no tool result from its call.

    ``truncate(stop=position)`` cuts there. Reads the thread up to there, and further until the open calls are answered,
    in pages. Stores only the links between calls and results.
    """
    spans = SpanReader()
    async for message in read_all_around(store, key):
        if message.seq > position and spans.is_settled(position):
            break
        spans.add(message, readable_view(message, key))
    return spans.safe_stop(position)
