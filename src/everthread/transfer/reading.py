"""Exported files, as a source. A file is checked to its end before anything is imported."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

from everthread.errors import ConfigurationError, CorruptRecordError, InvalidIdentifierError, SchemaError
from everthread.model import MAX_SEQ, Message, ThreadKey
from everthread.transfer.files import BOM, Lines, opened
from everthread.transfer.model import Heading, Skipped, Source, SourceThread, bounded_expiry, known_times
from everthread.transfer.records import (
    DOCUMENT_START,
    MESSAGE_START,
    THREAD_START,
    VERSION,
    DocumentLine,
    EndLine,
    ExportLine,
    MessageLine,
    ThreadLine,
    decoded,
    encoded,
    message_of,
    retention_of,
    value_of,
)
from everthread.transfer.sources import in_pages

EXPORT_START = encoded(ExportLine(VERSION))
MOST_SKIPPED = 1000
"""The most damaged threads of one file. With more it is refused: it is something else."""


class FoundThread(NamedTuple):
    """A complete, undamaged thread in a file.

    Attributes:
        line: The number of its first line.
    """

    start: int
    stop: int
    line: int
    first_line: bytes
    messages: int
    active_ms: int


def is_export(path: Path) -> bool:
    """Return whether a file begins like an export of any version."""
    with opened(path) as file:
        return file.read(32).removeprefix(BOM).startswith(EXPORT_START[:16])


def check_version(lines: Lines) -> None:
    """Read the first line of a file.

    Raises:
        SchemaError: It is of a newer version.
        CorruptRecordError: The file is not an export.
    """
    first = lines.next()
    found = decoded(first, lines.place, ExportLine)
    if not 1 <= found.version <= VERSION:
        raise SchemaError(f"{lines.name} is of version {found.version}; this release reads versions up to {VERSION}.")


def checked_threads(lines: Lines, skipped: list[Skipped] | None = None) -> Iterator[FoundThread]:
    """Yield the threads from here on, each after a check against its digest.

    Args:
        lines: A file at the beginning of a thread.
        skipped: Receives damaged threads. ``None``: raise for the first.

    Raises:
        CorruptRecordError: A thread is damaged, or too many are; gives the line at which it begins.
    """
    while True:
        start, number = lines.tell(), lines.number
        try:
            found = _checked_thread(lines)
        except CorruptRecordError as error:
            if skipped is None or len(skipped) >= MOST_SKIPPED:
                raise
            skipped.append(Skipped.at(f"{lines.name}, from line {number + 1} on", error))
            lines.seek(start, number)
            _to_next_thread(lines)
            continue
        if found is None:
            return
        yield found


def _checked_thread(lines: Lines) -> FoundThread | None:
    """Return the thread that begins here, or ``None`` at the end of the file."""
    start, number = lines.tell(), lines.number + 1
    first = lines.next()
    if not first:
        return None
    head = decoded(first, lines.place, ThreadLine)
    digest, messages, documents = blake2b(first, digest_size=16), 0, 0
    while line := lines.next():
        if line.startswith(MESSAGE_START):
            messages += 1
        elif line.startswith(DOCUMENT_START):
            documents += 1
        else:
            break
        digest.update(line)
    end = decoded(line, lines.place, EndLine)
    if end != EndLine(messages, documents, digest.hexdigest()) or not line.endswith(b"\n"):
        raise CorruptRecordError(
            f"{lines.name}: the thread in the lines {number} to {lines.number} does not agree with its digest: it was "
            "changed or is damaged."
        )
    return FoundThread(start, lines.tell(), number, first, messages, head.updated_ms)


def _to_next_thread(lines: Lines) -> None:
    """Go to the next line that begins a thread, or to the end."""
    _next_or_none(lines)
    while True:
        here, number = lines.tell(), lines.number
        line = _next_or_none(lines)
        if line == b"" or (line is not None and line.startswith(THREAD_START)):
            lines.seek(here, number)
            return


def _next_or_none(lines: Lines) -> bytes | None:
    try:
        return lines.next()
    except CorruptRecordError:
        lines.skip_rest()
        return None


class FileThread(SourceThread):
    """A thread in an exported file.

    Raises:
        CorruptRecordError: Its first line is impossible.
    """

    def __init__(self, path: Path, start: int, number: int) -> None:
        self._path = path
        with opened(path) as file:
            lines = self._lines(file, start, number - 1)
            line = decoded(lines.next(), lines.place, ThreadLine)
            self._messages_at = self._documents_at = lines.tell(), lines.number
        self.place = lines.place
        if not 0 <= line.next_seq <= MAX_SEQ:
            raise CorruptRecordError(f"{lines.place}: next_seq is {line.next_seq}, which is impossible.")
        self.heading = Heading(
            _key_of(line, lines.place),
            line.next_seq,
            line.title,
            line.metadata,
            bounded_expiry(line.expires_ms),
            known_times(line.created_ms, line.updated_ms),
            retention_of(line.retention, lines.place),
        )

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        with opened(self._path) as file:
            lines = self._lines(file, *self._messages_at)
            for page in in_pages(self._messages(lines)):
                yield page

    def _messages(self, lines: Lines) -> Iterator[Message]:
        least, here = 0, self._messages_at
        while (line := lines.next()).startswith(MESSAGE_START):
            message = self._message(line, lines.place, least)
            least, here = message.seq + 1, (lines.tell(), lines.number)
            yield message
        self._documents_at = here

    def _message(self, line: bytes, place: str, least: int) -> Message:
        message = message_of(decoded(line, place, MessageLine), place)
        if not least <= message.seq < (self.heading.next_seq or 0):
            raise CorruptRecordError(f"{place}: the position {message.seq} is out of order or beyond the end.")
        return message

    async def documents(self) -> AsyncIterator[tuple[str, bytes]]:
        with opened(self._path) as file:
            lines = self._lines(file, *self._documents_at)
            while (line := lines.next()).startswith((MESSAGE_START, DOCUMENT_START)):
                if line.startswith(DOCUMENT_START):
                    found = decoded(line, lines.place, DocumentLine)
                    yield found.name, value_of(found)

    def _lines(self, file: BinaryIO, offset: int, number: int) -> Lines:
        lines = Lines(file, self._path.name)
        lines.seek(offset, number)
        return lines


def _key_of(line: ThreadLine, place: str) -> ThreadKey:
    try:
        return ThreadKey(line.thread_id, line.tenant)
    except InvalidIdentifierError as error:
        raise CorruptRecordError(f"{place}: {error}") from None


def _thread_or_skipped(path: Path, start: int, number: int) -> FileThread | Skipped:
    try:
        return FileThread(path, start, number)
    except CorruptRecordError as error:
        return Skipped.at(f"{path.name}, line {number}", error)


class ExportSource(Source):
    """The threads of an exported file, in its order, or of a folder of them, the least recently active first.

    Args:
        place: The file or folder.
        skip_damaged: Skip threads that do not agree with their digests, and files of a folder that are not exports.
    """

    def __init__(self, place: Path, *, skip_damaged: bool = False) -> None:
        self._place = place
        self._damaged: list[Skipped] | None = [] if skip_damaged else None
        self._paths: list[Path] = []
        # For each thread: its file, offset, line and last activity. There may be many.
        self._files, self._starts, self._numbers, self._active_ms = array("L"), array("Q"), array("Q"), array("q")

    async def open(self) -> None:
        self.total = 0
        is_folder = self._place.is_dir()
        for path in sorted(self._place.glob("*.jsonl")) if is_folder else [self._place]:
            try:
                self._look_into(path)
            except (CorruptRecordError, ConfigurationError) as error:
                if self._damaged is None or not is_folder:
                    raise
                self._damaged.append(Skipped.at(path.name, error))
        self.skipped = self._damaged or ()
        if is_folder and not self._starts and not self.skipped:
            raise ConfigurationError(f"There are no exported threads in {self._place}.")

    def _look_into(self, path: Path) -> None:
        self._paths.append(path)
        with opened(path) as file:
            lines = Lines(file, path.name)
            check_version(lines)
            for found in checked_threads(lines, self._damaged):
                self._files.append(len(self._paths) - 1)
                self._starts.append(found.start)
                self._numbers.append(found.line)
                self._active_ms.append(found.active_ms)
                self.total = (self.total or 0) + found.messages

    async def threads(self) -> AsyncIterator[FileThread | Skipped]:
        order: Iterable[int] = range(len(self._starts))
        if len(self._paths) > 1:
            order = sorted(order, key=lambda at: (self._active_ms[at], at))
        for at in order:
            yield _thread_or_skipped(self._paths[self._files[at]], self._starts[at], self._numbers[at])
