"""Exported files, as a source. A file is checked to its end before anything of it is used."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

from everthread.errors import ConfigurationError, CorruptRecordError, SchemaError
from everthread.model import Message, ThreadKey
from everthread.transfer.model import Heading, Skipped, Source, SourceThread, known_times
from everthread.transfer.records import (
    DOCUMENT_START,
    MAX_LINE,
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
from everthread.transfer.sources import MOST_A_PAGE, PAGE_BYTES

EXPORT_START = encoded(ExportLine(VERSION))
_BUFFER = 256 * 1024


class FoundThread(NamedTuple):
    """A thread in a file that is complete and unharmed."""

    start: int
    stop: int
    first_line: bytes
    messages: int


def is_export(path: Path) -> bool:
    """Whether a file begins as an export does, of whichever version."""
    with path.open("rb") as file:
        return file.read(32).startswith(EXPORT_START[:16])


def check_version(file: BinaryIO, where: str) -> None:
    """Reads the first line of a file.

    Raises:
        SchemaError: It is of a newer version.
        CorruptRecordError: It is no export's.
    """
    found = decoded(_line(file, where), f"The first line of {where}", ExportLine)
    if not 1 <= found.version <= VERSION:
        raise SchemaError(f"{where} is of version {found.version}; this release reads versions up to {VERSION}.")


def checked_threads(file: BinaryIO, where: str, skipped: list[Skipped] | None = None) -> Iterator[FoundThread]:
    """The threads from here on, each once it was read to its end and agrees with its digest.

    Args:
        file: At the beginning of a thread.
        where: What the file is called in errors.
        skipped: Gets what does not agree; the rest is gone on with.

    Raises:
        CorruptRecordError: A thread does not; says where it begins.
    """
    while True:
        start = file.tell()
        try:
            found = _checked_thread(file, where)
        except CorruptRecordError as error:
            if skipped is None:
                raise
            skipped.append(Skipped(f"{where}, from byte {start:,} on", str(error)))
            _to_next_thread(file, start)
            continue
        if found is None:
            return
        yield found


def _checked_thread(file: BinaryIO, where: str) -> FoundThread | None:
    """The thread that begins here; nothing at the file's end."""
    start = file.tell()
    at = f"{where}, from byte {start:,} on,"
    first = _line(file, where)
    if not first:
        return None
    decoded(first, at, ThreadLine)
    digest, messages, documents = blake2b(first, digest_size=16), 0, 0
    while line := _line(file, where):
        if line.startswith(MESSAGE_START):
            messages += 1
        elif line.startswith(DOCUMENT_START):
            documents += 1
        else:
            break
        digest.update(line)
    end = decoded(line, at, EndLine)
    if end != EndLine(messages, documents, digest.hexdigest()) or not line.endswith(b"\n"):
        raise CorruptRecordError(f"{at} does not agree with its digest: it was changed or is damaged.")
    return FoundThread(start, file.tell(), first, messages)


def _to_next_thread(file: BinaryIO, start: int) -> None:
    """Goes to where a thread begins behind ``start``, or to the end."""
    file.seek(start)
    file.readline(MAX_LINE)
    while True:
        here = file.tell()
        line = file.readline(MAX_LINE)
        if not line or line.startswith(THREAD_START):
            file.seek(here)
            return


class FileThread(SourceThread):
    """A thread in an exported file."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        with path.open("rb") as file:
            file.seek(start)
            line = decoded(_line(file, path.name), f"{path.name}, at byte {start:,},", ThreadLine)
            self._messages_at = self._documents_at = file.tell()
        key = ThreadKey(line.thread_id, line.tenant)
        times = known_times(line.created_ms, line.updated_ms)
        retention = retention_of(line.retention)
        self.heading = Heading(key, line.next_seq, line.title, line.metadata, line.expires_ms, times, retention)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        name = self._path.name
        with self._path.open("rb", buffering=_BUFFER) as file:
            file.seek(self._messages_at)
            page: list[Message] = []
            size = 0
            while (line := _line(file, name)).startswith(MESSAGE_START):
                page.append(message_of(decoded(line, name, MessageLine)))
                size += len(line)
                if size >= PAGE_BYTES or len(page) == MOST_A_PAGE:
                    yield page
                    page, size = [], 0
            self._documents_at = file.tell() - len(line)
        if page:
            yield page

    async def documents(self) -> AsyncIterator[tuple[str, bytes]]:
        with self._path.open("rb") as file:
            file.seek(self._documents_at)
            for line in file:
                if not line.startswith((MESSAGE_START, DOCUMENT_START)):
                    return
                if line.startswith(DOCUMENT_START):
                    found = decoded(line, self._path.name, DocumentLine)
                    yield found.name, value_of(found)


class FileSource(Source):
    """The threads of an exported file, in its order.

    Args:
        path: The file.
        skip_damaged: Leave out the threads that do not agree with their digests.
    """

    def __init__(self, path: Path, *, skip_damaged: bool = False) -> None:
        self._path = path
        self._damaged: list[Skipped] | None = [] if skip_damaged else None
        self._starts = array("Q")

    async def open(self) -> None:
        self.total = 0
        with self._path.open("rb", buffering=_BUFFER) as file:
            check_version(file, self._path.name)
            for found in checked_threads(file, self._path.name, self._damaged):
                self._starts.append(found.start)
                self.total += found.messages
        self.skipped = self._damaged or ()

    async def threads(self) -> AsyncIterator[FileThread]:
        for start in self._starts:
            yield FileThread(self._path, start)


class FolderSource(Source):
    """The threads of an exported folder, the least recently active first.

    Args:
        folder: The folder.
        skip_damaged: Leave out the files that are no exports, and the threads that do not agree with their digests.
    """

    def __init__(self, folder: Path, *, skip_damaged: bool = False) -> None:
        self._folder = folder
        self._damaged: list[Skipped] | None = [] if skip_damaged else None
        self._found: list[tuple[int, str, int]] = []

    async def open(self) -> None:
        self.total = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            try:
                self._look_into(path)
            except CorruptRecordError as error:
                if self._damaged is None:
                    raise
                self._damaged.append(Skipped(path.name, str(error)))
        self.skipped = self._damaged or ()
        if not self._found and not self.skipped:
            raise ConfigurationError(f"There are no exported threads in {self._folder}.")
        self._found.sort()

    def _look_into(self, path: Path) -> None:
        with path.open("rb", buffering=_BUFFER) as file:
            check_version(file, path.name)
            for found in checked_threads(file, path.name, self._damaged):
                line = decoded(found.first_line, path.name, ThreadLine)
                self._found.append((line.updated_ms, path.name, found.start))
                self.total = (self.total or 0) + found.messages

    async def threads(self) -> AsyncIterator[FileThread]:
        for _, name, start in self._found:
            yield FileThread(self._folder / name, start)


def _line(file: BinaryIO, where: str) -> bytes:
    line = file.readline(MAX_LINE)
    if len(line) == MAX_LINE:
        raise CorruptRecordError(f"{where} has a line of more than {MAX_LINE:,} bytes.")
    return line
