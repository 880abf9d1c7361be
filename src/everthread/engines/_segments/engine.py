"""`everthread.contract.Store` over any storage with a conditional create."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from everthread._arguments import checked_key
from everthread.contract import SupportsCompaction
from everthread.engines._base import AppendRequest, BaseEngine, ThreadChange
from everthread.engines._coalescing import KeyedCoalescer
from everthread.engines._importing import Importing
from everthread.engines._rewriting import Rewriting
from everthread.engines._segments import documents
from everthread.engines._segments.compaction import Compaction, erase_before
from everthread.engines._segments.cutting import drop_head, drop_tail
from everthread.engines._segments.joining import Sizes, drop, unreferenced
from everthread.engines._segments.log import Draft, Fence, Log, StaleViewError, Step, SupersededError, View
from everthread.engines._segments.names import Place, made_by, name_of, place_of
from everthread.engines._segments.recency import Announcement, Found, Listing
from everthread.engines._segments.records import HEADER_BYTES, Run, State
from everthread.engines._segments.rewriting import Rewriting as Rewritten
from everthread.engines._segments.storage import Storage
from everthread.engines._segments.turns import TurnWriter, born, live, marker_name, open_calls
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    LimitExceededError,
    ThreadNotFoundError,
)
from everthread.model import (
    Appended,
    Document,
    Message,
    MessagePage,
    Rewrite,
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


class SegmentEngine(Rewriting, Importing, BaseEngine, SupportsCompaction):
    """Keeps each thread as a log of immutable entries.

    Args:
        storage: Where the objects are; opened and closed with this store.
        fence: The times that keep writers and cleaners apart; see `Fence`.
        sizes: How large objects become; see `Sizes`.
        cache_bytes: How much of what was read (it never changes) is kept in memory.
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
        self._appends: KeyedCoalescer[AppendRequest, Appended] = KeyedCoalescer(
            self._append_turns, key=lambda request: request.key
        )
        self._background: set[asyncio.Task[None]] = set()
        self._compacting: set[Place] = set()

    @property
    def location(self) -> str:
        return self._storage.location

    async def compact(self, key: ThreadKey) -> None:
        """As `SupportsCompaction` says; by itself it happens every 64 changes."""
        checked_key(key)
        await self._call(Compaction(self._threads, place_of(key), self._sizes, self._now_ms()).run(erase=True))

    async def _open(self) -> None:
        await self._storage.open()

    async def _finish(self) -> None:
        await self._appends.drain()
        while self._background:
            await asyncio.wait(self._background)
        await super()._finish()

    async def _close(self) -> None:
        await self._storage.close()

    def _translate(self, error: Exception) -> EverthreadError | None:
        return None  # storages translate their drivers' exceptions themselves

    # Messages

    async def _append_one(self, request: AppendRequest) -> Appended:
        size = sum(len(message.payload) for message in request.messages)
        most = self._storage.max_object_bytes - HEADER_BYTES
        if size > most:
            raise LimitExceededError(
                f"A turn of {size:,} bytes for {request.key}: at most {most:,} go into one append here.", size, most
            )
        return await self._appends.submit(request)

    async def _append_turns(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        place = place_of(batch[0].key)
        results: list[Appended | EverthreadError] = []
        for part in _parts(batch, self._storage.max_object_bytes - HEADER_BYTES):
            writer = TurnWriter(self._threads, place, part)
            await self._change(place, writer.step, is_activity=True)
            results.extend(writer.results)
        return results

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        def wanted(state: State) -> Sequence[Run]:
            return list(_first(_between(state.runs, start, stop), limit))

        return await self._page(key, wanted)

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        def wanted(state: State) -> Sequence[Run]:
            return list(_last(_between(state.runs, 0, before), count))

        return await self._page(key, wanted)

    async def _page(self, key: ThreadKey, wanted: Callable[[State], Sequence[Run]]) -> MessagePage:
        place = place_of(key)

        async def page(state: State) -> MessagePage:
            runs = wanted(state)
            loaded = await asyncio.gather(*(self._threads.loaded(place, run) for run in runs))
            messages: list[Message] = []
            for run, each in zip(runs, loaded, strict=True):
                messages.extend(each.messages(run.first, run.stop))
            return MessagePage(tuple(messages), state.head_seq, state.next_seq)

        found = await self._look(place, page)
        return MessagePage((), 0, 0) if found is None else found

    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated:
        place = place_of(key)
        done = Truncated(0, 0, 0)

        async def step(view: View, unique: str) -> Draft:
            nonlocal done
            before = self._existing(view, key)
            _expect(view, before, expected_seq)
            state = before.successor()
            await drop_head(state, start, lambda run: self._threads.block(place, run))
            if stop is not None and stop < state.next_seq:
                cut = await drop_tail(state, stop, lambda run: self._threads.block(place, run))
                called = await open_calls(self._threads, place, before)
                state.calls.extend((call_id, -1) for call_id, at in called.items() if at >= cut)
            done = Truncated(before.count - state.count, state.head_seq, state.next_seq)
            if stop is None:
                return Draft(state)
            state.updated_ms, state.marker = self._now_ms(), unique
            return Draft(state, replaces=marker_name(place, before))

        await self._change(place, step, is_activity=stop is not None)
        return done

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        return await Rewritten(self._threads, place_of(key), self._sizes, changes, self._now_ms()).run()

    # Threads

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        place = place_of(key)
        return await self._look(place, lambda state: self._thread(place, state))

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Sequence[Thread]:
        listing = Listing(self._threads, name_of(tenant), self._now_ms(), self._delete)
        found = await listing.newest(limit, after)
        return [thread for thread in await asyncio.gather(*map(self._listed, found)) if thread is not None]

    async def _listed(self, found: Found) -> Thread | None:
        return await self._thread_now(found.place, found.state)

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        place = place_of(key)
        # Each entry carries the state: large metadata lie beside it.
        beside = await self._put_beside(place, key, change.metadata)

        async def step(view: View, _: str) -> Draft:
            state = self._existing(view, key).successor()
            if change.expected_revision is not None and change.expected_revision != state.revision:
                _must_be_fresh(view)
                raise ConflictError(
                    f"{key} has revision {state.revision}, not {change.expected_revision}.", state.revision
                )
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
            view = await self._change(place, step)
        except (ThreadNotFoundError, ConflictError):
            if beside:
                await self._storage.delete(place.segments, [beside])
            raise
        return await self._thread_after(view, key)

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        place = place_of(key)

        async def step(view: View, unique: str) -> Draft:
            before = self._existing(view, key)
            state = before.successor()
            if state.expires_ms is not None:
                state.expires_ms += updated_ms - state.updated_ms
            state.created_ms, state.updated_ms, state.marker = created_ms, updated_ms, unique
            return Draft(state, replaces=marker_name(place, before))

        return await self._thread_after(await self._change(place, step, is_activity=True), key)

    async def _put_beside(self, place: Place, key: ThreadKey, metadata: bytes | None) -> str:
        if metadata is None or len(metadata) <= _LARGE_METADATA:
            return ""
        view = await self._threads.current(place)
        self._existing(view, key)
        name = made_by(view.number + 1)
        await self._storage.create(place.segments, name, metadata)
        return name

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        return await self._delete(place_of(key), expected_seq)

    async def _delete(self, place: Place, expected_seq: int | None = None) -> bool:
        existed = False

        async def step(view: View, _: str) -> Draft | None:
            nonlocal existed
            state = live(view, self._now_ms())
            existed = state is not None
            if state is None:
                _must_be_fresh(view)
            else:
                _expect(view, state, expected_seq)
            if view.state is None or view.state.gone:
                return None
            number = view.number + 1
            return Draft(State(number=number, born=number, gone=True), replaces=marker_name(place, view.state))

        view = await self._change(place, step)
        if view.state is not None:
            # Also where it was deleted before: whoever did so may have died before all of it was removed.
            await erase_before(self._threads, place, view.state.born)
        return existed

    async def _delete_tenant(self, tenant: str) -> int:
        listing = Listing(self._threads, name_of(tenant), self._now_ms(), self._delete)
        deleted = 0
        async for places in listing.places():
            deleted += sum(await asyncio.gather(*map(self._delete, places)))
        return deleted

    # Documents

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        place = place_of(key)
        return await self._look(place, lambda state: documents.get(self._storage, place, state, name))

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        place = place_of(key)
        state = live(await self._threads.current(place), self._now_ms())
        if state is None:
            if expected_revision:
                raise ConflictError(f"Document {name!r} of {key} has revision 0.", 0)
            state = await self._begun(place, key)
        document = Document(name, value, 0, self._now_ms())
        document = await documents.put(self._storage, place, state, document, expected_revision)
        now = (await self._threads.current(place)).state
        if now is None or now.born != state.born:
            # The thread was deleted meanwhile, and what was erased then must not come back.
            await documents.delete(self._storage, place, state, name)
        return document

    async def _begun(self, place: Place, key: ThreadKey) -> State:
        async def step(view: View, unique: str) -> Draft | None:
            now_ms = self._now_ms()
            if live(view, now_ms) is not None:
                return None
            state = born(view, key, now_ms)
            state.marker = unique
            return Draft(state, replaces=marker_name(place, view.state))

        return self._existing(await self._change(place, step, is_activity=True), key)

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        place = place_of(key)
        return bool(await self._look(place, lambda state: documents.delete(self._storage, place, state, name)))

    async def _list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        place = place_of(key)
        return await self._look(place, lambda state: documents.names(self._storage, place, state)) or ()

    # Shared

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _look(self, place: Place, at: Callable[[State], Awaitable[T]]) -> T | None:
        """What ``at`` sees of a thread; it is called again where compaction took something from under it."""
        for _ in range(_MOST_LOOKS):
            state = live(await self._threads.current(place), self._now_ms())
            if state is None:
                return None
            try:
                return await at(state)
            except SupersededError:
                continue
        raise CorruptRecordError(f"An object that the newest entry in {place.entries} refers to is not there.")

    async def _change(self, place: Place, step: Step, *, is_activity: bool = False) -> View:
        announcement = Announcement(self._threads, place)
        before: State | None = None

        async def noting(view: View, unique: str) -> Draft | None:
            nonlocal before
            draft = await step(view, unique)
            announcement.replaces, before = ("", None) if draft is None else (draft.replaces, view.state)
            return draft

        view = await self._threads.commit(place, noting, announcement if is_activity else None)
        self._later(announcement.settle(view.state))
        if dropped := unreferenced(before, view.state):
            self._later(drop(self._storage, place, dropped))
        state = view.state
        if state is not None and state.number == state.born and state.number and not state.gone:
            self._later(erase_before(self._threads, place, state.born))
        elif state is not None and self._sizes.is_due(state) and place not in self._compacting:
            self._compacting.add(place)
            self._later(self._compacted(place))
        return view

    async def _compacted(self, place: Place) -> None:
        try:
            await Compaction(self._threads, place, self._sizes, self._now_ms()).run()
        finally:
            self._compacting.discard(place)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_tolerated(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _existing(self, view: View, key: ThreadKey) -> State:
        state = live(view, self._now_ms())
        if state is None:
            _must_be_fresh(view)
            raise ThreadNotFoundError(f"There is no {key}.")
        return state

    async def _thread_after(self, view: View, key: ThreadKey) -> Thread:
        """The thread as a change left it, also where that has let it expire."""
        thread = None if view.state is None else await self._thread_now(place_of(key), view.state)
        if thread is None:
            raise ThreadNotFoundError(f"There is no {key}.")
        return thread

    async def _thread_now(self, place: Place, state: State) -> Thread | None:
        try:
            return await self._thread(place, state)
        except SupersededError:
            return await self._look(place, lambda newer: self._thread(place, newer))

    async def _thread(self, place: Place, state: State) -> Thread:
        metadata: bytes | msgspec.Raw = state.metadata
        if state.metadata_at:
            metadata = await self._threads.beside(place, state.metadata_at)
        return Thread(
            ThreadKey(state.thread_id, state.tenant),
            state.head_seq,
            state.next_seq,
            state.count,
            sum(run.size for run in state.runs),
            state.created_ms,
            state.updated_ms,
            state.title,
            cast(Mapping[str, object], msgspec.json.decode(metadata)),
            state.revision,
            state.expires_ms,
            state.retention,
        )


def _expect(view: View, state: State, expected_seq: int | None) -> None:
    if expected_seq is None or expected_seq == state.next_seq:
        return
    _must_be_fresh(view)
    key = ThreadKey(state.thread_id, state.tenant)
    raise ConflictError(f"The next position of {key} is {state.next_seq}, not {expected_seq}.", state.next_seq)


def _must_be_fresh(view: View) -> None:
    if not view.fresh:
        raise StaleViewError


async def _tolerated(work: Coroutine[Any, Any, None]) -> None:
    """Cleaning up is tried; what fails is cleaned up another time."""
    try:
        await work
    except SupersededError:
        return
    except EverthreadError as error:
        _log.warning("Cleaning up was put off: %s", error)


def _parts(batch: Sequence[AppendRequest], most: int) -> Iterator[Sequence[AppendRequest]]:
    """The batch in parts that fit an object each."""
    part: list[AppendRequest] = []
    size = 0
    for request in batch:
        more = sum(len(message.payload) for message in request.messages)
        if part and size + more > most:
            yield part
            part, size = [], 0
        part.append(request)
        size += more
    yield part


def _between(runs: Sequence[Run], start: int, stop: int | None) -> Sequence[Run]:
    cut = [(max(run.first, start), run.stop if stop is None else min(run.stop, stop), run) for run in runs]
    return [Run(first, end, 0, run.name) for first, end, run in cut if first < end]


def _first(runs: Sequence[Run], limit: int | None) -> Iterator[Run]:
    left = limit
    for run in runs:
        if left is None:
            yield run
        elif left > 0:
            yield Run(run.first, min(run.stop, run.first + left), 0, run.name)
            left -= run.stop - run.first


def _last(runs: Sequence[Run], count: int) -> list[Run]:
    wanted: list[Run] = []
    for run in reversed(runs):
        if count <= 0:
            break
        wanted.append(Run(max(run.first, run.stop - count), run.stop, 0, run.name))
        count -= run.stop - run.first
    return wanted[::-1]
