"""Keep a vector index up to date with a store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing

import msgspec
import numpy as np

from everthread.capabilities import SupportsSealing, SupportsTenantList, capability
from everthread.contract import Store
from everthread.errors import ConfigurationError, CorruptRecordError, StoreUnavailableError
from everthread.listing import THREADS_A_PAGE, every_thread, for_each, read_turns
from everthread.model import Message, Thread, ThreadKey
from everthread.readable import ignore
from everthread.recall.embedders import Embedder
from everthread.recall.index import Entry, Mark, VectorIndex
from everthread.recall.passages import VERSION, passages_of

log = logging.getLogger("everthread.recall")

_PASSAGES_AT_ONCE = 32
_THREADS_AT_ONCE = 4
_SHORT_THREAD = 1000
"""A thread of at most this number of messages is compared with the index at once; a longer one in a whole pass."""

_OVERLAP_MS = 60_000
"""How far a pass over new activity goes back, because clocks differ and activity may be listed late."""

_LONGEST_PAUSE = 60.0
_NO_VECTOR = np.zeros(0, np.float32)


class Followed(msgspec.Struct, frozen=True):
    """The result of a pass.

    Attributes:
        threads: The number of threads whose entries changed.
        added: The number of passages that were embedded.
        removed: The number of threads whose entries were removed because the threads are gone.
        unreadable: The number of threads that were left out because the store cannot read them.
    """

    threads: int = 0
    added: int = 0
    removed: int = 0
    unreadable: int = 0


class Lag(msgspec.Struct, frozen=True):
    """What an index lacks: the number of threads with new or changed messages, and of new messages in them."""

    threads: int = 0
    messages: int = 0


class Follower:
    """Reads what is new in a store, embeds it and writes it to an index.

    It needs no change to the store and never delays or fails an append. Each write to the index is one atomic step with
    the thread's mark, so a follower that is killed continues without a gap or a double, and several may run.

    Args:
        store: The store.
        index: The index; its embedder's model must be that of ``embedder``.
        embedder: The model.
        tenants: The tenants to follow; ``None`` for all, if the store can list them.
        allow_encrypted: Index an encrypted store. Vectors are not encrypted and reveal what a text is about.

    Raises:
        ConfigurationError: The index is of another model, the store is encrypted and that is not allowed, or it cannot
            list its tenants.
    """

    def __init__(
        self,
        store: Store,
        index: VectorIndex,
        embedder: Embedder,
        *,
        tenants: Iterable[str] | None = ("",),
        allow_encrypted: bool = False,
    ) -> None:
        if index.model != f"{embedder.name}/{VERSION}":
            raise ConfigurationError(f"The index is of the model {index.model}, not of {embedder.name}.")
        if capability(store, SupportsSealing) is not None and not allow_encrypted:
            raise ConfigurationError(
                "The store is encrypted. Vectors are not, and reveal what a text is about. "
                "allow_encrypted=True permits them."
            )
        if tenants is None and capability(store, SupportsTenantList) is None:
            raise ConfigurationError("This store cannot list its tenants: name them.")
        self._store = store
        self._index = index
        self._embedder = embedder
        self._tenants = None if tenants is None else tuple(tenants)
        self._active_since: dict[str, int] = {}

    async def catch_up(self, *, whole: bool = True, on_added: Callable[[int], object] | None = None) -> Followed:
        """Follow what happened since the last pass.

        Args:
            whole: Look at every thread, and remove what is gone from the store. Otherwise only threads that were active
                since this follower's last pass.
            on_added: Called with each number of embedded passages.

        Raises:
            StoreUnavailableError: The store, the index or the model cannot be reached. What was done is kept.
        """
        threads = added = removed = unreadable = 0

        async def update(thread: Thread) -> int | None:
            return await self._update(thread, whole=whole, on_added=on_added or _report_nothing)

        for tenant in await self._all_tenants():
            newest = await self._store.list_threads(tenant, limit=1)

            async with aclosing(for_each(self._changed(tenant, whole), update, at_once=_THREADS_AT_ONCE)) as results:
                async for done in results:
                    threads += bool(done)
                    added += done or 0
                    unreadable += done is None
            # As of the start of the pass: what became active during it is looked at again.
            self._active_since[tenant] = newest.items[0].updated_ms if newest.items else 0
            if whole:
                removed += await self._remove_gone(tenant)
        return Followed(threads, added, removed, unreadable)

    async def follow(self, *, interval: float = 1.0, sweep_every: float = 600.0) -> None:
        """Follow until the task is cancelled. After a failure it waits, at most a minute, and tries again.

        Args:
            interval: Seconds between two passes over new activity.
            sweep_every: Seconds between two passes over all threads, which find deleted ones.
        """
        next_sweep, pause = 0.0, interval
        while True:
            is_whole = time.monotonic() >= next_sweep
            try:
                await self.catch_up(whole=is_whole)
            except StoreUnavailableError as error:
                pause = min(max(1.0, pause * 2), _LONGEST_PAUSE)
                log.warning("The index is not up to date; trying again in %.0f s: %s", pause, error)
            else:
                pause = interval
                if is_whole:
                    next_sweep = time.monotonic() + sweep_every
            await asyncio.sleep(pause)

    async def lag(self) -> Lag:
        """Return what the index lacks. Costs a listing of all threads."""
        threads = messages = 0
        for tenant in await self._all_tenants():
            async for thread, mark in self._marked(every_thread(self._store, tenant)):
                if mark != _mark_of(thread):
                    threads += 1
                    done = 0 if mark is None or _is_another(thread, mark) else mark.next_seq
                    messages += min(thread.next_seq - done, thread.count)
        return Lag(threads, messages)

    async def _all_tenants(self) -> Sequence[str]:
        if self._tenants is not None:
            return self._tenants
        able = capability(self._store, SupportsTenantList)
        assert able is not None
        found = {"", *await self._index.tenants()}
        last = ""
        while some := await able.list_tenants(after=last):
            found.update(some)
            last = some[-1]
        return sorted(found)

    async def _changed(self, tenant: str, whole: bool) -> AsyncIterator[Thread]:
        since = 0 if whole else self._active_since.get(tenant, 0) - _OVERLAP_MS
        async for thread, mark in self._marked(self._active(tenant, since)):
            if mark != _mark_of(thread):
                yield thread

    async def _active(self, tenant: str, since: int) -> AsyncIterator[Thread]:
        if since <= 0:
            async for thread in every_thread(self._store, tenant):
                yield thread
            return
        cursor: str | None = None
        while True:
            page = await self._store.list_threads(tenant, limit=100, cursor=cursor)
            for thread in page:
                if thread.updated_ms < since:
                    return
                yield thread
            cursor = page.cursor
            if cursor is None:
                return

    async def _marked(self, threads: AsyncIterator[Thread]) -> AsyncIterator[tuple[Thread, Mark | None]]:
        some: list[Thread] = []
        async for thread in threads:
            some.append(thread)
            if len(some) == THREADS_A_PAGE:
                marks = await self._index.marks([each.key for each in some])
                for each in some:
                    yield each, marks.get(each.key)
                some = []
        marks = await self._index.marks([each.key for each in some])
        for each in some:
            yield each, marks.get(each.key)

    async def _update(self, thread: Thread, *, whole: bool, on_added: Callable[[int], object]) -> int | None:
        """Bring a thread's entries up to date; return the number added, or ``None`` if the thread cannot be read."""
        key = thread.key
        mark = (await self._index.marks([key])).get(key)
        if mark is not None and _is_another(thread, mark):
            await self._index.remove(key)
            mark = None
        try:
            if mark is None or (mark.count >= 0 and _only_grew(thread, mark)):
                return await self._bring(thread, mark, on_added, compared=False, whole=True)
            # Of a long thread only the new turns now; the rest is compared in the next pass over all threads.
            compared = whole or thread.count <= _SHORT_THREAD
            return await self._bring(thread, mark, on_added, compared=compared, whole=compared)
        except CorruptRecordError as error:
            log.warning("The index leaves out %s: %s", key, error)
            return None

    async def _bring(
        self, thread: Thread, mark: Mark | None, on_added: Callable[[int], object], *, compared: bool, whole: bool
    ) -> int:
        """Add what the index lacks; return the number of added passages.

        Args:
            thread: The thread as it was listed.
            mark: The mark that the index has now.
            on_added: Called with each number of added passages.
            compared: Read the whole thread and also remove what it lacks. Otherwise read what follows the mark.
            whole: What was read makes the index equal to the thread.
        """
        key, added = thread.key, 0
        stored = dict(await self._index.entries(key)) if compared else {}
        gone = set(stored)
        start = end = mark.next_seq if mark is not None and not compared else 0
        waiting: list[Entry] = []
        texts: list[str] = []

        async def write(new: Mark, remove: set[tuple[int, int]]) -> bool:
            vectors = await self._embedder.embed(texts) if texts else ()
            entries = [msgspec.structs.replace(each, vector=v) for each, v in zip(waiting, vectors, strict=True)]
            return await self._index.add(key, entries, new, expected=mark, remove=remove)

        async with aclosing(_turns(self._store, key, start)) as turns:
            async for turn in turns:
                for entry, text in _entries_of(turn):
                    place = (entry.turn, entry.part)
                    gone.discard(place)
                    if stored.get(place) != entry.digest:
                        waiting.append(entry)
                        texts.append(text)
                end = max(end, turn[-1].seq + 1)
                if len(waiting) >= _PASSAGES_AT_ONCE:
                    done = Mark(thread.created_ms, thread.head_seq, 0 if compared else end, -1, 0)
                    if not await write(done, set()):
                        return added  # another follower works on this thread
                    mark, added = done, added + len(waiting)
                    on_added(len(waiting))
                    waiting, texts = [], []
        done = _mark_of(thread)
        if not whole or end > thread.next_seq:
            # Not compared, or appended to since it was listed: the next pass sees a difference.
            done = msgspec.structs.replace(done, next_seq=max(end, done.next_seq), count=-1)
        if await write(done, gone) and waiting:
            added += len(waiting)
            on_added(len(waiting))
        return added

    async def _remove_gone(self, tenant: str) -> int:
        removed, after = 0, ""
        while some := await self._index.threads(tenant, after=after):
            for thread_id in some:
                key = ThreadKey(thread_id, tenant)
                try:
                    thread = await self._store.get_thread(key)
                except CorruptRecordError:
                    continue
                if thread is None:
                    await self._index.remove(key)
                    removed += 1
            after = some[-1]
        return removed


async def _turns(store: Store, key: ThreadKey, start: int) -> AsyncGenerator[list[Message], None]:
    async for turn in read_turns(store, key, start=start, on_unreadable=ignore):
        yield turn


def _entries_of(turn: Sequence[Message]) -> Iterator[tuple[Entry, str]]:
    """Yield the passages of a turn as entries whose vectors are still empty, with their texts."""
    created = {message.seq: message.created_ms for message in turn}
    for each in passages_of(turn):
        yield (
            Entry(turn[0].turn, turn[-1].seq, each.part, each.seq, created[each.seq], each.digest, _NO_VECTOR),
            each.text,
        )


def _mark_of(thread: Thread) -> Mark:
    return Mark(thread.created_ms, thread.head_seq, thread.next_seq, thread.count, thread.size)


def _is_another(thread: Thread, mark: Mark) -> bool:
    """Return whether the thread was deleted and created again since the mark."""
    return thread.created_ms != mark.created_ms or thread.next_seq < mark.next_seq


def _only_grew(thread: Thread, mark: Mark) -> bool:
    """Return whether a thread only got messages since the mark: none was trimmed, undone or given another size."""
    return (
        thread.head_seq == mark.head_seq
        and thread.next_seq > mark.next_seq
        and thread.count - mark.count == thread.next_seq - mark.next_seq
    )


def _report_nothing(_: int) -> None: ...
