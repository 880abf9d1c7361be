"""Where a stored thread may be cut, found by reading it: for what is written once over the contract.

Engines know the cuts of their own threads, and ``truncate`` applies them. This is for those who must know before, such
as a dry run, and for those who cut what they hand on and not what is stored.
"""

from __future__ import annotations

from everthread import codec
from everthread.codec import View
from everthread.errors import CorruptRecordError
from everthread.model import Message, ThreadKey
from everthread.retention import MAX_OPEN_CALLS, Span, add_span, safe_start, safe_stop


class SpanReader:
    """Follows the tool calls and results of a thread's messages, which are added in order from its head on.

    Keeps only how they hang together, so a thread of any length can be read through it.
    """

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._open: dict[str, int] = {}
        self._turn = -1
        # A result belongs to a call of its own turn, if there is one, rather than to one that has waited since earlier.
        self._called: dict[str, int] = {}
        self._unanswered: dict[str, int] = {}

    def add(self, message: Message, seen: View) -> None:
        """Takes the next message."""
        if message.turn != self._turn:
            self._begin_turn(message.turn)
        calls, results = {call.id for call in seen.calls}, {result.id for result in seen.results}
        # A message that answers a call of its own (a tool that the model's host ran) can stand alone.
        for call_id in sorted(results - calls):
            add_span(self._spans, self._belongs_to(call_id, message.seq), message.seq)
        for call_id in sorted(calls - results):
            self._called[call_id] = self._unanswered[call_id] = message.seq

    def _begin_turn(self, turn: int) -> None:
        for call_id, at in self._unanswered.items():
            self._open.pop(call_id, None)
            self._open[call_id] = at
        while len(self._open) > MAX_OPEN_CALLS:
            del self._open[next(iter(self._open))]
        self._turn, self._called, self._unanswered = turn, {}, {}

    def _belongs_to(self, call_id: str, answered_at: int) -> int:
        if call_id in self._called:
            self._unanswered.pop(call_id, None)
            return self._called[call_id]
        # A result whose call is not known must at least not stand at the head.
        return self._open.pop(call_id, answered_at - 1)

    def is_settled(self, cut: int) -> bool:
        """Whether no call below ``cut`` waits for its result: no later message then changes what is safe there."""
        return all(at >= cut for waiting in (self._open, self._unanswered) for at in waiting.values())

    def safe_start(self, cut: int) -> int:
        """The lowest cut at or above this one that separates no result from its call, by what was added."""
        return safe_start(self._spans, cut)

    def safe_stop(self, cut: int) -> int:
        """The highest cut at or below this one that separates no result from its call, by what was added."""
        # A result at the very beginning is tied to what stood before it, which is no position.
        return max(safe_stop(self._spans, cut), 0)


def readable_view(message: Message, key: ThreadKey) -> View:
    """The view of a message, or an empty one where its record cannot be decoded."""
    try:
        return codec.view(message, key)
    except CorruptRecordError:
        return View()
