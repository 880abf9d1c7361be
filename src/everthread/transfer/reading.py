"""Exported files, as a source. A file is checked to its end before anything of it is used."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

from everthread.errors import ConfigurationError, CorruptRecordError, SchemaError
from everthread.model import Message, ThreadKey
from everthread.transfer.model import Heading, Source, SourceThread
from everthread.transfer.records import (
    MAX_LINE,
    MESSAGE_START,
    VERSION,
    DocumentLine,
    EndLine,
    ExportLine,
    MessageLine,
    ThreadLine,
    decoded,
    encoded,
    message_of,
    value_of,
)
from everthread.transfer.sources import MOST_A_PAGE, PAGE_BYTES

EXPORT_START = encoded(ExportLine(VERSION))


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
    if found.version != VERSION:
        raise SchemaError(f"{where} is of version {found.version}; this release reads version {VERSION}.")


def checked_threads(file: BinaryIO, where: str) -> Iterator[FoundThread]:
    """The threads from here on, each once it was read to its end and agrees with its digest.

    Raises:
        CorruptRecordError: A thread does not; says where it begins.
    """
    while True:
        start = file.tell()
        first = _line(file, where)
        if not first:
            return
        digest, messages, documents = blake2b(first, digest_size=16), 0, 0
        while line := _line(file, where):
            if line.startswith(MESSAGE_START):
                messages += 1
            elif line.startswith(b'{"type":"document"'):
                documents += 1
            else:
                break
            digest.update(line)
        at = f"{where}, from byte {start:,} on,"
        end = decoded(line, at, EndLine)
        if end != EndLine(messages, documents, digest.hexdigest()) or not line.endswith(b"\n"):
            raise CorruptRecordError(f"{at} does not agree with its digest: it was changed or is damaged.")
        yield FoundThread(start, file.tell(), first, messages)


class FileThread(SourceThread):
    """A thread in an exported file."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        with path.open("rb") as file:
            file.seek(start)
            line = decoded(_line(file, path.name), f"{path.name}, at byte {start:,},", ThreadLine)
            self._messages_at = self._documents_at = file.tell()
        key = ThreadKey(line.thread_id, line.tenant)
        self.heading = Heading(key, line.next_seq, line.title, line.metadata, line.expires_ms)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        with self._path.open("rb") as file:
            file.seek(self._messages_at)
            page: list[Message] = []
            size = 0
            while (line := _line(file, self._path.name)).startswith(MESSAGE_START):
                page.append(message_of(decoded(line, self._path.name, MessageLine)))
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
                if line.startswith(b'{"type":"end"'):
                    return
                if not line.startswith(MESSAGE_START):
                    found = decoded(line, self._path.name, DocumentLine)
                    yield found.name, value_of(found)


class FileSource(Source):
    """The threads of an exported file, in its order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("Q")

    async def open(self) -> None:
        self.total = 0
        with self._path.open("rb") as file:
            check_version(file, self._path.name)
            for found in checked_threads(file, self._path.name):
                self._starts.append(found.start)
                self.total += found.messages

    async def threads(self) -> AsyncIterator[FileThread]:
        for start in self._starts:
            yield FileThread(self._path, start)


class FolderSource(Source):
    """The threads of an exported folder, the least recently active first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: list[tuple[int, str, int]] = []

    async def open(self) -> None:
        self.total = 0
        for path in self._folder.glob("*.jsonl"):
            with path.open("rb") as file:
                check_version(file, path.name)
                for found in checked_threads(file, path.name):
                    line = decoded(found.first_line, path.name, ThreadLine)
                    self._found.append((line.updated_ms, path.name, found.start))
                    self.total += found.messages
        if not self._found:
            raise ConfigurationError(f"There are no exported threads in {self._folder}.")
        self._found.sort()

    async def threads(self) -> AsyncIterator[FileThread]:
        for _, name, start in self._found:
            yield FileThread(self._folder / name, start)


def _line(file: BinaryIO, where: str) -> bytes:
    line = file.readline(MAX_LINE)
    if len(line) == MAX_LINE:
        raise CorruptRecordError(f"{where} has a line of more than {MAX_LINE:,} bytes.")
    return line
