"""The texts that are embedded: turns, and overlapping parts of long ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import msgspec

from everthread.errors import CorruptRecordError
from everthread.messages.codec import View, view
from everthread.model import Message

VERSION = 1
"""Changes when the same turn would give other passages, so that an index is made anew."""

PASSAGE_CHARACTERS = 900
"""About 200 tokens of English: models are trained on texts of this length."""

_OVERLAP = 150
_MOST_PASSAGES = 64
_MOST_RESULT_CHARACTERS = 500
_MOST_ARGUMENT_CHARACTERS = 200


class Passage(msgspec.Struct, frozen=True):
    """A part of a turn.

    Attributes:
        part: Its number in the turn, from 0.
        seq: The position of the message in which it begins.
        text: At most `PASSAGE_CHARACTERS`.
    """

    part: int
    seq: int
    text: str

    @property
    def digest(self) -> bytes:
        """Eight bytes by which a changed text is recognized."""
        return blake2b(self.text.encode(), digest_size=8).digest()

    def __repr__(self) -> str:
        return f"Passage(part={self.part}, seq={self.seq}, {len(self.text)} characters)"


def passages_of(turn: Sequence[Message]) -> list[Passage]:
    """Return the passages of a turn: at most 64, none if no message has a text.

    Messages that cannot be decoded are left out. Arguments and results of tool calls are shortened.
    """
    starts: list[tuple[int, int]] = []
    text = ""
    for message in turn:
        for piece in _pieces(message):
            starts.append((len(text), message.seq))
            text += piece + "\n"
        if len(text) > PASSAGE_CHARACTERS * _MOST_PASSAGES:
            break
    passages: list[Passage] = []
    for start, stop in _windows(text.rstrip()):
        seq = max((start_of, seq) for start_of, seq in starts if start_of <= start)[1]
        passages.append(Passage(len(passages), seq, text[start:stop].strip()))
        if len(passages) == _MOST_PASSAGES:
            break
    return passages


def _pieces(message: Message) -> Iterator[str]:
    try:
        seen: View = view(message)
    except CorruptRecordError:
        return
    if seen.role == "system":
        return  # instructions: the same in every thread
    pieces = [seen.text[: PASSAGE_CHARACTERS * _MOST_PASSAGES]]
    pieces += [f"{call.name} {call.arguments[:_MOST_ARGUMENT_CHARACTERS]}" for call in seen.calls]
    pieces += [result.text[:_MOST_RESULT_CHARACTERS] for result in seen.results]
    for piece in pieces:
        stripped = piece.strip()
        if stripped:
            yield stripped


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Yield the starts and ends of overlapping parts, cut between words where there are spaces."""
    start = 0
    while start < len(text):
        stop = start + PASSAGE_CHARACTERS
        if stop >= len(text):
            yield start, len(text)
            return
        space = max(text.rfind(" ", start + _OVERLAP * 2, stop), text.rfind("\n", start + _OVERLAP * 2, stop))
        stop = stop if space < 0 else space
        yield start, stop
        space = text.find(" ", stop - _OVERLAP, stop)
        start = stop - _OVERLAP if space < 0 else space + 1
