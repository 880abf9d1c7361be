"""Joins small objects into larger ones, and removes what no entry refers to any more.

Joined turns are written first, under names that nobody knows. Then one entry says that they take the place of the
former: a reader sees all of the old or all of the new, never a gap or a double. What is not referred to is removed
last, so whoever dies in between leaves something superfluous, which the next compaction removes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from everthread.engines._segments.joining import (
    Joined,
    Joiner,
    Joining,
    Sizes,
    drop,
    groups_of,
    put_in_place,
    unreferenced,
)
from everthread.engines._segments.log import Draft, Log, SupersededError, View
from everthread.engines._segments.names import Place, maker_of, uninverted
from everthread.engines._segments.records import GONE, LAYOUT, Run, Snapshot, State, encode
from everthread.engines._segments.turns import live, open_calls, remembered_appends


def plan(runs: Sequence[Run], sizes: Sizes) -> list[Joining]:
    """Which runs to join: all small entries, and older small segments once there are several.

    The newest segment stays by itself, so that reading the newest messages never touches a large object. A message
    is thus written again a few times at most, however long the thread becomes.
    """
    segments = [run.name for run in runs if isinstance(run.name, str) and not sizes.is_full(run)]
    joined: set[int | str] = set(segments[:-1] if len(segments) > sizes.join_segments else ())
    joined.update(run.name for run in runs if isinstance(run.name, int) and not sizes.is_full(run))
    return [group for group in groups_of(runs, joined, sizes) if len({run.name for run in group}) > 1]


class Compaction:
    """One compaction of one thread.

    Args:
        log: Where the thread is.
        place: The thread's.
        sizes: How large objects become.
        now_ms: The time that decides whether it has expired.
    """

    def __init__(self, log: Log, place: Place, sizes: Sizes, now_ms: int) -> None:
        self._log = log
        self._sizes = sizes
        self._place = place
        self._now_ms = now_ms
        self._joiner = Joiner(log, place)

    async def run(self, *, erase: bool = False) -> None:
        """Compacts the thread; does nothing to one that is not there.

        Args:
            erase: Also empty what is not referred to any more but too young to be removed.
        """
        state = live(await self._log.current(self._place), self._now_ms)
        if state is None:
            return
        try:
            joined = [await self._joiner.join(state, joining) for joining in plan(state.runs, self._sizes)]
        except SupersededError:
            # Somebody else has compacted or deleted it meanwhile.
            await self._joiner.withdraw(state)
            return
        replacing = _Replacing(self, state.born, joined)
        # Should this fail, nothing may be withdrawn: the entry may have been written. A later sweep finds out.
        view = await self._log.commit(self._place, replacing.step)
        await self._joiner.withdraw(view.state)
        if view.state is not None and not view.state.gone and view.state.born == state.born:
            await drop(self._log.storage, self._place, unreferenced(replacing.before, view.state))
            await sweep(self._log, self._place, view.state, erase=erase)

    async def snapshot(self, state: State) -> str:
        """Moves what only some appends need to know out of the state; returns the object's name."""
        if not state.appends and not state.calls:
            return state.snapshot
        appends = await remembered_appends(self._log, self._place, state)
        calls = list((await open_calls(self._log, self._place, state)).items())
        if not appends and not calls:
            return ""
        return await self._joiner.write(state.number, encode(Snapshot(v=LAYOUT, appends=appends, calls=calls)))


class _Replacing:
    """The entry in which joined objects take the place of the former, whatever was appended or trimmed meanwhile."""

    def __init__(self, compaction: Compaction, born: int, joined: Sequence[Joined]) -> None:
        self._compaction = compaction
        self._born = born
        self._joined = joined
        self.before: State | None = None

    async def step(self, view: View, _: str) -> Draft | None:
        self.before = before = view.state
        if before is None or before.gone or before.born != self._born or not self._is_useful(before):
            return None
        state = before.successor()
        put_in_place(state, self._joined)
        state.snapshot = await self._compaction.snapshot(state)
        state.appends, state.calls = [], []
        state.compacted = state.number
        return Draft(state)

    def _is_useful(self, state: State) -> bool:
        return not self._joined or any(joined.fits(state) for joined in self._joined)


async def sweep(log: Log, place: Place, state: State, *, erase: bool) -> None:
    """Removes what a thread, as it is by its newest entry, does not refer to.

    Args:
        log: Where the thread is.
        place: The thread's.
        state: What the newest entry says.
        erase: Also empty entries that are too young to be removed; those whose payloads were replaced always are.
    """
    empty_below = state.number if erase else state.replaced
    await sweep_entries(log, place, state.number, state.references, empty_below=empty_below)
    await sweep_segments(log, place, state.number, state.references, at_once=False)


async def sweep_entries(log: Log, place: Place, below: int, kept: set[int | str], *, empty_below: int) -> None:
    """Removes a thread's entries below a number that nothing refers to.

    Those that were written a short while ago keep their names (see `Fence`); below ``empty_below`` they are emptied.
    """
    async for chunk in log.storage.list(place.entries):
        freed: list[str] = []
        emptied: list[str] = []
        for listed in chunk:
            number = uninverted(listed.name)
            if number is None or number >= below or number in kept:
                continue
            if time.time() - listed.modified_s > log.fence.grace_s:
                freed.append(listed.name)
            elif number < empty_below and listed.size:
                emptied.append(listed.name)
        if freed:
            await log.storage.delete(place.entries, freed)
        await asyncio.gather(*(log.storage.put(place.entries, name, GONE) for name in emptied))


async def sweep_segments(log: Log, place: Place, below: int, kept: set[int | str], *, at_once: bool) -> None:
    """Removes a thread's joined objects that were made for an entry below a number and that nothing refers to.

    Unless ``at_once``, those of a compaction that may still be under way are left.
    """
    async for chunk in log.storage.list(place.segments):
        unused = [
            listed.name
            for listed in chunk
            if listed.name not in kept
            and maker_of(listed.name) <= below
            and (at_once or time.time() - listed.modified_s > log.fence.grace_s)
        ]
        if unused:
            await log.storage.delete(place.segments, unused)


async def erase_before(log: Log, place: Place, number: int) -> None:
    """Removes all that belongs to what a thread was before entry ``number``, which ended or replaced it."""
    await sweep_segments(log, place, number, set(), at_once=True)
    async for chunk in log.storage.list(place.documents):
        former = [listed.name for listed in chunk if maker_of(listed.name) < number]
        if former:
            await log.storage.delete(place.documents, former)
    await sweep_entries(log, place, number, set(), empty_below=number)
