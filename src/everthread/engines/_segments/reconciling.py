"""What writers that died have left behind, found by looking at every object of a tenant, and removed.

It runs beside writers: what may belong to a write that is under way is younger than the `Fence` allows, and left.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from everthread.contract import SupportsReconciling
from everthread.engines._segments.compaction import erase_before, sweep
from everthread.engines._segments.engine import SegmentEngine
from everthread.engines._segments.log import Log, View
from everthread.engines._segments.names import Marker, Place, maker_of, name_of, recency_folder, uninverted
from everthread.engines._segments.records import State
from everthread.engines._segments.storage import Browsable, Listed
from everthread.engines._segments.turns import live, marker_name
from everthread.errors import CorruptRecordError, UnsupportedError
from everthread.model import Drift, check_identifier

UNLISTED = "threads without their place in the listing"
STALE = "places in the listing that no thread has"
UNREFERENCED = "objects that no thread refers to"
REMAINS = "objects of deleted threads"
REPLACED = "former payloads of rewritten messages"
DAMAGED = "threads that cannot be read"

_LOOKS = 3


class ReconciledEngine(SegmentEngine, SupportsReconciling):
    """A segment engine over a storage that can be looked through."""

    async def reconcile(self, tenant: str = "", *, mend: bool = False) -> tuple[Drift, ...]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        if not isinstance(self._storage, Browsable):
            raise UnsupportedError(f"{self.location} cannot be looked through.")
        work = Reconciliation(self._threads, self._storage, name_of(tenant), self._now_ms(), mend=mend)
        return await self._call(work.run())


class Reconciliation:
    """One look through all that a tenant has.

    Args:
        log: Where the threads are.
        folders: The same storage, as one that knows its folders.
        tenant: The tenant's name.
        now_ms: The time that decides what has expired.
        mend: Put right what is found.
    """

    def __init__(self, log: Log, folders: Browsable, tenant: str, now_ms: int, *, mend: bool) -> None:
        self._log = log
        self._storage = log.storage
        self._folders = folders
        self._tenant = tenant
        self._now_ms = now_ms
        self._mend = mend
        self._found: Counter[str] = Counter()

    async def run(self) -> tuple[Drift, ...]:
        """What has drifted apart."""
        async for places in self._places("t"):
            await asyncio.gather(*map(self._thread, places))
        for kind in "sd":
            async for places in self._places(kind):
                await asyncio.gather(*(self._without_log(place) for place in places))
        async for markers in self._storage.list(recency_folder(self._tenant)):
            await self._stale(markers)
        found = sorted(self._found.items())
        return tuple(Drift(what, count, mended=self._mend and what != DAMAGED) for what, count in found if count)

    async def _places(self, kind: str) -> AsyncIterator[Sequence[Place]]:
        async for names in self._folders.folders(f"{kind}/{self._tenant}"):
            yield [Place(self._tenant, name) for name in names]

    async def _view(self, place: Place) -> View | None:
        try:
            return await self._log.current(place)
        except CorruptRecordError:
            return None

    async def _thread(self, place: Place) -> None:
        view = await self._view(place)
        if view is None:
            self._found[DAMAGED] += 1
        elif view.state is not None:
            await self._objects(place, view.state)
            await self._listing(place)

    async def _objects(self, place: Place, state: State) -> None:
        """Compares a thread's objects with its newest entry, whether it is there, was deleted or has expired."""
        kept = state.references
        entries = [(each, uninverted(each.name)) async for each in self._listed(place.entries)]
        idle = [number for each, number in entries if number is not None and number not in kept and each.size]
        loose = [each async for each in self._listed(place.segments) if each.name not in kept]
        former = [each async for each in self._listed(place.documents) if maker_of(each.name) < state.born]
        former += [each for each in loose if maker_of(each.name) <= state.born]
        later = [each for each in loose if state.born < maker_of(each.name) <= state.number and self._is_old(each)]
        found = {
            REMAINS: len(former) + sum(number < state.born for number in idle),
            REPLACED: sum(state.born <= number < state.replaced for number in idle),
            UNREFERENCED: len(later),
        }
        self._found.update(found)
        # Names that a deletion had to keep for an hour are nothing wrong, but nobody else comes by to free them.
        kept_names = [each for each, number in entries if number is not None and number < state.born]
        if self._mend and (found[REMAINS] or any(map(self._is_old, kept_names))):
            await erase_before(self._log, place, state.born)
        if self._mend and (later or found[REPLACED]):
            await sweep(self._log, place, state, erase=False)

    async def _without_log(self, place: Place) -> None:
        """Objects beside a log that is not there at all."""
        view = await self._view(place)
        if view is None or view.number >= 0:
            return
        for folder in (place.segments, place.documents):
            names = [each.name async for each in self._listed(folder) if self._is_old(each)]
            self._found[REMAINS] += len(names)
            if names and self._mend:
                await self._storage.delete(folder, names)

    async def _listing(self, place: Place) -> None:
        """Sees whether a thread has its marker, looking again where a write may just be between the two."""
        name = ""
        for _ in range(_LOOKS):
            view = await self._view(place)
            state = None if view is None else live(view, self._now_ms)
            if state is None:
                return
            name = marker_name(place, state)
            if await self._storage.get(recency_folder(place.tenant), name) is not None:
                return
        self._found[UNLISTED] += 1
        if self._mend:
            await self._storage.create(recency_folder(place.tenant), name, b"")

    async def _stale(self, listed: Sequence[Listed]) -> None:
        """Looks for markers that no thread wants, nor any write that is under way."""
        markers = [(each, marker) for each in listed if (marker := Marker.of(each.name)) is not None]
        wanted = await asyncio.gather(*(self._wanted(Place(self._tenant, marker.thread)) for _, marker in markers))
        stale = [each.name for (each, _), name in zip(markers, wanted, strict=True) if name not in {None, each.name}]
        old = {each.name for each in listed if self._is_old(each)}
        names = [name for name in stale if name in old]
        self._found[STALE] += len(names)
        if names and self._mend:
            await self._storage.delete(recency_folder(self._tenant), names)

    async def _wanted(self, place: Place) -> str | None:
        """The name of a thread's marker, empty if it has none; ``None`` where that cannot be told."""
        view = await self._view(place)
        return None if view is None else marker_name(place, view.state)

    async def _listed(self, folder: str) -> AsyncIterator[Listed]:
        async for chunk in self._storage.list(folder):
            for each in chunk:
                yield each

    def _is_old(self, listed: Listed) -> bool:
        return time.time() - listed.modified_s > self._log.fence.grace_s
