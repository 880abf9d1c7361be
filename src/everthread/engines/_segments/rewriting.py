"""Replace payloads: write new objects, as objects never change, and let one entry refer to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from everthread.engines._segments.compaction import Joined, Joiner, Joining, Sizes, drop, groups_of, sweep, unreferenced
from everthread.engines._segments.log import Draft, Log, View
from everthread.engines._segments.names import LogPrefix
from everthread.engines._segments.records import HEADER_BYTES, State
from everthread.engines._segments.storage import after_write
from everthread.engines._segments.turns import live
from everthread.errors import LimitExceededError
from everthread.model import Rewrite


class Rewriting:
    """One rewriting of one thread."""

    def __init__(self, log: Log, prefix: LogPrefix, sizes: Sizes, changes: Sequence[Rewrite], now_ms: int) -> None:
        self._log = log
        self._prefix = prefix
        self._sizes = sizes
        self._changes = {change.seq: change for change in changes}
        self._now_ms = now_ms
        self._joiner = Joiner(log, prefix)
        self._joined: list[tuple[Joined, frozenset[int]]] = []
        self._before: State | None = None
        self._done = 0

    async def run(self) -> int:
        """Make the changes that still fit, and erase the former payloads; return the number of changes."""
        # If this fails, the entry may have been written, so the new objects stay for a later sweep.
        view = await self._log.commit(self._prefix, self._step)
        with after_write():
            await self._joiner.withdraw(view.state)
            if view.state is not None and view.state.replaced:
                # Also if this call only repeats another, which may have been stopped here.
                await drop(self._log.storage, self._prefix, unreferenced(self._before, view.state))
                await sweep(self._log, self._prefix, view.state, erase=False)
        return self._done

    async def _step(self, view: View) -> Draft | None:
        before = live(view, self._now_ms)
        new = None if before is None else await self._payloads(before)
        if before is None or not new:
            view.must_be_fresh()
            self._before, self._done = None, 0
            return None
        await self._prepare(before, new)
        state = before.successor()
        await self._joiner.replace(state)
        state.replaced = state.number
        self._before, self._done = before, len(new)
        return Draft(state)

    async def _payloads(self, state: State) -> Mapping[int, bytes]:
        """Return the new payloads, by position, of the messages that still have the expected ones."""
        runs = [run for run in state.runs if any(run.first <= seq < run.stop for seq in self._changes)]
        loaded = await asyncio.gather(*(self._log.loaded(self._prefix, run) for run in runs))
        found = (
            message for run, each in zip(runs, loaded, strict=True) for message in each.messages(run.first, run.stop)
        )
        wanted = ((message, self._changes.get(message.seq)) for message in found)
        return {m.seq: change.new for m, change in wanted if change is not None and change.old == m.payload}

    async def _prepare(self, state: State, new: Mapping[int, bytes]) -> None:
        """Write the new objects, except those of an earlier attempt that still fit."""
        ready = {seq for joined, changed in self._joined if joined.fits(state) for seq in changed}
        lacking = new.keys() - ready
        names = {run.name for run in state.runs if any(run.first <= seq < run.stop for seq in lacking)}
        for joining in groups_of(state.runs, names, self._sizes):
            changes = {seq: payload for seq, payload in new.items() if joining[0].first <= seq < joining[-1].stop}
            self._check_size(state, joining, changes)
            self._joined.append((await self._joiner.join(state, joining, changes), frozenset(changes)))

    def _check_size(self, state: State, joining: Joining, changes: Mapping[int, bytes]) -> None:
        grown = sum(len(payload) - len(self._changes[seq].old) for seq, payload in changes.items())
        size, most = sum(run.size for run in joining) + grown, self._log.storage.max_object_bytes - HEADER_BYTES
        if size > most:
            raise LimitExceededError(
                f"Rewritten, a turn of {state.key} has {size:,} bytes: at most {most:,}.", size, most
            )
