"""Find and remove the objects that killed writers left: a pass over all objects of a tenant, beside other writers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from everthread.engines._segments.compaction import erase_before, sweep
from everthread.engines._segments.log import Log, View
from everthread.engines._segments.names import LogPrefix, Marker, maker_of, recency_folder, uninverted
from everthread.engines._segments.records import State
from everthread.engines._segments.storage import Listed
from everthread.engines._segments.turns import live, marker_name
from everthread.errors import CorruptRecordError
from everthread.model import Inconsistency

UNLISTED = "threads without their place in the listing"
STALE = "prefixes in the listing that no thread has"
UNREFERENCED = "objects that no thread refers to"
REMAINS = "objects of deleted threads"
REPLACED = "former payloads of rewritten messages"
DAMAGED = "threads that cannot be read"


class Reconciliation:
    """One pass over all objects of a tenant.

    Calls that are in progress leave the same traces as writers that died in the middle, so age decides between them.
    Objects that a writer still has to write or to delete are younger than ``grace_s``; for deletions, which must not
    leave content behind, see `_remains`.
    """

    def __init__(self, log: Log, tenant: str, now_ms: int, *, repair: bool) -> None:
        self._log = log
        self._storage = log.storage
        self._tenant = tenant
        self._now_ms = now_ms
        self._repair = repair
        self._began = time.time()
        self._found: Counter[str] = Counter()
        self._moving: dict[LogPrefix, int] = {}
        self._remaining: dict[LogPrefix, _Remains] = {}

    async def run(self) -> tuple[Inconsistency, ...]:
        """Return the inconsistencies."""
        async for prefixes in self._prefixes("t"):
            await asyncio.gather(*map(self._thread, prefixes))
        for kind in "sd":
            async for prefixes in self._prefixes(kind):
                await asyncio.gather(*(self._without_log(prefix) for prefix in prefixes))
        async for markers in self._storage.list(recency_folder(self._tenant)):
            await self._markers(markers)
        await asyncio.gather(*(self._listing(prefix, number) for prefix, number in self._moving.items()))
        await self._remains()
        found = sorted(self._found.items())
        return tuple(
            Inconsistency(what, count, repaired=self._repair and what != DAMAGED) for what, count in found if count
        )

    async def _prefixes(self, kind: str) -> AsyncIterator[Sequence[LogPrefix]]:
        async for names in self._storage.folders(f"{kind}/{self._tenant}"):
            yield [LogPrefix(self._tenant, name) for name in names]

    async def _view(self, prefix: LogPrefix) -> View | None:
        try:
            return await self._log.current(prefix)
        except CorruptRecordError:
            return None

    async def _thread(self, prefix: LogPrefix) -> None:
        view = await self._view(prefix)
        if view is None:
            self._found[DAMAGED] += 1
        elif view.state is not None:
            await self._objects(prefix, view.state)
            await self._listing(prefix)

    async def _objects(self, prefix: LogPrefix, state: State) -> None:
        """Compare a thread's objects with its newest entry, whether the thread exists, was deleted or has expired."""
        entries = await self._entries(prefix)
        remains, unreferenced = await self._superfluous(prefix, state, entries)
        is_settled = all(self._is_old(each) for _, each in entries[:1])
        if self._repair or is_settled:
            self._found.update(remains.counts)
        elif remains.names:
            self._remaining[prefix] = remains
        # A writer that has just dropped references deletes these objects next.
        self._found[UNREFERENCED] += unreferenced if is_settled else 0
        if self._repair:
            # No call frees the names that a deletion had to keep for an hour.
            kept = any(number < state.born and self._is_old(each) for number, each in entries)
            if remains.counts[REMAINS] or kept:
                await erase_before(self._log, prefix, state.born)
            if unreferenced or remains.counts[REPLACED]:
                await sweep(self._log, prefix, state, erase=False)

    async def _superfluous(
        self, prefix: LogPrefix, state: State, entries: Sequence[tuple[int, Listed]]
    ) -> tuple[_Remains, int]:
        """Return what deletions and rewrites should have erased, and the number of other unreferenced objects."""
        kept = state.references
        idle = [(number, each) for number, each in entries if number not in kept and each.size]
        loose = [each async for each in self._listed(prefix.segments) if each.name not in kept]
        former = [each async for each in self._listed(prefix.documents) if maker_of(each.name) < state.born]
        former += [each for each in loose if maker_of(each.name) <= state.born]
        former += [each for number, each in idle if number < state.born]
        replaced = [each for number, each in idle if state.born <= number < state.replaced]
        later = [each for each in loose if state.born < maker_of(each.name) <= state.number and self._is_old(each)]
        counts = Counter({REMAINS: len(former), REPLACED: len(replaced)})
        return _Remains(counts, frozenset(each.name for each in (*former, *replaced))), len(later)

    async def _remains(self) -> None:
        """Count what young deletions and rewrites left, unless they are in progress.

        They erase content immediately, so their remains are reported long before the fence allows to delete other
        objects. One that is in progress erases something while this waits.
        """
        if not self._remaining:
            return
        await asyncio.sleep(self._log.fence.listing_s)
        for prefix, before in self._remaining.items():
            view = await self._view(prefix)
            if view is not None and view.state is not None:
                now, _ = await self._superfluous(prefix, view.state, await self._entries(prefix))
                if before.names <= now.names:
                    self._found.update(before.counts)

    async def _without_log(self, prefix: LogPrefix) -> None:
        """Find objects of a thread that has no log."""
        view = await self._view(prefix)
        if view is None or view.number >= 0:
            return
        for folder in (prefix.segments, prefix.documents):
            names = [each.name async for each in self._listed(folder) if self._is_old(each)]
            self._found[REMAINS] += len(names)
            if names and self._repair:
                await self._storage.delete(folder, names)

    async def _listing(self, prefix: LogPrefix, last: int | None = None) -> None:
        """Check that a thread has its marker.

        An append writes the marker beside the entry, so a young entry may be the first of the two to arrive. Until
        then the former marker stays, and `_markers` meets it. So a thread with a young entry is checked again after
        the whole listing, unless it moved since: then its writer is alive. ``last`` is its entry in the first check.
        """
        view = await self._view(prefix)
        state = None if view is None else live(view, self._now_ms)
        if state is None or last not in {None, state.number}:
            return
        folder, marker = recency_folder(prefix.tenant), marker_name(prefix, state)
        if await self._storage.get(folder, marker) is not None:
            return
        newest = await self._log.newest(prefix)
        is_settled = newest is not None and newest[0] == state.number and self._is_old(newest[1])
        if last is None and not is_settled:
            self._moving[prefix] = state.number
            return
        self._found[UNLISTED] += 1
        if self._repair:
            await self._storage.create(folder, marker, b"")

    async def _markers(self, listed: Sequence[Listed]) -> None:
        """Find markers that neither a thread nor a write in progress needs."""
        markers = [(each, LogPrefix(self._tenant, found.thread)) for each in listed if (found := Marker.of(each.name))]
        for _, prefix in markers:
            self._moving.pop(prefix, None)
        old = [(each, prefix) for each, prefix in markers if self._is_old(each)]
        are_stale = await asyncio.gather(*(self._is_stale(each, prefix) for each, prefix in old))
        names = [each.name for (each, _), is_stale in zip(old, are_stale, strict=True) if is_stale]
        self._found[STALE] += len(names)
        if names and self._repair:
            await self._storage.delete(recency_folder(self._tenant), names)

    async def _is_stale(self, marker: Listed, prefix: LogPrefix) -> bool:
        """Return whether a marker is not the thread's, and the change that replaced it has ended."""
        view = await self._view(prefix)
        if view is None or marker_name(prefix, view.state) == marker.name:
            return False
        newest = await self._log.newest(prefix)
        return newest is None or self._is_old(newest[1])

    async def _entries(self, prefix: LogPrefix) -> list[tuple[int, Listed]]:
        """Return a thread's entries and their numbers, the newest first."""
        numbered = [(uninverted(each.name), each) async for each in self._listed(prefix.entries)]
        return [(number, each) for number, each in numbered if number is not None]

    async def _listed(self, folder: str) -> AsyncIterator[Listed]:
        async for chunk in self._storage.list(folder):
            for each in chunk:
                yield each

    def _is_old(self, listed: Listed) -> bool:
        # One time for the whole pass: an object that is young in one step is young in the next.
        return self._log.fence.is_past(listed, self._began)


class _Remains(NamedTuple):
    """Objects that should have no content left: their number of each kind, and their names."""

    counts: Counter[str]
    names: frozenset[str]
