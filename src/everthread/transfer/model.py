"""What is moved, and what became of it: a source's threads, a thread's outcome, a report. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

import msgspec

from everthread.model import Message, Retention, ThreadKey, to_milliseconds

Status = Literal["new", "extended", "updated", "unchanged", "ahead", "expired", "conflict", "failed"]

PROBLEMS: frozenset[Status] = frozenset({"conflict", "failed"})

_LAST_MS = to_milliseconds(datetime(9999, 12, 31, tzinfo=UTC))


class Skipped(msgspec.Struct, frozen=True):
    """Something that could not be read and was left out: where it is, and what is wrong with it. No content."""

    place: str
    reason: str


class Heading(msgspec.Struct, frozen=True):
    """What a source says of a thread beside its messages.

    Attributes:
        next_seq: The position that its next message would get; ``None`` if only its messages tell.
        expires_ms: When the whole thread is to be forgotten, in milliseconds since 1970.
        times: When it was begun and last active, in milliseconds since 1970; ``None`` if that is not known.
        retention: Its own, if it has one.
    """

    key: ThreadKey
    next_seq: int | None = None
    title: str | None = None
    metadata: Mapping[str, object] = {}
    expires_ms: int | None = None
    times: tuple[int, int] | None = None
    retention: Retention | None = None

    def __repr__(self) -> str:
        return f"Heading({self.key})"


def known_times(created_ms: int, updated_ms: int) -> tuple[int, int] | None:
    """The times of a `Heading`; ``None`` where a store does not know them, or they cannot be."""
    return (created_ms, updated_ms) if 0 < created_ms <= updated_ms <= _LAST_MS else None


class SourceThread(ABC):
    """A thread that can be read from its beginning, more than once."""

    heading: Heading

    @abstractmethod
    def pages(self) -> AsyncIterator[Sequence[Message]]:
        """Its messages in order, a bounded number of bytes at a time."""

    async def documents(self) -> AsyncIterator[tuple[str, bytes]]:
        """Its documents: name and JSON."""
        for nothing in ():
            yield nothing


class Source(ABC):
    """Threads to be read, the least recently active first.

    Attributes:
        total: About how many messages there are; ``None`` if that is not known.
        skipped: What cannot be read and is left out, where that was asked for.
    """

    total: int | None = None
    skipped: Sequence[Skipped] = ()

    @abstractmethod
    def threads(self) -> AsyncIterator[SourceThread]:
        """The threads; one that changes meanwhile may come again at the end."""

    async def open(self) -> None:
        """Finds out what there is."""
        return

    async def aclose(self) -> None:
        """Gives back what was opened."""
        return

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Outcome(msgspec.Struct, frozen=True):
    """What became of one thread.

    Attributes:
        status: ``new``, ``extended`` (messages were added), ``updated`` (only title, metadata, documents,
            retention or times), ``unchanged`` (all was there), ``ahead`` (the target has gone on by itself, and
            was left as it is), ``expired`` (its time has passed, so nothing was written), ``conflict`` (the
            target has another conversation of this name, which was left as it is), ``failed``.
        written: Messages that were written, or would be.
        present: Messages that were there already.
        documents: Documents that were written, or would be.
        reason: Why, for what went wrong; no content.
        skipped: Records that were left out because they cannot be read.
    """

    key: ThreadKey
    status: Status
    written: int = 0
    present: int = 0
    documents: int = 0
    reason: str = ""
    skipped: tuple[Skipped, ...] = ()


class Report(msgspec.Struct):
    """What became of all threads.

    Attributes:
        threads: How many ended in each status.
        written: Messages that were written, or would be.
        present: Messages that were there already.
        documents: Documents that were written, or would be.
        problems: The outcomes that need somebody's attention.
        skipped: What cannot be read and was left out.
        files: Files that were written, or would be.
        size: How many bytes went into files, or would.
        keeps_times: Whether threads have the times of the source; else the target cannot be told any, and they
            have those of the move.
    """

    threads: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    written: int = 0
    present: int = 0
    documents: int = 0
    problems: list[Outcome] = msgspec.field(default_factory=list[Outcome])
    skipped: list[Skipped] = msgspec.field(default_factory=list[Skipped])
    files: int = 0
    size: int = 0
    keeps_times: bool = True

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome."""
        self.threads[outcome.status] = self.threads.get(outcome.status, 0) + 1
        self.written += outcome.written
        self.present += outcome.present
        self.documents += outcome.documents
        self.skipped += outcome.skipped
        if outcome.status in PROBLEMS:
            self.problems.append(outcome)

    @property
    def is_complete(self) -> bool:
        """Whether every thread is in the target as it is in the source, or further."""
        return not self.problems and not self.skipped


class Watcher:
    """Is told how it goes; this one does not care."""

    def begin(self, total: int | None) -> None:
        """About how many messages there will be, if that is known."""

    def advance(self, count: int) -> None:
        """So many more messages were dealt with."""

    def finished(self, outcome: Outcome) -> None:
        """A thread is done."""
