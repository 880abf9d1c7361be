"""Where a thread may be cut, without reading more than the one object that the cut goes through.

`everthread.retention` wants a thread's spans in one list. Here each object has those that lie within it, and the
state those that join two objects; looking in both until nothing moves any more gives the same cut.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from everthread.engines._segments.records import Block, Run, State
from everthread.retention import safe_start, safe_stop

BlockOf = Callable[[Run], Awaitable[Block]]
"""Gives the block of a run's object."""


async def keep_newest(state: State, most: int, block_of: BlockOf) -> None:
    """Trims the head so that at most the newest ``most`` messages remain."""
    excess = state.count - most
    if excess > 0:
        await drop_head(state, _position_of(state, excess), block_of)


async def drop_head(state: State, start: int, block_of: BlockOf) -> None:
    """Drops what is before ``start``, and more where a result would be cut from its call."""
    if start <= state.head_seq:
        return
    start = await _settled(safe_start, state, start, block_of)
    await _keep(state, start, None, block_of)
    state.spans = [span for span in state.spans if span[1] >= start]


async def drop_tail(state: State, stop: int, block_of: BlockOf) -> int:
    """Drops what is at ``stop`` and after, and more where a result would be cut from its call; returns the cut."""
    stop = await _settled(safe_stop, state, stop, block_of)
    await _keep(state, 0, stop, block_of)
    state.spans = [span for span in state.spans if span[1] < stop]
    return stop


def _position_of(state: State, index: int) -> int:
    for run in state.runs:
        if index < run.stop - run.first:
            return run.first + index
        index -= run.stop - run.first
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
    """The run whose object lies on both sides of the cut."""
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
        whole = first == run.first and end == run.stop
        size = run.size if whole else (await block_of(run)).size(first, end)
        kept.append(Run(first, end, size, run.name))
    state.runs = kept
