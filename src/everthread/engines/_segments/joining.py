"""Objects that take the place of others: written first, then referred to by one entry.

So no reader sees a gap or a double. Whoever dies in between leaves something superfluous, which a later sweep removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from everthread.engines._segments.log import Log
from everthread.engines._segments.names import Place, made_by
from everthread.engines._segments.records import LAYOUT, Block, Group, Run, State, encode, joined_spans
from everthread.engines._segments.storage import Storage
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


def groups_of(runs: Sequence[Run], wanted: set[int | str], sizes: Sizes) -> list[Joining]:
    """The runs whose objects are wanted: neighbours together, entries with entries, none larger than it should be."""
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
    return Run(0, sum(run.stop - run.first for run in runs), sum(run.size for run in runs), "")


class Joined(msgspec.Struct, frozen=True):
    """An object that takes the place of others at positions ``first`` ≤ seq < ``stop``."""

    first: int
    stop: int
    sources: frozenset[int | str]
    name: str
    block: Block

    def replaces(self, run: Run) -> bool:
        """Whether a run lies in what this was made from."""
        return run.name in self.sources and self.first <= run.first and run.stop <= self.stop

    def holds(self, span: Span) -> bool:
        """Whether a span is noted in this object, and in the state no more."""
        return self.first <= span[0] and span[1] < self.stop

    def fits(self, state: State) -> bool:
        """Whether it can take the place of all that a thread, as it is by now, has between ``first`` and ``stop``.

        Never of a part only: what ties that part to the rest would be noted nowhere.
        """
        runs = [run for run in state.runs if run.first < self.stop and self.first < run.stop]
        return bool(runs) and all(self.replaces(run) for run in runs)


def put_in_place(state: State, prepared: Sequence[Joined]) -> None:
    """Lets a thread refer to new objects instead of those that they were made from, where they fit."""
    joined = [each for each in prepared if each.fits(state)]
    replaced: list[Run] = []
    for run in state.runs:
        new = next((each for each in joined if each.replaces(run)), None)
        if new is not None:
            run = Run(run.first, run.stop, new.block.size(run.first, run.stop), new.name)  # noqa: PLW2901
        last = replaced[-1] if replaced else None
        if last is not None and last.name == run.name and last.stop == run.first:
            replaced[-1] = Run(last.first, run.stop, last.size + run.size, run.name)
        else:
            replaced.append(run)
    state.runs = replaced
    state.spans = [span for span in state.spans if not any(each.holds(span) for each in joined)]


class Joiner:
    """Writes the objects that an entry of one thread will refer to.

    Args:
        log: Where the thread is.
        place: The thread's.
    """

    def __init__(self, log: Log, place: Place) -> None:
        self._log = log
        self._place = place
        self._written: list[str] = []

    async def join(self, state: State, joining: Joining, changes: Mapping[int, bytes] | None = None) -> Joined:
        """Writes one object with all messages of some runs.

        Args:
            state: The thread as it has these runs.
            joining: The runs.
            changes: Other payloads for some positions.
        """
        sources = await asyncio.gather(*(self._log.loaded(self._place, run) for run in joining))
        block = Block(v=LAYOUT)
        payloads: list[bytes] = []
        first, stop = joining[0].first, joining[-1].stop
        spans = [span for span in state.spans if span[0] >= first and span[1] < stop]
        for run, source in zip(joining, sources, strict=True):
            block.groups.extend(_resized(part, changes or {}) for part in source.block.parts(run.first, run.stop))
            spans.extend(span for span in source.block.spans if run.first <= span[1] < run.stop)
            messages = source.messages(run.first, run.stop)
            payloads.extend((changes or {}).get(message.seq, message.payload) for message in messages)
        block.spans = joined_spans(spans)
        name = await self.write(state.number + 1, encode(block, payloads))
        return Joined(first, stop, frozenset(run.name for run in joining), name, block)

    async def write(self, number: int, data: bytes) -> str:
        """Writes an object for entry ``number`` or a later one to refer to; returns its name."""
        name = made_by(number)
        await self._log.storage.create(self._place.segments, name, data)
        self._written.append(name)
        return name

    async def withdraw(self, state: State | None) -> None:
        """Removes what was written here and what the thread, as it was left, does not refer to."""
        unused = set(self._written) - (set() if state is None else state.references)
        await drop(self._log.storage, self._place, unused)


def _resized(group: Group, changes: Mapping[int, bytes]) -> Group:
    if not changes:
        return group
    sizes = (len(changes[seq]) if seq in changes else size for seq, size in enumerate(group.sizes, group.first))
    return msgspec.structs.replace(group, sizes=tuple(sizes))


def unreferenced(before: State | None, after: State | None) -> set[str]:
    """The joined objects that a thread referred to before an entry, and after it no more.

    They may go at once: nobody writes under their names again, and who is reading them looks at the newest entry
    when they are gone.
    """
    if before is None or after is None or before.gone or after.born != before.born:
        return set()  # a thread that ended is erased as a whole
    return {name for name in before.references - after.references if isinstance(name, str)}


async def drop(storage: Storage, place: Place, names: set[str]) -> None:
    """Removes joined objects of a thread."""
    if names:
        await storage.delete(place.segments, names)
