"""Messages from the records of other programs: their order gives positions, a message of a user begins a turn."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from everthread.errors import ConfigurationError, CorruptRecordError, InvalidIdentifierError
from everthread.messages import codec
from everthread.model import Message
from everthread.transfer.files import opened
from everthread.transfer.model import EARLIEST_MS, LATEST_MS, Skipped, Source, SourceThread, known_times

MOST_FILES = 1_000_000
"""The most files of one folder: their names are in memory."""

LONGEST_TURN = 500
"""The most messages of a turn: one append must hold it."""


class Numbered:
    """Turns records into messages, one after the other."""

    def __init__(self, format: str | None = None) -> None:
        self._format = format
        self._seq = 0
        self._turn = 0
        self._was_user = False

    def message(self, payload: bytes, created_ms: int | None = None) -> Message:
        """Return the message of the next record."""
        try:
            value = codec.decode(payload)
        except CorruptRecordError:
            value = None
        name = self._format or codec.recognize(value)
        is_user = codec.view_of(value, name).role == "user"
        if (is_user and not self._was_user) or self._seq - self._turn >= LONGEST_TURN:
            self._turn = self._seq
        self._was_user = is_user
        self._seq += 1
        if created_ms is not None and not EARLIEST_MS <= created_ms <= LATEST_MS:
            created_ms = None
        return Message(self._seq - 1, payload, name, created_ms, self._turn)


def session_thread(session_id: str) -> str:
    """Return the thread ID under which ``EverthreadHistoryProvider`` finds a session of Agent Framework 1.x.

    It reserves IDs that begin with ``~`` for messages of other sources.
    """
    return f"~{session_id}" if session_id.startswith("~") else session_id


def decoded_segment(segment: str, mark: str) -> str:
    """Return the identifier in a part of a key or file name of Agent Framework.

    Source: ``_storage_key_segment`` of agent-framework-core 1.23. Of the longest it stores only a digest; these stay
    unchanged.
    """
    from base64 import b32decode

    encoded = segment.removeprefix(mark)
    if encoded == segment or encoded.startswith("sha256-"):
        return segment
    try:
        return b32decode(encoded.upper() + "=" * (-len(encoded) % 8)).decode()
    except ValueError:
        return segment


def files_of(place: Path, suffixes: Collection[str], what: str) -> list[Path]:
    """Return the files of a folder with these suffixes, the least recently written first; or the file itself.

    Raises:
        ConfigurationError: There are no such files, too many, or it is not a regular file.
    """
    if not place.is_dir():
        opened(place).close()
        return [place]
    found: list[tuple[int, str, Path]] = []
    try:
        for path in place.iterdir():
            if path.suffix in suffixes:
                found.append((path.lstat().st_mtime_ns, path.name, path))
                if len(found) > MOST_FILES:
                    raise ConfigurationError(f"There are more than {MOST_FILES:,} files in {place}.")
    except OSError as error:
        raise ConfigurationError(f"Cannot read {place}: {error.strerror}.") from None
    if not found:
        names = ", ".join(f"*{suffix}" for suffix in sorted(suffixes))
        raise ConfigurationError(f"There is no {what} ({names}) in {place}.")
    return [path for _, _, path in sorted(found)]


class FilesSource(Source):
    """The threads of a folder with a file for each, or of one file, the oldest files first.

    Args:
        place: The folder or file.
        suffixes: The ends of the files' names.
        what: The content of a file, for an error.
        thread: Opens a file.
    """

    def __init__(
        self, place: Path, suffixes: Collection[str], what: str, thread: Callable[[Path], SourceThread]
    ) -> None:
        self._place, self._suffixes, self._what = place, suffixes, what
        self._thread = thread
        self._files: list[Path] = []

    async def open(self) -> None:
        self._files = files_of(self._place, self._suffixes, self._what)

    async def threads(self) -> AsyncIterator[SourceThread | Skipped]:
        for path in self._files:
            try:
                yield self._thread(path)
            except (InvalidIdentifierError, ConfigurationError, CorruptRecordError) as error:
                yield Skipped.at(path.name, error)


def modified(path: Path) -> tuple[int, int] | None:
    """Return the times of a thread in a file: the last change of the file.

    Raises:
        ConfigurationError: It is not a regular file, or cannot be read.
    """
    with opened(path) as file:
        written_ms = os.fstat(file.fileno()).st_mtime_ns // 1_000_000
    return known_times(written_ms, written_ms)
