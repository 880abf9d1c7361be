"""The contract of a store over a log of entries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from everthread.engines._listing import Listed, looked_at
from everthread.engines._names import NameRange
from everthread.engines._segments import documents, runs
from everthread.engines._segments.compaction import Compaction, Sizes, drop, erase_before, unreferenced
from everthread.engines._segments.log import Draft, Fence, Log, Step, SupersededError, View
from everthread.engines._segments.names import LogPrefix, made_by, name_of, prefix_of
from everthread.engines._segments.recency import Announcement, Found, Listing, StaleMarkers
from everthread.engines._segments.records import HEADER_BYTES, Loaded, Run, State
from everthread.engines._segments.runs import drop_head, drop_tail
from everthread.engines._segments.storage import NotWrittenError, Storage, after_write
from everthread.engines._segments.turns import TurnWriter, born, expect, live, open_calls
from everthread.engines.base import AppendRequest, Engine, ThreadChange
from everthread.engines.batching import Coalescer, later
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    LimitExceededError,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from everthread.model import (
    Appended,
    Document,
    Message,
    MessagePage,
    NewMessage,
    Thread,
    ThreadKey,
    Truncated,
    check_count,
)

CACHE_BYTES = 32 * 1024 * 1024

_LARGE_METADATA = 4096
_MOST_LOOKS = 20

_log = logging.getLogger("everthread")

T = TypeVar("T")


class SegmentEngine(Engine):
    """Stores each thread as a log of immutable entries.

    Args:
        storage: The storage of the objects; opened and closed with this store.
        fence: The times that keep writers and cleaners apart.
        sizes: The sizes of objects.
        cache_bytes: The size of the cache of objects, which never change.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        fence: Fence | None = None,
        sizes: Sizes | None = None,
        cache_bytes: int = CACHE_BYTES,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_count(cache_bytes, "cache_bytes")
        self._storage = storage
        self._sizes = sizes or Sizes()
        self._threads = Log(storage, fence=fence or Fence(), cache_bytes=cache_bytes)
        self._most_bytes = storage.max_object_bytes - HEADER_BYTES
        self._appends: Coalescer[AppendRequest, Appended] = Coalescer(
            self._append_turns,
            key=lambda request: request.key,
            size_of=lambda request: _bytes_of(request.messages),
            max_bytes=self._most_bytes,
        )
        self._stale = StaleMarkers(storage, self._threads.fence.listing_s)
        self._background: set[asyncio.Task[None]] = set()
        self._compacting: set[LogPrefix] = set()

    @property
    def location(self) -> str:
        return self._storage.location

    async def _open(self) -> None:
        await self._storage.open(read_only=self.read_only)

    async def _close(self) -> None:
        await self._appends.drain()
        self._stale.close()
        while self._background:
            await asyncio.wait(self._background)
        await self._storage.close()

    def _release(self) -> None:
        self._storage.release()

    async def _translated(self, call: Awaitable[T]) -> T:
        # Each storage translates its driver's exceptions.
        try:
            return await super()._translated(call)
        except NotWrittenError as error:
            raise StoreUnavailableError(*error.args) from None

    # Messages

    async def check_append(self, key: ThreadKey, messages: Sequence[NewMessage]) -> None:
        await super().check_append(key, messages)
        self._check_size(key, messages)

    async def _append(self, request: AppendRequest) -> Appended:
        self._check_size(request.key, request.messages)
        return await self._appends.submit(request)

    def _check_size(self, key: ThreadKey, messages: Sequence[NewMessage]) -> None:
        size, most = _bytes_of(messages), self._most_bytes
        if size > most:
            raise LimitExceededError(
                f"A turn for {key} has {size:,} bytes; the limit of an append is {most:,}.", size, most
            )

    async def _append_turns(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        prefix = prefix_of(batch[0].key)
        writer = TurnWriter(self._threads, prefix, batch)
        view = await self._change(prefix, writer.step, is_activity=True)
        repeated = [each.first_seq for each in writer.results if isinstance(each, Appended) and each.replayed]
        if repeated and view.state is not None:
            await self._threads.flush(prefix, view.state, repeated)
        return writer.results

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        return await self._page(
            key,
            lambda state: list(runs.oldest(runs.between(state.runs, start, stop), limit)),
            lambda found: runs.oldest_messages(found, limit),
        )

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        return await self._page(
            key,
            lambda state: runs.newest(runs.between(state.runs, 0, before), count),
            lambda found: runs.newest_messages(found, count),
        )

    async def _page(
        self,
        key: ThreadKey,
        wanted: Callable[[State], Sequence[Run]],
        messages_of: Callable[[Sequence[tuple[Run, Loaded]]], Sequence[Message]],
    ) -> MessagePage:
        prefix = prefix_of(key)

        async def page(state: State) -> MessagePage:
            needed = wanted(state)
            loaded = await asyncio.gather(*(self._threads.loaded(prefix, run) for run in needed))
            messages = messages_of(list(zip(needed, loaded, strict=True)))
            return MessagePage(tuple(messages), state.head_seq, state.next_seq)

        found = await self._look(prefix, page)
        return MessagePage((), 0, 0) if found is None else found

    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated:
        prefix = prefix_of(key)
        done = Truncated(0, 0, 0)

        async def step(view: View) -> Draft:
            nonlocal done
            before = self._existing(view, key)
            expect(view, before, expected_seq)
            state = before.successor()
            await drop_head(state, start, lambda run: self._threads.block(prefix, run))
            if stop is not None and stop < state.next_seq:
                cut = await drop_tail(state, stop, lambda run: self._threads.block(prefix, run))
                called = await open_calls(self._threads, prefix, before)
                state.calls.extend((call_id, -1) for call_id, at in called.items() if at >= cut)
            done = Truncated(before.count - state.count, state.head_seq, state.next_seq)
            if stop is not None:
                state.updated_ms = max(self._now_ms(), state.created_ms)
            return Draft(state)

        await self._change(prefix, step, is_activity=stop is not None)
        return done

    # Threads

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        prefix = prefix_of(key)
        return await self._look(prefix, lambda state: self._threads.thread(prefix, state))

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        bury = None if self.read_only else self._delete
        while True:
            listing = Listing(self._threads, name_of(tenant), self._now_ms(), bury)
            found = await listing.newest(limit, after)
            known, room = await looked_at(found, self._listed)
            threads = [thread for thread in known if thread is not None]
            more = len(found) == limit or room <= 0
            if threads or not more:
                return threads, more
            # All threads of the page have just been deleted.
            after = found[-1].recency

    async def _listed(self, found: Found) -> Thread | None:
        try:
            return await self._thread_now(found.prefix, found.state)
        except CorruptRecordError as error:
            _log.warning("A listing leaves out a thread: %s", error)
            return None

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        prefix = prefix_of(key)
        # Every entry carries the state, so large metadata is a separate object.
        beside = await self._put_beside(prefix, key, change.metadata)

        async def step(view: View) -> Draft:
            state = self._existing(view, key).successor()
            if change.expected_revision is not None and change.expected_revision != state.revision:
                view.must_be_fresh()
                raise ConflictError.at_revision(key, state.revision, change.expected_revision)
            state.title = state.title if change.title is None else change.title
            if change.retention is not None:
                state.retention = change.own_retention
                state.expires_ms = None if change.expire_ms is None else state.updated_ms + change.expire_ms
            if change.metadata is not None:
                state.metadata_at = beside
                state.metadata = msgspec.Raw(b"{}" if beside else change.metadata)
            state.revision += 1
            return Draft(state)

        try:
            view = await self._change(prefix, step)
        except (ThreadNotFoundError, ConflictError):
            if beside:
                self._later(drop(self._storage, prefix, {beside}))
            raise
        return await self._thread_after(view, key)

    async def _put_beside(self, prefix: LogPrefix, key: ThreadKey, metadata: bytes | None) -> str:
        if metadata is None or len(metadata) <= _LARGE_METADATA:
            return ""
        view = await self._threads.current(prefix)
        self._existing(view, key)
        name = made_by(view.number + 1)
        await self._storage.create(prefix.segments, name, metadata)
        return name

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        return await self._delete(prefix_of(key), expected_seq)

    async def _delete(self, prefix: LogPrefix, expected_seq: int | None = None) -> bool:
        existed = False

        async def step(view: View) -> Draft | None:
            nonlocal existed
            state = live(view, self._now_ms())
            existed = state is not None
            if state is None:
                view.must_be_fresh()
            else:
                expect(view, state, expected_seq)
            if view.state is None or view.state.gone:
                return None
            number = view.number + 1
            return Draft(State(number=number, born=number, gone=True))

        view = await self._change(prefix, step)
        if view.state is None:
            return existed
        with after_write():
            if not existed:
                await self._threads.flush(prefix, view.state)
            # Also if it was deleted before: that process may have died before it erased everything.
            await erase_before(self._threads, prefix, view.state.born)
        return existed

    async def _delete_tenant(self, tenant: str) -> int:
        listing = Listing(self._threads, name_of(tenant), self._now_ms(), self._delete)
        deleted = 0
        async for prefixes in listing.prefixes():
            deleted += sum(await asyncio.gather(*map(self._delete, prefixes)))
        return deleted

    # Documents

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        prefix = prefix_of(key)
        return await self._look(prefix, lambda state: documents.get(self._storage, prefix, state, name))

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        prefix, document = prefix_of(key), Document(name, value, 0, self._now_ms())
        state = live(await self._threads.current(prefix), self._now_ms())
        if state is not None:
            return await documents.put(self._threads, prefix, state, document, expected_revision)
        if expected_revision:
            raise ConflictError.at_revision(f"Document {name!r} of {key}", 0, expected_revision)
        state = await self._begun(prefix, key)
        with after_write():
            return await documents.put(self._threads, prefix, state, document, expected_revision)

    async def _begun(self, prefix: LogPrefix, key: ThreadKey) -> State:
        async def step(view: View) -> Draft | None:
            now_ms = self._now_ms()
            return Draft(born(view, key, now_ms)) if live(view, now_ms) is None else None

        return self._existing(await self._change(prefix, step, is_activity=True), key)

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        prefix = prefix_of(key)
        return bool(await self._look(prefix, lambda state: documents.delete(self._storage, prefix, state, name)))

    async def _list_documents(self, key: ThreadKey, names: NameRange) -> tuple[str, ...]:
        prefix = prefix_of(key)
        return await self._look(prefix, lambda state: documents.names(self._storage, prefix, state, names)) or ()

    # Shared

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _look(self, prefix: LogPrefix, at: Callable[[State], Awaitable[T]]) -> T | None:
        """Return ``at`` of a thread's state; repeat it if a newer entry dropped an object that it needs."""
        for _ in range(_MOST_LOOKS):
            state = live(await self._threads.current(prefix), self._now_ms())
            if state is None:
                return None
            try:
                return await at(state)
            except SupersededError:
                continue
        raise CorruptRecordError(f"An object that the newest entry in {prefix.entries} refers to is missing.")

    async def _change(self, prefix: LogPrefix, step: Step, *, is_activity: bool = False) -> View:
        announcement = Announcement(self._threads, prefix, self._stale)
        before: State | None = None

        async def noting(view: View) -> Draft | None:
            nonlocal before
            draft = await step(view)
            before = None if draft is None else view.state
            return draft

        view = await self._threads.commit(prefix, noting, announcement if is_activity else None)
        self._later(self._settled(announcement, before, view.state))
        if dropped := unreferenced(before, view.state):
            self._later(drop(self._storage, prefix, dropped))
        state = view.state
        if state is not None and state.number == state.born and state.number and not state.gone:
            self._later(erase_before(self._threads, prefix, state.born))
        elif state is not None and self._sizes.is_due(state) and prefix not in self._compacting:
            self._compacting.add(prefix)
            self._later(self._compacted(prefix))
        return view

    async def _settled(self, announcement: Announcement, before: State | None, after: State | None) -> None:
        await announcement.settle(before, after)
        if self._stale.must_run:
            self._later(self._stale.run())

    async def _compacted(self, prefix: LogPrefix) -> None:
        try:
            await Compaction(self._threads, prefix, self._sizes, self._now_ms()).run()
        finally:
            self._compacting.discard(prefix)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = later(_tolerated(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _existing(self, view: View, key: ThreadKey) -> State:
        state = live(view, self._now_ms())
        if state is None:
            view.must_be_fresh()
            raise ThreadNotFoundError(f"There is no {key}.")
        return state

    async def _thread_after(self, view: View, key: ThreadKey) -> Thread:
        """Return the thread after a change, even if the change made it expire."""
        with after_write():
            thread = None if view.state is None else await self._thread_now(prefix_of(key), view.state)
        if thread is None:
            raise ThreadNotFoundError(f"There is no {key}.")
        return thread

    async def _thread_now(self, prefix: LogPrefix, state: State) -> Thread | None:
        try:
            return await self._threads.thread(prefix, state)
        except SupersededError:
            return await self._look(prefix, lambda newer: self._threads.thread(prefix, newer))


def _bytes_of(messages: Sequence[NewMessage]) -> int:
    return sum(len(message.payload) for message in messages)


async def _tolerated(work: Coroutine[Any, Any, None]) -> None:
    """Try to clean up; a later change or `reconcile` cleans up what this leaves."""
    try:
        await work
    except SupersededError:
        return
    except EverthreadError as error:
        _log.warning("Superfluous objects were not deleted yet: %s", error)
