"""The list of a tenant's threads, newest activity first: an empty object (marker) for each, named by the time.

A writer creates the marker before the first entry of a thread and concurrently with any later entry, and deletes the
former marker afterwards. So every thread has a marker at all times, and some threads have stale ones too. A listing
uses a marker only as a hint that the thread exists, and takes its position from the thread's newest entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import msgspec

from everthread.engines._segments.log import Log
from everthread.engines._segments.names import LogPrefix, Marker, inverted, recency_folder
from everthread.engines._segments.records import State
from everthread.engines._segments.storage import Listed, Storage
from everthread.engines._segments.turns import live, marker_name
from everthread.errors import CorruptRecordError

Recency = tuple[int, str]
Bury = Callable[[LogPrefix], Awaitable[object]]

_log = logging.getLogger("everthread")


class Found(msgspec.Struct, frozen=True):
    """A thread that a marker led to."""

    prefix: LogPrefix
    state: State

    @property
    def recency(self) -> Recency:
        """The key that orders listings."""
        return self.state.updated_ms, self.state.thread_id


class StaleMarkers:
    """Deletes the former markers of threads that moved in the listing.

    A listing is no snapshot: it may pass the position of the new marker before that is written, and reach the position
    of the former one after that was deleted. So one former marker of a moving thread always stays for longer than a
    listing takes, and the others are deleted immediately. A thread has one or two markers, however often it moves.

    """

    def __init__(self, storage: Storage, listing_s: float) -> None:
        self._storage = storage
        self._listing_s = listing_s
        self._kept: dict[LogPrefix, dict[str, float]] = {}  # each name with the time at which it is due, ascending
        self._closing = asyncio.Event()
        self._is_running = False

    async def retire(self, prefix: LogPrefix, name: str) -> None:
        """Delete the former marker of a thread, immediately or later."""
        kept, now = self._kept.setdefault(prefix, {}), time.monotonic()
        if not self._closing.is_set() and next(reversed(kept.values()), 0.0) - now < self._listing_s:
            kept[name] = now + 2 * self._listing_s
        else:
            await self._storage.delete(recency_folder(prefix.tenant), [name])

    def taken(self, prefix: LogPrefix) -> set[str]:
        """Return the waiting markers of a thread, for the caller to delete."""
        return set(self._kept.pop(prefix, ()))

    @property
    def must_run(self) -> bool:
        """Return whether markers wait and `run` does not run."""
        return bool(self._kept) and not self._is_running

    async def run(self) -> None:
        """Delete the waiting markers when they are due; return when none is left."""
        self._is_running = True
        try:
            while self._kept:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._listing_s):
                        await self._closing.wait()
                for folder, names in self._taken_by_folder().items():
                    await self._storage.delete(folder, names)
        finally:
            self._is_running = False

    def close(self) -> None:
        """Make all waiting markers due now."""
        self._closing.set()

    def _taken_by_folder(self) -> dict[str, list[str]]:
        taken: dict[str, list[str]] = {}
        until = math.inf if self._closing.is_set() else time.monotonic()
        for prefix, kept in list(self._kept.items()):
            for name in [name for name, due in kept.items() if due <= until]:
                del kept[name]
                taken.setdefault(recency_folder(prefix.tenant), []).append(name)
            if not kept:
                del self._kept[prefix]
        return taken


class Announcement:
    """Writes the markers of one change, and deletes those that it makes stale."""

    def __init__(self, log: Log, prefix: LogPrefix, stale: StaleMarkers) -> None:
        self._storage = log.storage
        self._prefix = prefix
        self._stale = stale
        self._folder = recency_folder(prefix.tenant)
        self._written: set[str] = set()

    async def __call__(self, state: State) -> None:
        """Write the marker for the next state of the thread."""
        name = marker_name(self._prefix, state)
        if name not in self._written:
            await self._storage.create(self._folder, name, b"")
            self._written.add(name)

    async def settle(self, before: State | None, after: State | None) -> None:
        """Delete the markers that the thread's new state does not have, after writing the one that it has.
        ``before`` is the state that the change replaced, if it wrote an entry.
        """
        former = marker_name(self._prefix, before)
        stale = {*self._written, former} - {marker_name(self._prefix, after), ""}
        if not stale:
            return
        if after is not None and not after.gone:
            await self(after)
            if former in stale:
                await self._stale.retire(self._prefix, former)
            stale.discard(former)
        else:
            stale |= self._stale.taken(self._prefix)
        if stale:
            await self._storage.delete(self._folder, stale)


class Listing:
    """One reading of a tenant's list of threads; deletes stale markers that no write in flight can need.

    ``bury`` deletes a thread that has expired at ``now_ms``. If it is ``None``, this writes nothing.
    """

    def __init__(self, log: Log, tenant: str, now_ms: int, bury: Bury | None) -> None:
        self._log = log
        self._tenant = tenant
        self._folder = recency_folder(tenant)
        self._now_ms = now_ms
        self._bury = bury
        self._after: Recency | None = None
        self._met: dict[LogPrefix, State | None] = {}
        self._found: dict[LogPrefix, Found] = {}
        self._damaged: set[LogPrefix] = set()

    async def newest(self, limit: int, after: Recency | None) -> Sequence[Found]:
        """Return at most ``limit`` threads below ``after``, in order; read no others, except through stale markers."""
        self._after = after
        start = "" if after is None else inverted(after[0])
        first, requests = "", 0
        async for listed in self._log.storage.list(self._folder, after=start):
            first, requests = first or _first_name(listed), requests + 1
            if await self._read(listed, limit):
                break
        # Threads that moved to the front while the listing read its second part.
        while after is None and requests > 1:
            first, requests = await self._read_before(first, limit)
        return sorted(self._found.values(), key=lambda thread: thread.recency, reverse=True)[:limit]

    async def prefixes(self) -> AsyncIterator[Sequence[LogPrefix]]:
        """Yield the prefixes of all threads with markers, in chunks; some more than once."""
        async for listed in self._log.storage.list(self._folder):
            markers = [Marker.of(item.name) for item in listed]
            yield list({LogPrefix(self._tenant, marker.thread): None for marker in markers if marker is not None})

    async def _read(self, listed: Sequence[Listed], limit: int) -> bool:
        """Read the threads of some markers; return whether no later marker can lead to a thread of the page."""
        markers = [(marker, item) for item in listed if (marker := Marker.of(item.name)) is not None]
        for chunk in self._chunks(markers, limit + 1):
            await self._meet(chunk)
            # Later markers lead to threads that were last active at this time or earlier, or that were read already.
            least_ms = chunk[-1][0].updated_ms
            if sum(thread.state.updated_ms > least_ms for thread in self._found.values()) >= limit:
                return True
        return False

    def _chunks(self, markers: Sequence[tuple[Marker, Listed]], threads: int) -> Iterator[list[tuple[Marker, Listed]]]:
        """Yield markers in chunks that lead to ``threads`` new threads; stale markers cost no read."""
        chunk: list[tuple[Marker, Listed]] = []
        new = set[LogPrefix]()
        for marker, item in markers:
            chunk.append((marker, item))
            new.add(LogPrefix(self._tenant, marker.thread))
            if len(new - self._met.keys()) >= threads:
                yield chunk
                chunk, new = [], set[LogPrefix]()
        if chunk:
            yield chunk

    async def _read_before(self, name: str, limit: int) -> tuple[str, int]:
        """Read the threads of the markers above one; return the first of them and the number of requests."""
        first, requests = "", 0
        async for listed in self._log.storage.list(self._folder):
            newer = [item for item in listed if item.name < name]
            first, requests = first or _first_name(listed), requests + 1
            if await self._read(newer, limit) or len(newer) < len(listed):
                break
        return first, requests

    async def _meet(self, markers: Sequence[tuple[Marker, Listed]]) -> None:
        new = {LogPrefix(self._tenant, marker.thread) for marker, _ in markers} - self._met.keys()
        states = await asyncio.gather(*(self._state(prefix) for prefix in new))
        self._met.update(zip(new, states, strict=True))
        for prefix, state in zip(new, states, strict=True):
            if state is not None and (self._after is None or Found(prefix, state).recency < self._after):
                self._found[prefix] = Found(prefix, state)
        await asyncio.gather(*(self._stale(LogPrefix(self._tenant, marker.thread), item) for marker, item in markers))

    async def _state(self, prefix: LogPrefix) -> State | None:
        try:
            view = await self._log.current(prefix)
        except CorruptRecordError as error:
            # `reconcile` and every call for this thread report it.
            _log.warning("A listing leaves out a thread: %s", error)
            self._damaged.add(prefix)
            return None
        state = live(view, self._now_ms)
        if self._bury is not None and state is None and view.state is not None and not view.state.gone:
            await self._bury(prefix)
        return state

    async def _stale(self, prefix: LogPrefix, listed: Listed) -> None:
        """Delete a stale marker, after making sure that its thread has the right one."""
        state = self._met[prefix]
        if prefix in self._damaged or (state is not None and marker_name(prefix, state) == listed.name):
            return
        is_old = self._log.fence.is_past(listed)
        # Its writer may have died before it wrote the marker. A thread that moved beyond the page has one.
        may_lack = state is not None and (is_old or prefix not in self._found)
        if state is not None and may_lack and await self._repair(marker_name(prefix, state)):
            self._found[prefix] = Found(prefix, state)
        if is_old and self._bury is not None:
            await self._log.storage.delete(self._folder, [listed.name])

    async def _repair(self, name: str) -> bool:
        """Write a marker if it is missing and this may write; return whether it was missing."""
        if self._bury is None:
            return await self._log.storage.get(self._folder, name) is None
        return await self._log.storage.create(self._folder, name, b"")


def _first_name(listed: Sequence[Listed]) -> str:
    return listed[0].name if listed else ""
