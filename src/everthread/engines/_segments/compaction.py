"""Join small objects into larger ones, and delete unreferenced objects.

A compaction first writes the joined objects, under new names. Then one entry refers to them instead of the former
ones: a reader sees all of the old or all of the new, never a gap or a duplicate. Unreferenced objects are deleted last.
If the process dies in between, it leaves superfluous objects, which the next compaction deletes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from everthread.engines._segments.log import Draft, Log, SupersededError, View
from everthread.engines._segments.names import LogPrefix, made_by, maker_of, uninverted
from everthread.engines._segments.records import (
    GONE,
    LAYOUT,
    Block,
    Group,
    Run,
    Snapshot,
    State,
    encode,
    joined_spans,
)
from everthread.engines._segments.storage import Listed, Storage
from everthread.engines._segments.turns import live, open_calls, remembered_appends
from everthread.messages.tool_links import Span


class Sizes(msgspec.Struct, frozen=True):
    """When objects are joined, and how large they become.

    Attributes:
        compact_after: A thread is compacted after this number of entries.
        full_bytes: An object of this size is not joined any more.
        full_messages: The same, in messages.
        join_segments: More small segments than this are joined.
    """

    compact_after: int = 64
    full_bytes: int = 2 * 1024 * 1024
    full_messages: int = 2000
    join_segments: int = 8

    def is_due(self, state: State) -> bool:
        """Return whether a thread needs a compaction."""
        return not state.gone and state.number - state.compacted >= self.compact_after

    def is_full(self, run: Run) -> bool:
        """Return whether a run's object is too large to be joined."""
        return run.size >= self.full_bytes or run.count >= self.full_messages


Joining = Sequence[Run]
"""Adjacent runs that become one object."""


def groups_of(runs: Sequence[Run], wanted: set[int | str], sizes: Sizes) -> list[Joining]:
    """Group adjacent runs with ``wanted`` objects: entries with entries, segments with segments, within the sizes."""
    groups: list[list[Run]] = [[]]
    for run in runs:
        group = groups[-1]
        if run.name not in wanted:
            groups.append([])
        elif group and (type(group[-1].name) is not type(run.name) or sizes.is_full(_sum([*group, run]))):
            groups.append([run])
        else:
            group.append(run)
    return [group for group in groups if group]


def _sum(runs: Sequence[Run]) -> Run:
    return Run(0, sum(run.count for run in runs), sum(run.size for run in runs), "")


class Joined(msgspec.Struct, frozen=True):
    """An object that replaces others at positions ``first`` ≤ seq < ``stop``."""

    first: int
    stop: int
    sources: frozenset[int | str]
    name: str
    block: Block

    def replaces(self, run: Run) -> bool:
        """Return whether this was made from a run."""
        return run.name in self.sources and self.first <= run.first and run.stop <= self.stop

    def holds(self, span: Span) -> bool:
        """Return whether this object has a span, so that the state need not have it."""
        return self.first <= span[0] and span[1] < self.stop

    def fits(self, state: State) -> bool:
        """Return whether it can replace all that a thread has between ``first`` and ``stop``.

        It never replaces a part only: the spans between that part and the rest would be lost.
        """
        runs = [run for run in state.runs if run.first < self.stop and self.first < run.stop]
        return bool(runs) and all(self.replaces(run) for run in runs)


class Joiner:
    """Writes the objects that an entry of one thread will refer to."""

    def __init__(self, log: Log, prefix: LogPrefix) -> None:
        self._log = log
        self._prefix = prefix
        self._written: list[str] = []
        self.joined: list[Joined] = []

    async def join(self, state: State, joining: Joining, changes: Mapping[int, bytes] | None = None) -> Joined:
        """Write one object with all messages of these runs of a state, with new payloads by position."""
        changes = changes or {}
        sources = await asyncio.gather(*(self._log.loaded(self._prefix, run) for run in joining))
        block = Block(v=LAYOUT)
        payloads: list[bytes] = []
        first, stop = joining[0].first, joining[-1].stop
        spans = [span for span in state.spans if span[0] >= first and span[1] < stop]
        for run, source in zip(joining, sources, strict=True):
            block.groups.extend(_resized(part, changes) for part in source.block.parts(run.first, run.stop))
            spans.extend(span for span in source.block.spans if run.first <= span[1] < run.stop)
            messages = source.messages(run.first, run.stop)
            payloads.extend(changes.get(message.seq, message.payload) for message in messages)
        block.spans = joined_spans(spans)
        name = await self.write(state.number + 1, encode(block, payloads))
        self.joined.append(Joined(first, stop, frozenset(run.name for run in joining), name, block))
        return self.joined[-1]

    async def replace(self, state: State) -> None:
        """Make a state refer to the joined objects that fit, instead of those that they were made from."""
        joined = [each for each in self.joined if each.fits(state)]
        runs = [(run, next((each for each in joined if each.replaces(run)), None)) for run in state.runs]
        replaced = [run if new is None else new.block.run(run.first, run.stop, new.name) for run, new in runs]
        state.runs = await self._merged([run for run in replaced if run is not None])
        state.spans = [span for span in state.spans if not any(each.holds(span) for each in joined)]

    async def _merged(self, runs: Sequence[Run]) -> list[Run]:
        """Merge adjacent runs of one object, so that the state does not grow with every undone turn."""
        merged: list[Run] = []
        for run in runs:
            last = merged[-1] if merged else None
            if last is not None and last.name == run.name:
                block = await self._block(run)
                if last.stop == run.first or block.run(last.stop, run.first, run.name) is None:
                    holes = last.holes + run.holes + run.first - last.stop
                    merged[-1] = Run(last.first, run.stop, last.size + run.size, run.name, holes)
                    continue
            merged.append(run)
        return merged

    async def _block(self, run: Run) -> Block:
        joined = next((each for each in self.joined if each.name == run.name), None)
        return joined.block if joined is not None else await self._log.block(self._prefix, run)

    async def write(self, number: int, data: bytes) -> str:
        """Write an object for entry ``number`` or a later one; return its name."""
        name = made_by(number)
        await self._log.storage.create(self._prefix.segments, name, data)
        self._written.append(name)
        return name

    async def withdraw(self, state: State | None) -> None:
        """Delete the objects written here that the thread's state does not refer to."""
        unused = set(self._written) - (set() if state is None else state.references)
        await drop(self._log.storage, self._prefix, unused)


def _resized(group: Group, changes: Mapping[int, bytes]) -> Group:
    if not changes:
        return group
    sizes = (len(changes[seq]) if seq in changes else size for seq, size in enumerate(group.sizes, group.first))
    return msgspec.structs.replace(group, sizes=tuple(sizes))


def unreferenced(before: State | None, after: State | None) -> set[str]:
    """Return the joined objects that an entry dropped.

    They may be deleted immediately: their names are never used again, and a reader that misses them reads the
    newest entry.
    """
    if before is None or after is None or before.gone or after.born != before.born:
        return set()  # a former life is erased as a whole
    return {name for name in before.references - after.references if isinstance(name, str)}


async def drop(storage: Storage, prefix: LogPrefix, names: set[str]) -> None:
    """Delete joined objects of a thread."""
    if names:
        await storage.delete(prefix.segments, names)


def plan(runs: Sequence[Run], sizes: Sizes) -> list[Joining]:
    """Return the runs to join: all small entries, and all small segments but the newest once there are several.

    The newest segment stays separate, so that a read of the newest messages never loads a large object. A message
    is thus rewritten only a few times, however long the thread becomes.
    """
    segments = [run.name for run in runs if isinstance(run.name, str) and not sizes.is_full(run)]
    joined: set[int | str] = set(segments[:-1] if len(segments) > sizes.join_segments else ())
    joined.update(run.name for run in runs if isinstance(run.name, int) and not sizes.is_full(run))
    return [group for group in groups_of(runs, joined, sizes) if len({run.name for run in group}) > 1]


class Compaction:
    """One compaction of one thread."""

    def __init__(self, log: Log, prefix: LogPrefix, sizes: Sizes, now_ms: int) -> None:
        self._log = log
        self._sizes = sizes
        self._prefix = prefix
        self._now_ms = now_ms
        self._joiner = Joiner(log, prefix)
        self._born = 0
        self._before: State | None = None

    async def run(self, *, erase: bool = False) -> None:
        """Compact the thread if it exists; with ``erase`` see `sweep`."""
        state = live(await self._log.current(self._prefix), self._now_ms)
        if state is None:
            return
        try:
            for joining in plan(state.runs, self._sizes):
                await self._joiner.join(state, joining)
        except SupersededError:
            # Another process has compacted or deleted it.
            await self._joiner.withdraw(state)
            return
        self._born = state.born
        # If this fails, the entry may have been written, so the joined objects stay for a later sweep.
        view = await self._log.commit(self._prefix, self._step)
        await self._joiner.withdraw(view.state)
        if view.state is not None and not view.state.gone and view.state.born == state.born:
            await drop(self._log.storage, self._prefix, unreferenced(self._before, view.state))
            await sweep(self._log, self._prefix, view.state, erase=erase)

    async def _step(self, view: View) -> Draft | None:
        """Make the entry that refers to the joined objects, after concurrent appends and trims."""
        self._before = before = view.state
        if before is None or before.gone or before.born != self._born:
            return None
        if self._joiner.joined and not any(joined.fits(before) for joined in self._joiner.joined):
            return None
        state = before.successor()
        await self._joiner.replace(state)
        state.snapshot = await self._snapshot(state)
        state.appends, state.calls = [], []
        state.compacted = state.number
        return Draft(state)

    async def _snapshot(self, state: State) -> str:
        """Write the append IDs and open calls of the state as an object; return its name."""
        if not state.appends and not state.calls:
            return state.snapshot
        appends = await remembered_appends(self._log, self._prefix, state)
        calls = list((await open_calls(self._log, self._prefix, state)).items())
        if not appends and not calls:
            return ""
        return await self._joiner.write(state.number, encode(Snapshot(v=LAYOUT, appends=appends, calls=calls)))


async def sweep(log: Log, prefix: LogPrefix, state: State, *, erase: bool) -> None:
    """Delete the objects that a thread's newest state does not refer to.

    With ``erase`` also empty the entries that are too young to be deleted. Those with replaced payloads always are.
    """
    kept = state.references
    await _sweep_entries(log, prefix, state.number, kept, empty_below=state.number if erase else state.replaced)

    def is_unused(listed: Listed) -> bool:
        # A compaction in progress may need a young one.
        return listed.name not in kept and maker_of(listed.name) <= state.number and log.fence.is_past(listed)

    await _delete_where(log.storage, prefix.segments, is_unused)


async def _sweep_entries(log: Log, prefix: LogPrefix, below: int, kept: set[int | str], *, empty_below: int) -> None:
    """Delete a thread's unreferenced entries below a number.

    Young ones keep their names (see `Fence`); those below ``empty_below`` are emptied.
    """
    async for chunk in log.storage.list(prefix.entries):
        freed: list[str] = []
        emptied: list[str] = []
        for listed in chunk:
            number = uninverted(listed.name)
            if number is None or number >= below or number in kept:
                continue
            if log.fence.is_past(listed):
                freed.append(listed.name)
            elif number < empty_below and listed.size:
                emptied.append(listed.name)
        if freed:
            await log.storage.delete(prefix.entries, freed)
        await asyncio.gather(*(log.storage.put(prefix.entries, name, GONE) for name in emptied))


async def erase_before(log: Log, prefix: LogPrefix, number: int) -> None:
    """Erase the former life of a thread, which entry ``number`` ended or replaced."""
    await _delete_where(log.storage, prefix.segments, lambda listed: maker_of(listed.name) <= number)
    await _delete_where(log.storage, prefix.documents, lambda listed: maker_of(listed.name) < number)
    await _sweep_entries(log, prefix, number, set(), empty_below=number)


async def _delete_where(storage: Storage, folder: str, is_unused: Callable[[Listed], bool]) -> None:
    async for chunk in storage.list(folder):
        if names := [listed.name for listed in chunk if is_unused(listed)]:
            await storage.delete(folder, names)
