"""Find the cuts of a thread that leave a valid conversation for a model.

Model services refuse a conversation in which a tool result has no call before it (HTTP 400), so a
call and its result are kept or dropped together. A pair at positions (call, result) forbids every
cut in ``call < cut ≤ result``, where a cut at c separates c-1 from c. Such *spans* are stored merged and
in order; all safe cuts follow from them.

No I/O: engines store the spans and the open calls in their own way and apply the same rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from everthread.model import NewMessage

MAX_OPEN_CALLS = 1000
"""Maximum number of unanswered tool calls that are stored for a thread; the oldest are dropped first."""

Span = tuple[int, int]
"""A call's and its result's position (lo, hi): no cut at lo < c ≤ hi."""


class TurnLinks(msgspec.Struct, frozen=True):
    """The links between the tool calls and results of one turn. Positions count from its start.

    Attributes:
        spans: Merged spans within the turn.
        open_calls: Calls that the turn does not answer, by id: the position of the last such call. The newest
            `MAX_OPEN_CALLS` of them.
        early_results: Results without an earlier call in the turn: (id, position), in order.
    """

    spans: tuple[Span, ...] = ()
    open_calls: tuple[tuple[str, int], ...] = ()
    early_results: tuple[tuple[str, int], ...] = ()


NO_LINKS = TurnLinks()


def turn_links(turn: Sequence[NewMessage]) -> TurnLinks:
    """Return the links of one turn's messages."""
    # Loops instead of generators: each append comes here.
    for message in turn:
        if message.calls or message.results:
            return links_of([(message.calls, message.results) for message in turn])
    return NO_LINKS


def links_of(turn: Iterable[tuple[Sequence[str], Sequence[str]]]) -> TurnLinks:
    """Link one turn's calls and results, given (calls, results) of each message in order.

    A message with both a call and its result (the model's host ran the tool) needs no other message.
    """
    called: dict[str, int] = {}
    answered: set[str] = set()
    spans: list[Span] = []
    early: list[tuple[str, int]] = []
    for position, (calls, results) in enumerate(turn):
        if not calls and not results:
            continue
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
                called.pop(call_id, None)
                called[call_id] = position
                answered.discard(call_id)
    if not called and not early:
        return NO_LINKS
    still_open = [(call_id, at) for call_id, at in called.items() if call_id not in answered]
    # No engine stores more of them, so it does not get more.
    return TurnLinks(tuple(spans), tuple(still_open[-MAX_OPEN_CALLS:]), tuple(early))


def forget_oldest_calls(open_calls: dict[str, int]) -> None:
    """Drop the oldest calls beyond `MAX_OPEN_CALLS`."""
    # In one pass: the search for the first key of a dictionary steps over all keys that were deleted.
    for call_id in list(islice(open_calls, max(len(open_calls) - MAX_OPEN_CALLS, 0))):
        del open_calls[call_id]


def add_span(spans: list[Span], lo: int, hi: int) -> None:
    """Add a span that ends after all others, or with the last; merge it with those that it touches."""
    if lo >= hi:
        return
    while spans and spans[-1][1] >= lo:
        last_lo, last_hi = spans.pop()
        lo, hi = min(lo, last_lo), max(hi, last_hi)
    spans.append((lo, hi))


def resolve(links: TurnLinks, first: int, called: Mapping[str, int]) -> list[Span]:
    """Return the spans that a turn at position ``first`` adds to its thread, in the order that `add_span` needs.

    Args:
        called: Position of each unanswered call of the thread. A result without such a call is linked to the
            position before it, so that it cannot become the first message.
    """
    spans = [(first + lo, first + hi) for lo, hi in links.spans]
    answered: set[str] = set()
    for call_id, at in links.early_results:
        known = call_id in called and call_id not in answered
        spans.append((called[call_id] if known else first + at - 1, first + at))
        answered.add(call_id)
    return sorted(spans, key=lambda span: span[1])


def add_turn(spans: list[Span], open_calls: dict[str, int], links: TurnLinks, first: int) -> None:
    """Add a turn at position ``first`` to the spans and open calls that an engine stores for a thread."""
    for span in resolve(links, first, open_calls):
        add_span(spans, *span)
    for call_id, _ in links.early_results:
        open_calls.pop(call_id, None)
    for call_id, at in links.open_calls:
        open_calls.pop(call_id, None)
        open_calls[call_id] = first + at
    forget_oldest_calls(open_calls)


def safe_start(spans: Sequence[Span], position: int) -> int:
    """Return the lowest cut at or above ``position`` that separates no result from its call."""
    span = _span_around(spans, position)
    return position if span is None else span[1] + 1


def safe_stop(spans: Sequence[Span], position: int) -> int:
    """Return the highest cut at or below ``position`` that separates no result from its call."""
    span = _span_around(spans, position)
    return position if span is None else span[0]


def _span_around(spans: Sequence[Span], cut: int) -> Span | None:
    index = bisect_left(spans, cut, key=lambda span: span[1])
    if index < len(spans) and spans[index][0] < cut:
        return spans[index]
    return None
