"""Select runs: those of a page of messages, and those that stay after a safe cut.

`everthread.messages.tool_links` needs all spans of a thread in one list. Here each object has the spans inside it, and
the state has those between objects. Applying both until the cut no longer moves gives the same result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain, islice

from everthread.engines._segments.records import Block, Loaded, Run, State
from everthread.messages.tool_links import safe_start, safe_stop
from everthread.model import Message

BlockOf = Callable[[Run], Awaitable[Block]]
"""Returns the block of a run's object."""


async def keep_newest(state: State, most: int, block_of: BlockOf) -> None:
    """Trim the head so that at most the newest ``most`` messages remain."""
    excess = state.count - most
    if excess > 0:
        await drop_head(state, await _position_of(state, excess, block_of), block_of)


async def drop_head(state: State, start: int, block_of: BlockOf) -> None:
    """Drop the messages before ``start``, and more if the cut would separate a result from its call."""
    if start <= state.head_seq:
        return
    start = await _settled(safe_start, state, start, block_of)
    await _keep(state, start, None, block_of)
    state.spans = [span for span in state.spans if span[1] >= start]


async def drop_tail(state: State, stop: int, block_of: BlockOf) -> int:
    """Drop the messages from ``stop`` on, and more if the cut would separate a result from its call; return the cut."""
    stop = await _settled(safe_stop, state, stop, block_of)
    await _keep(state, 0, stop, block_of)
    state.spans = [span for span in state.spans if span[1] < stop]
    return stop


async def _position_of(state: State, index: int, block_of: BlockOf) -> int:
    for run in state.runs:
        if index < run.count:
            return (await block_of(run)).position(run, index) if run.holes else run.first + index
        index -= run.count
    return state.next_seq


Rule = Callable[[list[tuple[int, int]], int], int]


async def _settled(rule: Rule, state: State, cut: int, block_of: BlockOf) -> int:
    while True:
        moved = rule(state.spans, cut)
        run = _run_through(state, moved)
        if run is not None:
            moved = rule((await block_of(run)).spans, moved)
        if moved == cut:
            return cut
        cut = moved


def _run_through(state: State, cut: int) -> Run | None:
    """Return the run with an object on both sides of the cut."""
    before: Run | None = None
    for run in state.runs:
        if run.first < cut < run.stop:
            return run
        if run.first >= cut:
            return run if before is not None and before.name == run.name else None
        before = run
    return None


async def _keep(state: State, start: int, stop: int | None, block_of: BlockOf) -> None:
    kept: list[Run] = []
    for run in state.runs:
        first, end = max(run.first, start), run.stop if stop is None else min(run.stop, stop)
        if first >= end:
            continue
        is_whole = first == run.first and end == run.stop
        part = run if is_whole else (await block_of(run)).run(first, end, run.name)
        if part is not None:
            kept.append(part)
    state.runs = kept


def between(runs: Sequence[Run], start: int, stop: int | None) -> Sequence[Run]:
    """Return the parts of runs between positions. Only the object of a run with holes can count a part's messages."""
    cut = [(max(run.first, start), run.stop if stop is None else min(run.stop, stop), run) for run in runs]
    return [Run(first, end, 0, run.name, run.holes) for first, end, run in cut if first < end]


def oldest(runs: Sequence[Run], limit: int | None) -> Iterator[Run]:
    """Yield the runs with the oldest ``limit`` messages."""
    left = limit
    for run in runs:
        if left is not None and left <= 0:
            return
        yield run
        left = None if left is None else left - max(run.count, 0)


def newest(runs: Sequence[Run], count: int) -> list[Run]:
    """Return the runs with the newest ``count`` messages."""
    return list(oldest(runs[::-1], count))[::-1]


def oldest_messages(found: Sequence[tuple[Run, Loaded]], limit: int | None) -> list[Message]:
    """Return the oldest ``limit`` messages of loaded runs."""
    messages = chain.from_iterable(each.messages(run.first, run.stop) for run, each in found)
    return list(islice(messages, limit))


def newest_messages(found: Sequence[tuple[Run, Loaded]], count: int) -> list[Message]:
    """Return the newest ``count`` messages of loaded runs, oldest first."""
    parts: list[list[Message]] = []
    for run, each in reversed(found):
        part = each.block.run(run.first, run.stop, run.name) if run.holes else run
        if part is not None and count > 0:
            parts.append(list(each.messages(each.block.position(part, -count), part.stop)))
            count -= len(parts[-1])
    return list(chain.from_iterable(reversed(parts)))
