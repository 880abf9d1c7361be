"""Joins small objects into larger ones, and removes what no entry refers to any more.

Joined turns are written first, under names that nobody knows. Then one entry says that they take the place of the
former: a reader sees all of the old or all of the new, never a gap or a double. What is not referred to is removed
last, so whoever dies in between leaves something superfluous, which the next compaction removes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from everthread.engines._segments.log import Draft, Log, SupersededError, View
from everthread.engines._segments.names import Place, made_by, maker_of, uninverted
from everthread.engines._segments.records import (
    GONE,
    LAYOUT,
    Block,
    Run,
    Snapshot,
    State,
    encode,
    joined_spans,
)
from everthread.engines._segments.turns import live, open_calls, remembered_appends
from everthread.retention import Span


class Sizes(msgspec.Struct, frozen=True):
    """When to join objects, and how large they become.

    Attributes:
        compact_after: A thread is compacted when so many entries were written since the last time.
        full_bytes: An object of this size is not joined with others any more.
        full_messages: The same, in messages.
        join_segments: How many small segments lie beside each other before they are joined.
    """

    compact_after: int = 64
    full_bytes: int = 2 * 1024 * 1024
    full_messages: int = 2000
    join_segments: int = 8

    def is_due(self, state: State) -> bool:
        """Whether enough was written since the last compaction."""
        return not state.gone and state.number - state.compacted >= self.compact_after

    def is_full(self, run: Run) -> bool:
        """Whether a run's object is left as it is."""
        return run.size >= self.full_bytes or run.stop - run.first >= self.full_messages


Joining = Sequence[Run]
"""Neighbouring runs that are to become one object."""


def plan(runs: Sequence[Run], sizes: Sizes) -> list[Joining]:
    """Which runs to join: all small entries, and older small segments once there are several.

    The newest segment stays by itself, so that reading the newest messages never touches a large object. A message
    is thus written again a few times at most, however long the thread becomes.
    """
    segments = [run.name for run in runs if isinstance(run.name, str) and not sizes.is_full(run)]
    joined: set[int | str] = set(segments[:-1] if len(segments) > sizes.join_segments else ())
    joined.update(run.name for run in runs if isinstance(run.name, int) and not sizes.is_full(run))
    return _groups(runs, joined, sizes)


def _groups(runs: Sequence[Run], joined: set[int | str], sizes: Sizes) -> list[Joining]:
    """Neighbours that go together: entries with entries, segments with segments, none larger than it should be."""
    groups: list[list[Run]] = [[]]
    for run in runs:
        group = groups[-1]
        if run.name not in joined:
            groups.append([])
        elif group and (type(group[-1].name) is not type(run.name) or sizes.is_full(_sum([*group, run]))):
            groups.append([run])
        else:
            group.append(run)
    return [group for group in groups if len({run.name for run in group}) > 1]


def _sum(runs: Sequence[Run]) -> Run:
    return Run(0, sum(run.stop - run.first for run in runs), sum(run.size for run in runs), "")


class _Joined(msgspec.Struct, frozen=True):
    """An object that takes the place of others at positions ``first`` ≤ seq < ``stop``."""

    first: int
    stop: int
    sources: frozenset[int | str]
    name: str

    def replaces(self, run: Run) -> bool:
        return run.name in self.sources and self.first <= run.first and run.stop <= self.stop

    def holds(self, span: Span) -> bool:
        return self.first <= span[0] and span[1] < self.stop


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
        self._storage = log.storage
        self._place = place
        self._now_ms = now_ms
        self._written: list[str] = []

    async def run(self, *, erase: bool = False) -> None:
        """Compacts the thread; does nothing to one that is not there.

        Args:
            erase: Also empty what is not referred to any more but too young to be removed.
        """
        state = live(await self._log.current(self._place), self._now_ms)
        if state is None:
            return
        try:
            joined = [await self._join(state, joining) for joining in plan(state.runs, self._sizes)]
        except SupersededError:
            # Somebody else has compacted or deleted it meanwhile.
            await self._withdraw(state)
            return
        # Should this fail, nothing may be withdrawn: the entry may have been written. A later sweep finds out.
        view = await self._log.commit(self._place, _Replacing(self, state.born, joined).step)
        await self._withdraw(view.state)
        if view.state is not None and not view.state.gone and view.state.born == state.born:
            await self._sweep(view.state, erase=erase)

    async def _join(self, state: State, joining: Joining) -> _Joined:
        sources = await asyncio.gather(*(self._log.loaded(self._place, run) for run in joining))
        block = Block(v=LAYOUT)
        payloads: list[bytes] = []
        first, stop = joining[0].first, joining[-1].stop
        spans = [span for span in state.spans if span[0] >= first and span[1] < stop]
        for run, source in zip(joining, sources, strict=True):
            block.groups.extend(source.block.parts(run.first, run.stop))
            spans.extend(span for span in source.block.spans if run.first <= span[1] < run.stop)
            payloads.extend(source.payloads(run.first, run.stop))
        block.spans = joined_spans(spans)
        name = await self.write(state.number + 1, encode(block, payloads))
        return _Joined(first, stop, frozenset(run.name for run in joining), name)

    async def write(self, number: int, data: bytes) -> str:
        """Writes an object that an entry will refer to."""
        name = made_by(number)
        await self._storage.create(self._place.segments, name, data)
        self._written.append(name)
        return name

    async def snapshot(self, state: State) -> str:
        """Moves what only some appends need to know out of the state; returns the object's name."""
        if not state.appends and not state.calls:
            return state.snapshot
        appends = await remembered_appends(self._log, self._place, state)
        calls = list((await open_calls(self._log, self._place, state)).items())
        if not appends and not calls:
            return ""
        return await self.write(state.number, encode(Snapshot(v=LAYOUT, appends=appends, calls=calls)))

    async def _withdraw(self, state: State | None) -> None:
        """Removes what was written here and is not referred to: the thread changed too much meanwhile."""
        unused = set(self._written) - (set() if state is None else _references(state))
        if unused:
            await self._storage.delete(self._place.segments, unused)

    async def _sweep(self, state: State, *, erase: bool) -> None:
        kept = _references(state)
        await sweep_entries(self._log, self._place, state.number, kept, erase=erase)
        await sweep_segments(self._log, self._place, state.number, kept, at_once=False)


class _Replacing:
    """The entry in which joined objects take the place of the former, whatever was appended or trimmed meanwhile."""

    def __init__(self, compaction: Compaction, born: int, joined: Sequence[_Joined]) -> None:
        self._compaction = compaction
        self._born = born
        self._joined = joined

    async def step(self, view: View, _: str) -> Draft | None:
        before = view.state
        if before is None or before.gone or before.born != self._born or not self._is_useful(before):
            return None
        state = before.successor()
        state.runs = self._replaced(state.runs)
        state.spans = [span for span in state.spans if not any(joined.holds(span) for joined in self._joined)]
        state.snapshot = await self._compaction.snapshot(state)
        state.appends, state.calls = [], []
        state.compacted = state.number
        return Draft(state)

    def _is_useful(self, state: State) -> bool:
        return not self._joined or any(joined.replaces(run) for joined in self._joined for run in state.runs)

    def _replaced(self, runs: Sequence[Run]) -> list[Run]:
        replaced: list[Run] = []
        for run in runs:
            name = next((joined.name for joined in self._joined if joined.replaces(run)), run.name)
            last = replaced[-1] if replaced else None
            if last is not None and last.name == name and last.stop == run.first:
                replaced[-1] = Run(last.first, run.stop, last.size + run.size, name)
            else:
                replaced.append(msgspec.structs.replace(run, name=name))
        return replaced


def _references(state: State) -> set[int | str]:
    return {*(run.name for run in state.runs), state.snapshot, state.metadata_at}


async def sweep_entries(log: Log, place: Place, below: int, kept: set[int | str], *, erase: bool) -> None:
    """Removes a thread's entries below a number that nothing refers to.

    Those that were written a short while ago keep their names (see `Fence`); ``erase`` empties them.
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
            elif erase and listed.size:
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
    await sweep_entries(log, place, number, set(), erase=True)
