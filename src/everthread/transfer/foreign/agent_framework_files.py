"""Agent Framework 1.x's ``FileHistoryProvider``: a folder with a file for each session, of JSON Lines or MessagePack.

Source: ``FileHistoryProvider`` of agent-framework-core 1.23. A record of MessagePack has its length before it, in four
bytes; it becomes the JSON that the same message would be in a file of JSON Lines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from everthread import codec
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.model import Message, ThreadKey
from everthread.transfer.foreign._turns import Numbered, decoded_segment, session_thread
from everthread.transfer.model import Heading, Source, SourceThread, known_times
from everthread.transfer.records import MAX_LINE
from everthread.transfer.sources import MOST_A_PAGE, PAGE_BYTES

PACKED = ".msgpack"
_SUFFIXES = (".jsonl", PACKED)


class FileHistorySource(Source):
    """The sessions of a folder, or of one file, the oldest files first."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._files: list[Path] = []

    async def open(self) -> None:
        self._files = _session_files(self._place)

    async def threads(self) -> AsyncIterator[SourceThread]:
        for path in self._files:
            yield _SessionFile(path)


class _SessionFile(SourceThread):
    """A session's file. When it was last written is the session's last activity; when it was begun nobody noted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        written_ms = path.stat().st_mtime_ns // 1_000_000
        key = ThreadKey(session_thread(decoded_segment(path.stem, "~session-")))
        self.heading = Heading(key, times=known_times(written_ms, written_ms))

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered()
        page: list[Message] = []
        size = 0
        with self._path.open("rb") as file:
            for record in _packed(file) if self._path.suffix == PACKED else _lines(file):
                page.append(numbered.message(record))
                size += len(record)
                if size >= PAGE_BYTES or len(page) == MOST_A_PAGE:
                    yield page
                    page, size = [], 0
        if page:
            yield page


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise CorruptRecordError(f"{Path(file.name).name} has a line of more than {MAX_LINE:,} bytes.")
        if line.strip():
            yield line.strip()


def _packed(file: BinaryIO) -> Iterator[bytes]:
    while head := file.read(4):
        length = int.from_bytes(head, "big")
        if length > MAX_LINE:
            raise CorruptRecordError(f"{Path(file.name).name} has a record of more than {MAX_LINE:,} bytes.")
        record = file.read(length)
        # What was cut short is told as unreadable too: it begins with its length, so it is no JSON.
        yield _as_json(record) if len(head) == 4 and len(record) == length else head + record


def _as_json(record: bytes) -> bytes:
    """The record as JSON; as it is where it has no such form, so that it is told as unreadable."""
    try:
        return codec.encode(msgspec.msgpack.decode(record))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidMessageError):
        return record


def _session_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = [path for path in place.glob("*") if path.suffix in _SUFFIXES]
    if not found:
        raise ConfigurationError(f"There is no history (*.jsonl, *.msgpack) in {place}.")
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
