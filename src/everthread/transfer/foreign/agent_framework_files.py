"""Agent Framework 1.x's ``FileHistoryProvider``: a folder with a file of JSON Lines for each session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import Message, ThreadKey
from everthread.transfer.foreign._turns import Numbered, decoded_segment, session_thread
from everthread.transfer.model import Heading, Source, SourceThread
from everthread.transfer.records import MAX_LINE
from everthread.transfer.sources import MOST_A_PAGE, PAGE_BYTES


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
    def __init__(self, path: Path) -> None:
        self._path = path
        self.heading = Heading(ThreadKey(session_thread(decoded_segment(path.stem, "~session-"))))

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered()
        page: list[Message] = []
        size = 0
        with self._path.open("rb") as file:
            while line := file.readline(MAX_LINE):
                if len(line) == MAX_LINE:
                    raise CorruptRecordError(f"{self._path.name} has a line of more than {MAX_LINE:,} bytes.")
                if line.strip():
                    page.append(numbered.message(line.strip()))
                    size += len(line)
                if size >= PAGE_BYTES or len(page) == MOST_A_PAGE:
                    yield page
                    page, size = [], 0
        if page:
            yield page


def _session_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = sorted(place.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not found:
        raise ConfigurationError(f"There is no history (*.jsonl) in {place}.")
    return found
