"""The list of a tenant's threads, the newest activity first: an empty object (marker) for each, named by the time.

A marker is written before the entry that it belongs to where that begins a thread, beside it otherwise, and the
former one is removed afterwards. So every thread has a marker at all times; some have stale ones too, which a
listing tells by the thread's newest entry, and removes once no write in flight can want them any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from everthread.engines._segments.log import Log
from everthread.engines._segments.names import Marker, Place, inverted, recency_folder
from everthread.engines._segments.records import State
from everthread.engines._segments.storage import Listed
from everthread.engines._segments.turns import live, marker_name

Recency = tuple[int, str]
Bury = Callable[[Place], Awaitable[object]]


class Found(msgspec.Struct, frozen=True):
    """A thread that a marker led to."""

    place: Place
    state: State

    @property
    def recency(self) -> Recency:
        """What listings are ordered by."""
        return self.state.updated_ms, self.state.thread_id


class Announcement:
    """Writes the markers of one change, and removes those that it leaves stale.

    Attributes:
        replaces: The marker that is stale once the change has been made.
    """

    def __init__(self, log: Log, place: Place) -> None:
        self._storage = log.storage
        self._place = place
        self._folder = recency_folder(place.tenant)
        self._written: set[str] = set()
        self.replaces = ""

    async def __call__(self, state: State) -> None:
        """Writes the marker of a thread that will be ``state``."""
        name = marker_name(self._place, state)
        if name not in self._written:
            await self._storage.create(self._folder, name, b"")
            self._written.add(name)

    async def settle(self, state: State | None) -> None:
        """Removes the markers that do not belong to the thread as it was left, once the one that does is there."""
        stale = {*self._written, self.replaces} - {marker_name(self._place, state), ""}
        if not stale:
            return
        if state is not None and not state.gone:
            await self(state)
        await self._storage.delete(self._folder, stale)


class Listing:
    """Reads and mends a tenant's list of threads.

    Args:
        log: Where the threads are.
        tenant: The tenant's name.
        now_ms: The time that decides what has expired.
        bury: Removes an expired thread.
    """

    def __init__(self, log: Log, tenant: str, now_ms: int, bury: Bury) -> None:
        self._log = log
        self._tenant = tenant
        self._folder = recency_folder(tenant)
        self._now_ms = now_ms
        self._bury = bury

    async def newest(self, limit: int, after: Recency | None) -> Sequence[Found]:
        """At most ``limit`` threads below ``after``, in order; reads no more than these, but for stale markers."""
        found: dict[Place, Found] = {}
        last_ms = -1
        async for chunk in self._chunks(limit, after):
            for marker, thread in zip(chunk, await self._threads(chunk), strict=True):
                # Threads of one millisecond are ordered by id, which their markers' names do not tell.
                if len(found) >= limit and marker[0].updated_ms != last_ms:
                    return _ordered(found, limit)
                if thread is not None and (after is None or thread.recency < after):
                    found[thread.place] = thread
                    last_ms = marker[0].updated_ms
        return _ordered(found, limit)

    async def places(self) -> AsyncIterator[Sequence[Place]]:
        """All places that markers lead to, in chunks; some more than once."""
        async for listed in self._log.storage.list(self._folder):
            markers = [Marker.of(item.name) for item in listed]
            yield list({Place(self._tenant, marker.thread): None for marker in markers if marker is not None})

    async def _chunks(self, size: int, after: Recency | None) -> AsyncIterator[Sequence[tuple[Marker, Listed]]]:
        start = "" if after is None else inverted(after[0])
        async for listed in self._log.storage.list(self._folder, after=start):
            markers = [(marker, item) for item in listed if (marker := Marker.of(item.name)) is not None]
            for at in range(0, len(markers), size + 1):
                yield markers[at : at + size + 1]

    async def _threads(self, markers: Sequence[tuple[Marker, Listed]]) -> list[Found | None]:
        return await asyncio.gather(*(self._thread(marker, listed) for marker, listed in markers))

    async def _thread(self, marker: Marker, listed: Listed) -> Found | None:
        place = Place(self._tenant, marker.thread)
        view = await self._log.current(place)
        state = live(view, self._now_ms)
        if state is not None and marker_name(place, state) == listed.name:
            return Found(place, state)
        if state is None and view.state is not None and not view.state.gone:
            await self._bury(place)
            return None
        # Not this one: stale, or of a write that has not landed yet.
        is_mended = state is not None and await self._mend(place, state)
        if time.time() - listed.modified_s > self._log.fence.grace_s:
            await self._log.storage.delete(self._folder, [listed.name])
        return Found(place, state) if state is not None and is_mended else None

    async def _mend(self, place: Place, state: State) -> bool:
        """Writes a thread's marker if it has none, because its writer died; says whether it did."""
        return await self._log.storage.create(self._folder, marker_name(place, state), b"")


def _ordered(found: dict[Place, Found], limit: int) -> Sequence[Found]:
    return sorted(found.values(), key=lambda thread: thread.recency, reverse=True)[:limit]
