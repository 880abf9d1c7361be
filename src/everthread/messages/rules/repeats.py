"""Find messages that a list holds twice. No I/O.

People and models repeat themselves, so equal text is no proof. A repeat is proved by an identifier that the service
made: the message's own, or that of a tool call in a transcript that directly follows an equal one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from everthread.errors import InvalidMessageError
from everthread.messages.codec import encode_plain, view_of
from everthread.messages.rules.rows import Row

UNIQUE_ID = 12
"""The least characters of an ID that is not made twice. Some models count: ``call_0``."""


class Repeats:
    """The repeated messages of a list.

    Attributes:
        same: The index of each message that is equal to an earlier one with the same ID.
        other: The index of each message with the ID of an earlier one and other content.
        blocks: The index and length of each transcript that directly follows an equal one.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.same: list[int] = []
        self.other: list[int] = []
        self.blocks: list[tuple[int, int]] = []
        self._find_ids(rows)
        self._find_blocks(rows)

    @property
    def removable(self) -> set[int]:
        """The indexes of all messages that add nothing."""
        return {*self.same, *(at for start, length in self.blocks for at in range(start, start + length))}

    def _find_ids(self, rows: Sequence[Row]) -> None:
        first: dict[tuple[str, str], bytes] = {}
        for at, row in enumerate(rows):
            if row.value is None or not row.shape.id:
                continue
            mark = _mark(row, whole=True)
            # The messages of one answer may share an ID, so others are a fault only where the ID is that of an item.
            known = first.setdefault((row.format, row.shape.id), mark)
            if known is not mark and known == mark:
                self.same.append(at)
            elif known is not mark and row.format == "openai-responses":
                self.other.append(at)

    def _find_blocks(self, rows: Sequence[Row]) -> None:
        made: dict[str, int] = {}
        marks: list[bytes] = []
        end = 0
        for at, row in enumerate(rows):
            for part in row.shape.parts:
                if not part.is_call or len(part.call_id) < UNIQUE_ID:
                    continue
                before = made.get(part.call_id)
                made[part.call_id] = at
                if before is None or before == at or at < end:
                    continue
                marks = marks or [_mark(row) for row in rows]
                found = _block(marks, before, at - before, floor=max(end - at + before, 0))
                if found is not None:
                    self.blocks.append(found)
                    end = found[0] + found[1]


def _block(marks: Sequence[bytes], at: int, length: int, floor: int) -> tuple[int, int] | None:
    """Return the start and length of the transcript that repeats the one around a message, if it is one.

    Message k of the first is message k + length of the second. The first begins at ``floor`` or later.
    """
    start, stop = at, at
    while stop < at + length and stop + length < len(marks) and marks[stop] == marks[stop + length]:
        stop += 1
    while start > floor and start > at - length and marks[start - 1] == marks[start - 1 + length]:
        start -= 1
    return (start + length, length) if stop - start >= length else None


def _mark(row: Row, *, whole: bool = False) -> bytes:
    if row.value is None:
        return b""
    if not whole:
        seen = view_of(row.value, row.format)
        return blake2b(repr(seen).encode(errors="surrogatepass"), digest_size=16).digest()
    try:
        return blake2b(encode_plain(row.value), digest_size=16).digest()
    except InvalidMessageError:
        return b""
