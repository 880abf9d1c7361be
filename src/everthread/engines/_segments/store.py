"""The abilities of a store over a log beyond the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from everthread._validation import checked_key
from everthread.capabilities import ScansThreads, SupportsCompaction, SupportsReconciling
from everthread.engines._segments.compaction import Compaction
from everthread.engines._segments.engine import SegmentEngine
from everthread.engines._segments.health import probe
from everthread.engines._segments.log import Draft, View
from everthread.engines._segments.names import LogPrefix, name_of, prefix_of
from everthread.engines._segments.reconcile import Reconciliation
from everthread.engines._segments.rewriting import Rewriting
from everthread.engines._segments.turns import born, expect, live
from everthread.errors import CorruptRecordError
from everthread.model import HealthCheck, Inconsistency, Rewrite, Thread, ThreadKey, check_identifier

_AT_ONCE = 100


class SegmentStore(SegmentEngine, SupportsCompaction, SupportsReconciling, ScansThreads):
    """A store over a storage: see `SegmentEngine`."""

    async def compact(self, key: ThreadKey) -> None:
        checked_key(key)
        self._check_writable()
        work = Compaction(self._threads, prefix_of(key), self._sizes, self._now_ms())
        await self._call(work.run, erase=True)

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        return await Rewriting(self._threads, prefix_of(key), self._sizes, changes, self._now_ms()).run()

    async def _restore_position(self, key: ThreadKey, next_seq: int, expected_seq: int, expire_ms: int | None) -> None:
        async def step(view: View) -> Draft | None:
            now_ms = self._now_ms()
            before = live(view, now_ms)
            state = born(view, key, now_ms) if before is None else before.successor()
            if state.next_seq == next_seq:
                view.must_be_fresh()
                return None
            expect(view, state, expected_seq)
            state.next_seq, state.updated_ms = next_seq, max(now_ms, state.created_ms)
            state.expires_ms = state.expires_ms if expire_ms is None else state.updated_ms + expire_ms
            return Draft(state)

        await self._change(prefix_of(key), step, is_activity=True)

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        async def step(view: View) -> Draft:
            state = self._existing(view, key).successor()
            if state.expires_ms is not None:
                state.expires_ms += updated_ms - state.updated_ms
            state.created_ms, state.updated_ms = created_ms, updated_ms
            return Draft(state)

        return await self._thread_after(await self._change(prefix_of(key), step, is_activity=True), key)

    async def diagnose(self) -> tuple[HealthCheck, ...]:
        return await self._call(self._storage.describe)

    async def probe(self) -> tuple[HealthCheck, ...]:
        return await self._call(probe, self._storage, self._threads.fence)

    async def reconcile(self, tenant: str = "", *, repair: bool = False) -> tuple[Inconsistency, ...]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        if repair:
            self._check_writable()
        return await self._call(Reconciliation(self._threads, name_of(tenant), self._now_ms(), repair=repair).run)

    async def scan_threads(self, tenant: str = "") -> AsyncIterator[Thread]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        await self._ready()
        damaged: CorruptRecordError | None = None
        async for names in self._storage.folders(f"t/{name_of(tenant)}"):
            for at in range(0, len(names), _AT_ONCE):
                prefixes = [LogPrefix(name_of(tenant), name) for name in names[at : at + _AT_ONCE]]
                for found in await self._call(self._scanned, prefixes):
                    if isinstance(found, Thread):
                        yield found
                    damaged = damaged or (found if isinstance(found, CorruptRecordError) else None)
        if damaged is not None:
            raise damaged

    async def _scanned(self, prefixes: Sequence[LogPrefix]) -> Sequence[Thread | CorruptRecordError | None]:
        return await asyncio.gather(*map(self._scanned_one, prefixes))

    async def _scanned_one(self, prefix: LogPrefix) -> Thread | CorruptRecordError | None:
        try:
            return await self._look(prefix, lambda state: self._threads.thread(prefix, state))
        except CorruptRecordError as error:
            return error
