"""Agent Framework 1.x's ``FileHistoryProvider``: a folder with a file for each session, of JSON Lines or MessagePack.

Source: ``FileHistoryProvider`` of agent-framework-core 1.23. A record of MessagePack begins with its
length in four bytes; it becomes the JSON that the same message is in a file of JSON Lines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from everthread.errors import CorruptRecordError, InvalidMessageError
from everthread.messages import codec
from everthread.model import Message, ThreadKey
from everthread.transfer.files import MAX_LINE, Lines, opened
from everthread.transfer.foreign._turns import Numbered, decoded_segment, modified, session_thread
from everthread.transfer.model import Heading, SourceThread
from everthread.transfer.sources import in_pages

PACKED = ".msgpack"
SUFFIXES = frozenset({".jsonl", PACKED})


class SessionFile(SourceThread):
    """A session's file. Its last change gives the session's times."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = path.name
        key = ThreadKey(session_thread(decoded_segment(path.stem, "~session-")))
        self.heading = Heading(key, times=modified(path))

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered()
        with opened(self._path) as file:
            records = self._packed(file) if self._path.suffix == PACKED else self._lines(file)
            for page in in_pages(map(numbered.message, records)):
                yield page

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        lines = Lines(file, self._path.name)
        while line := lines.next():
            if line.strip():
                yield line.strip()

    def _packed(self, file: BinaryIO) -> Iterator[bytes]:
        while head := file.read(4):
            length = int.from_bytes(head, "big")
            if length > MAX_LINE:
                raise CorruptRecordError(f"{self.place} has a record of more than {MAX_LINE:,} bytes.")
            record = file.read(length)
            # A record that was cut short begins with its length, so it is no JSON and reported as unreadable.
            yield _as_json(record) if len(head) == 4 and len(record) == length else head + record


def _as_json(record: bytes) -> bytes:
    """Return the record as JSON, or unchanged if it has no such form: it is reported as unreadable then."""
    try:
        return codec.encode(msgspec.msgpack.decode(record))
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError, TypeError, InvalidMessageError):
        return record
