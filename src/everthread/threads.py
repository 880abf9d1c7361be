"""What people do with threads as a whole: find, follow, tag, undo. Written once over the contract, for every engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from everthread import codec
from everthread.contract import Store, read_all
from everthread.errors import ConflictError, CorruptRecordError, ThreadNotFoundError
from everthread.model import (
    Message,
    Page,
    Thread,
    ThreadKey,
    Truncated,
    check_count,
    to_milliseconds,
)
from everthread.spans import SpanReader

T = TypeVar("T")

THREADS_A_PAGE = 1000
MESSAGES_A_PAGE = 500
_TITLE_SEARCH = 5
"""How many of a thread's first messages are read for a title, where another program wrote it without one."""


class ThreadFilter(msgspec.Struct, frozen=True):
    """Which threads are meant; a thread must pass everything that is given.

    Attributes:
        title: Is in the title, capitals apart. A thread without a title has an empty one.
        metadata: Each of these keys has this value. Text matches by its words (``"7"`` also the number 7).
        active_after: The last activity was then or later.
        active_before: The last activity was before.
        longer_than: More messages than that are kept.
    """

    title: str = ""
    metadata: Mapping[str, object] = {}
    active_after: datetime | None = None
    active_before: datetime | None = None
    longer_than: int | None = None

    def accepts(self, thread: Thread) -> bool:
        """Whether a thread passes."""
        after, before = self.active_after, self.active_before
        return (
            self.title.casefold() in (thread.title or "").casefold()
            and all(_is_tagged(thread.metadata, name, value) for name, value in self.metadata.items())
            and (after is None or thread.updated_ms >= to_milliseconds(after))
            and (before is None or thread.updated_ms < to_milliseconds(before))
            and (self.longer_than is None or thread.count > self.longer_than)
        )


def _is_tagged(metadata: Mapping[str, object], name: str, wanted: object) -> bool:
    if name not in metadata:
        return False
    value = metadata[name]
    return value == wanted or (isinstance(wanted, str) and codec.encode(value) == wanted.encode())


ALL_THREADS = ThreadFilter()


async def find_threads(
    store: Store, tenant: str = "", only: ThreadFilter = ALL_THREADS, *, page_size: int = THREADS_A_PAGE
) -> AsyncIterator[Thread]:
    """A tenant's threads that pass the filter, the newest activity first.

    Reads pages as they are needed and keeps one in memory. With ``active_after`` it ends at the
    first thread that is older; other filters look at every thread until the caller has enough.
    """
    cursor: str | None = None
    oldest = 0 if only.active_after is None else to_milliseconds(only.active_after)
    while True:
        page: Page[Thread] = await store.list_threads(tenant, limit=page_size, cursor=cursor)
        for thread in page:
            if thread.updated_ms < oldest:
                return
            if only.accepts(thread):
                yield thread
        cursor = page.cursor
        if cursor is None:
            return


async def every_thread(store: Store, tenant: str = "", *, page_size: int = THREADS_A_PAGE) -> AsyncIterator[Thread]:
    """A tenant's threads, none left out: a thread that becomes active moves to the front, past a listing of many pages.

    What was active meanwhile is therefore listed again, until that is no more than a page: some threads come twice.
    """
    since = -1
    while True:
        page = await store.list_threads(tenant, limit=page_size)
        front = page.items[0].updated_ms if page.items else since
        # One page is a snapshot; and many threads may have one time, if they were imported, without any having moved.
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
    """What ``work`` gives for each thread, in the order of the threads.

    So many are worked on together. When one piece of work fails, or the caller closes this (`contextlib.aclosing`),
    the others are cancelled.
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


async def title_of(store: Store, thread: Thread) -> str | None:
    """A thread's title; if it has none, one from its first user message that is still kept."""
    if thread.title:
        return thread.title
    first = await store.read(thread.key, limit=_TITLE_SEARCH)
    try:
        return codec.title_from(codec.view(message) for message in first)
    except CorruptRecordError:
        return None


class Usage(msgspec.Struct, frozen=True):
    """What a tenant keeps: how many threads and messages, and the payloads' bytes."""

    threads: int = 0
    messages: int = 0
    size: int = 0


async def usage(store: Store, tenant: str = "", *, page_size: int = THREADS_A_PAGE) -> Usage:
    """Adds up a tenant's threads. Costs a listing of all of them, ``page_size`` a round trip.

    Counts also what moves past the listing, as `every_thread` does, and for that remembers a number for each thread.
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
    """The messages of a thread from position ``start`` on, and then each new one soon after it is stored.

    Ends only when the caller stops. Each look costs one read of at most ``page_size`` messages. What
    is dropped meanwhile is not told; a thread that was deleted and begun anew is shown from its start.

    Args:
        interval: Seconds between two looks when there is nothing new.
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
    """Changes some of a thread's metadata and leaves the rest, also when others change it at the same time.

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
            # Somebody's change went through, so all together make progress.
            continue


async def existing_thread(store: Store, key: ThreadKey) -> Thread:
    """What is known of a thread.

    Raises:
        ThreadNotFoundError: There is no such thread.
    """
    thread = await store.get_thread(key)
    if thread is None:
        raise ThreadNotFoundError(f"There is no {key}.")
    return thread


def is_another(latest: Thread, earlier: Thread) -> bool:
    """Whether a thread was deleted and begun anew under the same id since it was looked at."""
    return latest.created_ms != earlier.created_ms or latest.next_seq < earlier.next_seq


# Turns


async def read_turns(store: Store, key: ThreadKey, *, start: int = 0) -> AsyncIterator[list[Message]]:
    """Every kept message of a thread from ``start`` on, turn by turn; keeps one page and one turn in memory."""
    turn: list[Message] = []
    async for message in read_all(store, key, start=start):
        if turn and turn[-1].turn != message.turn:
            yield turn
            turn = []
        turn.append(message)
    if turn:
        yield turn


async def undo_position(store: Store, key: ThreadKey, turns: int = 1) -> int:
    """Where the last ``turns`` turns begin: what `undo` passes to ``truncate``. Costs their messages.

    The thread's oldest position if it has no more turns than that.
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
    """Drops the last whole turns of a thread for good; says what was dropped.

    A turn is what one append wrote. Where a call in an older turn is answered only in a dropped
    one, the call goes too. The dropped positions are not given again. A turn that comes meanwhile is
    never dropped in place of the one that was meant: then nothing is.

    Args:
        store: Where the thread is.
        key: The thread.
        turns: How many.
        expected_seq: The thread's next position when the caller last looked at it.

    Raises:
        ThreadNotFoundError: There is no such thread.
        ConflictError: Somebody has appended to it since; carries the next position.
    """
    seen = (await existing_thread(store, key)).next_seq if expected_seq is None else expected_seq
    return await store.truncate(key, stop=await undo_position(store, key, turns), expected_seq=seen)


async def safe_cut(store: Store, key: ThreadKey, position: int) -> int:
    """The highest position at or below ``position`` that separates no tool result from its call.

    It is where ``truncate(stop=position)`` would cut. Reads the thread up to there, and on until the
    calls that are open there are answered; in pages, and keeps only how calls and results hang together.

    Raises:
        CorruptRecordError: A message cannot be decoded.
    """
    spans = SpanReader()
    async for message in read_all(store, key):
        if message.seq > position and spans.is_settled(position):
            break
        spans.add(message, codec.view(message, key))
    return spans.safe_stop(position)
