"""Read the newest entry of a thread, and write the next one.

An entry's number is free exactly once: the first writer to create it decides the thread's next state. That holds as
long as no writer can create a deleted entry again. So a writer trusts its memory only for a short time, and an entry's
name is freed only much later (`Fence`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

import msgspec

from everthread.engines._listing import Parts, decode_metadata
from everthread.engines._segments.names import LogPrefix, inverted, nonce, uninverted
from everthread.engines._segments.records import (
    GONE,
    LAYOUT,
    Block,
    Group,
    Loaded,
    Run,
    Snapshot,
    State,
    decode_block,
    decode_snapshot,
    encode,
)
from everthread.engines._segments.storage import Listed, NotWrittenError, Storage
from everthread.errors import CorruptRecordError, OutcomeUnknownError, StoreUnavailableError
from everthread.messages.tool_links import Span
from everthread.model import Thread

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
R = TypeVar("R", Loaded, Snapshot)

REMEMBERED_BYTES = 8 * 1024 * 1024
"""The size of the cache of newest entries, which saves requests in the next call for a thread."""

_MOST_PROBES = 4
_MOST_ATTEMPTS = 200
_MOST_SENDS = 3
_STREAK = 32
_PAUSE = 6  # round trips


class Fence(msgspec.Struct, frozen=True):
    """The times, in seconds, that keep processes apart that do not know of each other.

    The first two prevent a late writer from creating a deleted entry again.

    Attributes:
        trust_s: A writer assumes this long that no other process deleted the entry after the newest one it has seen.
        grace_s: An entry's name is not freed for this long after the entry was written. The difference covers writes
            in flight and clocks that disagree.
        listing_s: A page of a listing that takes at most this long shows every thread that moves during it.
    """

    trust_s: float = 600.0
    grace_s: float = 3600.0
    listing_s: float = 5.0

    def is_past(self, listed: Listed, now: float | None = None) -> bool:
        """Return whether an object is older than ``grace_s``."""
        return (time.time() if now is None else now) - listed.modified_s > self.grace_s


class Streak(msgspec.Struct, frozen=True):
    """Consecutive entries of one process: their number, the time of the last one and its duration."""

    length: int = 0
    ended: float = 0.0
    took: float = 0.0


class StaleViewError(Exception):
    """A decision to write nothing relied on a view from memory: look again."""


class View(msgspec.Struct, frozen=True):
    """A look at a thread's log.

    Attributes:
        number: The newest entry, -1 if there is none.
        state: The thread's state after it.
        seen: The start of the look, by both clocks.
        fresh: It was the newest during this call; otherwise it is from memory.
        streak: The entries of this process since the last one of another; see `Log.commit`.
    """

    number: int
    state: State | None
    seen: tuple[float, float]
    fresh: bool
    streak: Streak = Streak()

    def must_be_fresh(self) -> None:
        """Raise `StaleViewError` if this is from memory: only a fresh view can justify writing nothing."""
        if not self.fresh:
            raise StaleViewError


class Draft(msgspec.Struct):
    """The next entry: the thread's state after it, and its messages."""

    state: State
    groups: list[Group] = []
    spans: list[Span] = []
    payloads: list[bytes] = []


class SupersededError(Exception):
    """An object that an entry referred to was deleted, because a newer entry no longer refers to it."""


Step = Callable[[View], Awaitable[Draft | None]]
"""Returns the next entry for a view, or ``None`` to write nothing."""


Announce = Callable[[State], Awaitable[None]]
"""Writes the marker of a thread for its next state."""


class Cache(Generic[K, V]):
    """Values that together take at most ``capacity`` bytes of memory; with 0 it holds none."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, name: K) -> V | None:
        found = self._values.get(name)
        if found is None:
            return None
        self._values.move_to_end(name)
        return found[0]

    def add(self, name: K, value: V, size: int) -> None:
        """Add a value of ``size`` bytes, unless it is larger than the cache."""
        self.drop(name)
        if size > self._capacity:
            return
        self._values[name] = (value, size)
        self._size += size
        while self._size > self._capacity:
            _, (_, dropped) = self._values.popitem(last=False)
            self._size -= dropped

    def drop(self, name: K) -> None:
        found = self._values.pop(name, None)
        if found is not None:
            self._size -= found[1]


class Log:
    """The logs of all threads in a storage; see `SegmentEngine` for the arguments."""

    def __init__(self, storage: Storage, *, fence: Fence, cache_bytes: int) -> None:
        self.storage = storage
        self.fence = fence
        self._remembered: Cache[LogPrefix, View] = Cache(REMEMBERED_BYTES)
        self._objects: Cache[tuple[str, str], Loaded | Snapshot] = Cache(cache_bytes)

    # Reading

    async def current(self, prefix: LogPrefix) -> View:
        """Return the newest view of a thread: one request if it is in memory, else a listing and a request."""
        view = self._trusted(prefix)
        return await (self._load(prefix) if view is None else self.refreshed(prefix, view))

    async def refreshed(self, prefix: LogPrefix, view: View) -> View:
        """Return the newest view of a thread, given an earlier one."""
        if not self._is_trusted(view):
            return await self._load(prefix)
        for _ in range(_MOST_PROBES):
            seen = _now()
            found = await self.storage.get(prefix.entries, inverted(view.number + 1))
            if found is None:
                return self._remember(prefix, View(view.number, view.state, seen, fresh=True, streak=view.streak))
            if found.data == GONE:
                break
            loaded = self._decoded_entry(prefix, view.number + 1, found.data)
            view = View(view.number + 1, loaded.block.state, seen, fresh=False)
        return await self._load(prefix)

    async def _load(self, prefix: LogPrefix) -> View:
        for _ in range(_MOST_ATTEMPTS):
            seen = _now()
            newest = await self.newest(prefix)
            if newest is None:
                return View(-1, None, seen, fresh=True)
            number, _ = newest
            found = await self.storage.get(prefix.entries, inverted(number))
            # It can be missing or emptied only if a newer one was written after the listing.
            if found is not None and found.data != GONE:
                loaded = self._decoded_entry(prefix, number, found.data)
                return self._remember(prefix, View(number, loaded.block.state, seen, fresh=True))
        raise CorruptRecordError(f"The newest entry in {prefix.entries} is listed, but missing.")

    async def newest(self, prefix: LogPrefix) -> tuple[int, Listed] | None:
        """Return the number of a thread's newest entry and its object, or ``None`` if there is no entry."""
        async for chunk in self.storage.list(prefix.entries):
            for listed in chunk:
                number = uninverted(listed.name)
                if number is not None:
                    return number, listed
        return None

    async def block(self, prefix: LogPrefix, run: Run) -> Block:
        """Return the first line of a run's object."""
        return (await self.loaded(prefix, run)).block

    async def loaded(self, prefix: LogPrefix, run: Run) -> Loaded:
        """Return a run's object.

        Raises:
            SupersededError: It was deleted: look at the thread again.
        """
        return await self._object(prefix, run.name, _stateless)

    async def snapshot(self, prefix: LogPrefix, name: str) -> Snapshot:
        """Return the snapshot of this name; raises as `loaded` does."""
        return await self._object(prefix, name, decode_snapshot) if name else _NO_SNAPSHOT

    async def _object(self, prefix: LogPrefix, name: int | str, decode: Callable[[bytes, str], R]) -> R:
        place = (prefix.entries, inverted(name)) if isinstance(name, int) else (prefix.segments, name)
        cached = self._objects.get(place)
        if cached is not None:
            return cast(R, cached)
        found = await self.storage.get(*place)
        if found is None or found.data == GONE:
            raise SupersededError
        value = decode(found.data, "/".join(place))
        self._objects.add(place, value, value.memory)
        return value

    async def beside(self, prefix: LogPrefix, name: str) -> bytes:
        """Return another object that an entry refers to; raises as `loaded` does."""
        found = await self.storage.get(prefix.segments, name)
        if found is None:
            raise SupersededError
        return found.data

    async def thread(self, prefix: LogPrefix, state: State) -> Thread:
        """Return the public description of a thread; raises as `loaded` does."""
        metadata = await self.beside(prefix, state.metadata_at) if state.metadata_at else state.metadata
        parts = Parts(state.key)
        return Thread(
            state.key,
            state.head_seq,
            state.next_seq,
            state.count,
            sum(run.size for run in state.runs),
            state.created_ms,
            state.updated_ms,
            state.title,
            parts.decode("metadata", metadata, decode_metadata, {}),
            state.revision,
            state.expires_ms,
            state.retention,
            parts.damage,
        )

    # Writing

    async def commit(self, prefix: LogPrefix, step: Step, announce: Announce | None = None) -> View:
        """Write the entry that ``step`` makes, after the entries of concurrent writers; return the thread's new view.

        ``step`` is called again for each entry that another writer created first. Its exceptions pass through, and
        nothing is written. ``announce`` runs before the first entry of a thread, and concurrently with any other.

        A process that writes one entry after the other needs one round trip for each. A new writer needs three, and
        would never be first. So a process pauses after `_STREAK` consecutive entries, long enough for another writer.

        Raises:
            OutcomeUnknownError: The entry may have been written.
        """
        unique = nonce()
        view = self._trusted(prefix) or await self._load(prefix)
        await _give_way(view.streak)
        for attempt in range(_MOST_ATTEMPTS):
            try:
                draft = await step(view)
            except (StaleViewError, SupersededError):
                view = await self.current(prefix)
                continue
            if draft is None:
                return view
            seen = _now()
            other = await self._announced(prefix, draft, unique, announce)
            if other is None:
                length = view.streak.length + 1 if attempt == 0 else 1
                streak = Streak(length, time.monotonic(), time.monotonic() - seen[0])
                return self._remember(prefix, View(draft.state.number, draft.state, seen, fresh=True, streak=streak))
            # The winning entry is known. But a writer that is one entry behind would stay behind, so it lists at times.
            is_known = attempt % 2 == 0 and other.state is not None
            view = View(draft.state.number, other.state, seen, fresh=False) if is_known else await self._load(prefix)
        raise StoreUnavailableError("Too many concurrent writers of this thread: nothing was written. Try again.")

    async def _announced(self, prefix: LogPrefix, draft: Draft, unique: str, announce: Announce | None) -> Block | None:
        if announce is None:
            return await self._create(prefix, draft, unique)
        draft.state.marker = unique
        if draft.state.born == draft.state.number:
            await announce(draft.state)
            return await self._create(prefix, draft, unique)
        created, announced = await asyncio.gather(
            self._create(prefix, draft, unique), announce(draft.state), return_exceptions=True
        )
        if isinstance(created, BaseException):
            raise created
        # The thread's former marker still leads to it if this one could not be written.
        if isinstance(announced, BaseException) and not isinstance(announced, StoreUnavailableError):
            raise announced
        return created

    async def _create(self, prefix: LogPrefix, draft: Draft, unique: str) -> Block | None:
        """Write the entry; return the entry of another writer that was faster."""
        block = Block(v=draft.state.layout, nonce=unique, groups=draft.groups, spans=draft.spans, state=draft.state)
        data = encode(block, draft.payloads)
        name = inverted(draft.state.number)
        other = await self._other(prefix, draft.state.number, data, unique)
        if other is None and draft.groups:
            stateless = msgspec.structs.replace(block, state=None)
            loaded = Loaded(stateless, data, data.index(b"\n") + 1)
            self._objects.add((prefix.entries, name), loaded, loaded.memory)
        return other

    async def _other(self, prefix: LogPrefix, number: int, data: bytes, unique: str) -> Block | None:
        """Create an entry, and send it again if it may have landed: it can land only once."""
        name, reason = inverted(number), ""
        for attempt in range(_MOST_SENDS):
            try:
                if await self.storage.create(prefix.entries, name, data):
                    return None
                found = await self.storage.get(prefix.entries, name)
                # A name that was taken and has no object: the storage refused two concurrent writes.
                if found is not None:
                    block = _EMPTIED if found.data == GONE else self._decoded_entry(prefix, number, found.data).block
                    if block.nonce != unique:
                        return block
                    await self.storage.flush(prefix.entries, [name])
                    return None
            except StoreUnavailableError as error:
                if isinstance(error, NotWrittenError) and not reason:
                    raise
                reason = f" {error}"
                await asyncio.sleep(0.05 * 2**attempt)
        raise OutcomeUnknownError(
            f"{self.storage.location} did not acknowledge a write, which may have landed: repeat it with the same "
            f"append_id.{reason}"
        )

    async def flush(self, prefix: LogPrefix, state: State, positions: Sequence[int] = ()) -> None:
        """Make the newest entry and the messages at some positions durable before this process acknowledges them."""
        objects = {run.name for run in state.runs for seq in positions if run.first <= seq < run.stop} | {state.number}
        entries = [inverted(name) for name in objects if isinstance(name, int)]
        await self.storage.flush(prefix.entries, entries)
        if segments := [name for name in objects if isinstance(name, str)]:
            await self.storage.flush(prefix.segments, segments)

    def _remember(self, prefix: LogPrefix, view: View) -> View:
        size = 500 if view.state is None else view.state.memory
        self._remembered.add(prefix, msgspec.structs.replace(view, fresh=False), size)
        return view

    def _trusted(self, prefix: LogPrefix) -> View | None:
        view = self._remembered.get(prefix)
        return view if view is not None and self._is_trusted(view) else None

    def _is_trusted(self, view: View) -> bool:
        # Two clocks: one stops while the machine sleeps, the other may be set back.
        steady, wall = _now()
        return max(steady - view.seen[0], wall - view.seen[1]) < self.fence.trust_s

    def _decoded_entry(self, prefix: LogPrefix, number: int, data: bytes) -> Loaded:
        return decode_block(data, f"{prefix.entries}/{inverted(number)}")


def _stateless(data: bytes, where: str) -> Loaded:
    loaded = decode_block(data, where)
    # Nothing needs the states of older entries, and the newest one has its own cache.
    loaded.block.state = None
    return loaded


_NO_SNAPSHOT = Snapshot(v=LAYOUT)
_EMPTIED = Block(v=LAYOUT)


async def _give_way(streak: Streak) -> None:
    left = streak.ended + _PAUSE * streak.took - time.monotonic()
    if streak.length and streak.length % _STREAK == 0 and left > 0:
        await asyncio.sleep(left)


def _now() -> tuple[float, float]:
    return time.monotonic(), time.time()
