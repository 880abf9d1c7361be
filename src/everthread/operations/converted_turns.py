"""The turns of a thread, copied or converted to another format."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence

import msgspec

from everthread._validation import MAX_TURN_MESSAGES
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.messages.codec import decode_as_text, encode, new_message
from everthread.messages.converting.convert import Source, convert
from everthread.messages.converting.neutral import Loss
from everthread.messages.converting.support import SUPPORT
from everthread.model import Message, NewMessage, ThreadKey
from everthread.readable import OnUnreadable, Unreadable

_MOST_MESSAGES = 2_000
_MOST_BYTES = 32 * 1024 * 1024
"""Turns with open tool calls are converted together up to these limits."""


class Lost(msgspec.Struct, frozen=True):
    """The parts of a thread that a format does not express, of one kind. Has no content.

    Attributes:
        aspect: A key of `everthread.messages.converting.support.ASPECTS`, which describes it.
        count: The number of such parts.
        first_seq: The position of the first one in the source.
    """

    aspect: str
    count: int
    first_seq: int


class ConvertedTurns:
    """Iterate over turns as messages to append, without the records that cannot be copied.

    Args:
        source: The thread, for reports.
        format: The format to convert to; ``None`` copies each payload unchanged.
        on_unreadable: Receives each record that cannot be copied.

    Attributes:
        lost: The losses so far.
        on_unreadable: Receives each record that cannot be copied.

    Raises:
        ConfigurationError: Nothing converts to this format.
    """

    def __init__(self, source: ThreadKey, format: str | None, on_unreadable: OnUnreadable) -> None:
        if format is not None and format not in SUPPORT:
            raise ConfigurationError(
                f"Messages cannot be converted to the format {format!r}: use {', '.join(SUPPORT)}."
            )
        self._source = source
        self._format = format
        self.on_unreadable = on_unreadable
        self.lost: list[Lost] = []

    async def of(self, turns: AsyncIterable[Sequence[Message]]) -> AsyncIterator[list[NewMessage]]:
        """Yield turns, each of at most as many messages as an append takes."""
        held: list[list[_Copy]] = []
        waiting: set[str] = set()
        async for turn in turns:
            copies = [copy for message in turn if (copy := self._copy(message)) is not None]
            if self._format is None:
                if copies:
                    yield [copy.new for copy in copies]
                continue
            held.append(copies)
            for copy in copies:
                waiting |= set(copy.new.calls)
                waiting -= set(copy.new.results)
            # A conversion sees a call with its result, which may be in a later turn.
            if not waiting or _is_too_large(held):
                for converted in self._converted(held, self._format):
                    yield converted
                held, waiting = [], set()
        if self._format is not None:
            for converted in self._converted(held, self._format):
                yield converted

    def _copy(self, message: Message) -> _Copy | None:
        try:
            try:
                new = new_message(message.payload, format=message.format, created_at=message.created_at)
            except InvalidMessageError:
                # Another program's NaN or lone surrogate.
                value = encode(decode_as_text(message))
                new = new_message(value, format=message.format, created_at=message.created_at)
        except (CorruptRecordError, InvalidMessageError) as error:
            self.on_unreadable(Unreadable(self._source, message.seq, str(error)))
            return None
        return _Copy(message.seq, new)

    def _converted(self, turns: Sequence[Sequence[_Copy]], format: str) -> list[list[NewMessage]]:
        copies = [copy for turn in turns for copy in turn]
        turn_of = [number for number, turn in enumerate(turns) for _ in turn]
        sources = [Source(decode_as_text(copy.new.payload), copy.new.format) for copy in copies]
        converted = convert(sources, format, repaired=True)
        parts: list[list[NewMessage]] = [[] for _ in turns]
        number = 0
        for each in converted.messages:
            origin = copies[each.at].new
            number = max(number, turn_of[each.at])
            is_whole = each.is_same and origin.format == format
            new = origin if is_whole else new_message(each.value, format=format, created_at=origin.created_at)
            parts[number].append(new)
        self._note(converted.losses, copies)
        return [
            part[start : start + MAX_TURN_MESSAGES]
            for part in parts
            for start in range(0, len(part), MAX_TURN_MESSAGES)
        ]

    def _note(self, losses: Sequence[Loss], copies: Sequence[_Copy]) -> None:
        found = {lost.aspect: lost for lost in self.lost}
        for loss in losses:
            before = found.get(loss.aspect)
            first = before.first_seq if before is not None else copies[loss.at].seq
            found[loss.aspect] = Lost(loss.aspect, (before.count if before is not None else 0) + 1, first)
        self.lost = list(found.values())


class _Copy(msgspec.Struct, frozen=True):
    """A message to append, and its position in the source."""

    seq: int
    new: NewMessage


def _is_too_large(turns: Sequence[Sequence[_Copy]]) -> bool:
    count = sum(map(len, turns))
    return count >= _MOST_MESSAGES or sum(len(copy.new.payload) for turn in turns for copy in turn) >= _MOST_BYTES
