"""Find the safe cuts of a stored thread by reading it.

Engines know the safe cuts of their own threads, and ``truncate`` applies them. This module is for callers that need
them in advance, such as a dry run, and for callers that cut a copy and not the stored thread.
"""

from __future__ import annotations

from everthread.errors import CorruptRecordError
from everthread.messages import codec
from everthread.messages.codec import View
from everthread.messages.tool_links import Span, add_span, forget_oldest_calls, safe_start, safe_stop
from everthread.model import Message, ThreadKey


class SpanReader:
    """Find the safe cuts of a thread from the tool calls and results of its messages.

    Add the messages in order, beginning at the head. Stores only links between calls and results, so a thread may have
    any length.
    """

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._open: dict[str, int] = {}
        self._turn = -1
        # A result is linked to a call of the same turn if there is one, else to an open call of an earlier turn.
        self._called: dict[str, int] = {}
        self._unanswered: dict[str, int] = {}

    def add(self, message: Message, seen: View) -> None:
        """Add the next message."""
        if message.turn != self._turn:
            self._begin_turn(message.turn)
        calls, results = {call.id for call in seen.calls}, {result.id for result in seen.results}
        # A message with both a call and its result (the model's host ran the tool) needs no other message.
        for call_id in sorted(results - calls):
            add_span(self._spans, self._belongs_to(call_id, message.seq), message.seq)
        for call_id in sorted(calls - results):
            self._called[call_id] = self._unanswered[call_id] = message.seq

    def _begin_turn(self, turn: int) -> None:
        for call_id, at in self._unanswered.items():
            self._open.pop(call_id, None)
            self._open[call_id] = at
        forget_oldest_calls(self._open)
        self._turn, self._called, self._unanswered = turn, {}, {}

    def _belongs_to(self, call_id: str, answered_at: int) -> int:
        if call_id in self._called:
            self._unanswered.pop(call_id, None)
            return self._called[call_id]
        # Its call is not known: link it to the message before it, so that it cannot become the first message.
        return self._open.pop(call_id, answered_at - 1)

    def is_settled(self, cut: int) -> bool:
        """Return whether no call below ``cut`` is open. Later messages then do not change the safe cuts there."""
        return all(at >= cut for waiting in (self._open, self._unanswered) for at in waiting.values())

    def safe_start(self, cut: int) -> int:
        """Return the lowest cut at or above this one that separates no result from its call, among added messages."""
        return safe_start(self._spans, cut)

    def safe_stop(self, cut: int) -> int:
        """Return the highest cut at or below this one that separates no result from its call, among added messages."""
        # A result at position 0 is linked to the position before it, which does not exist.
        return max(safe_stop(self._spans, cut), 0)


def readable_view(message: Message, key: ThreadKey) -> View:
    """Return the view of a message, or an empty one if its record cannot be decoded."""
    try:
        return codec.view(message, key)
    except CorruptRecordError:
        return View()
