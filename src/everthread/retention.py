"""Where a thread may be cut, so that what remains is valid for a model.

Model services refuse a conversation in which a tool result has no call before it (HTTP 400), so a
call and its result are kept or dropped together. A pair at positions (call, result) forbids every
cut in ``call < cut ≤ result``, where a cut at c separates c-1 from c. Such *spans* are kept merged and
in order; everything else here follows from them.

No I/O: engines keep the spans and the open calls in their own way and apply the same rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

import msgspec

MAX_OPEN_CALLS = 1000
"""How many unanswered tool calls of a thread are remembered; the oldest are forgotten first."""

Span = tuple[int, int]
"""A call's and its result's position (lo, hi): no cut at lo < c ≤ hi."""


class TurnLinks(msgspec.Struct, frozen=True):
    """How the tool calls and results of one turn hang together; positions count from its start.

    Attributes:
        spans: Merged spans within the turn.
        open_calls: Calls that the turn does not answer, by id: the position of the last such call.
        early_results: Results whose call is not earlier in the turn: (id, position), in order.
    """

    spans: tuple[Span, ...] = ()
    open_calls: tuple[tuple[str, int], ...] = ()
    early_results: tuple[tuple[str, int], ...] = ()


NO_LINKS = TurnLinks()


def links_of(turn: Iterable[tuple[Sequence[str], Sequence[str]]]) -> TurnLinks:
    """Pairs up one turn's calls and results, given (calls, results) of each message in order.

    A message that answers a call of its own (a tool that the model's host ran) can stand alone.
    """
    called: dict[str, int] = {}
    answered: set[str] = set()
    spans: list[Span] = []
    early: list[tuple[str, int]] = []
    for position, (calls, results) in enumerate(turn):
        own = set(calls).intersection(results) if calls and results else ()
        for call_id in results:
            if call_id in own:
                continue
            if call_id in called:
                add_span(spans, called[call_id], position)
                answered.add(call_id)
            else:
                early.append((call_id, position))
        for call_id in calls:
            if call_id not in own:
                called[call_id] = position
                answered.discard(call_id)
    if not called and not early:
        return NO_LINKS
    still_open = tuple((call_id, at) for call_id, at in called.items() if call_id not in answered)
    return TurnLinks(tuple(spans), still_open, tuple(early))


def add_span(spans: list[Span], lo: int, hi: int) -> None:
    """Adds a span, none of the others ending after it, and merges it with those it touches."""
    if lo >= hi:
        return
    while spans and spans[-1][1] >= lo:
        last_lo, last_hi = spans.pop()
        lo, hi = min(lo, last_lo), max(hi, last_hi)
    spans.append((lo, hi))


def resolve(links: TurnLinks, first: int, called: Mapping[str, int]) -> list[Span]:
    """The spans that a turn at position ``first`` adds to its thread, in the order that `add_span` needs.

    Args:
        called: Position of each unanswered call of the thread. A result whose call is not there must
            at least not stand at the head: it is tied to the position before it.
    """
    spans = [(first + lo, first + hi) for lo, hi in links.spans]
    answered: set[str] = set()
    for call_id, at in links.early_results:
        known = call_id in called and call_id not in answered
        spans.append((called[call_id] if known else first + at - 1, first + at))
        answered.add(call_id)
    return sorted(spans, key=lambda span: span[1])


def safe_start(spans: Sequence[Span], position: int) -> int:
    """The lowest cut at or above ``position`` that separates no result from its call."""
    span = _span_around(spans, position)
    return position if span is None else span[1] + 1


def safe_stop(spans: Sequence[Span], position: int) -> int:
    """The highest cut at or below ``position`` that separates no result from its call."""
    span = _span_around(spans, position)
    return position if span is None else span[0]


def _span_around(spans: Sequence[Span], cut: int) -> Span | None:
    index = bisect_left(spans, cut, key=lambda span: span[1])
    if index < len(spans) and spans[index][0] < cut:
        return spans[index]
    return None
