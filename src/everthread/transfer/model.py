"""Sources of threads, and reports of their transfer. No I/O."""

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

EARLIEST_MS = to_milliseconds(datetime(1, 1, 2, tzinfo=UTC))
LATEST_MS = to_milliseconds(datetime(9999, 12, 30, tzinfo=UTC))
"""The times that every time zone can represent."""


class Skipped(msgspec.Struct, frozen=True):
    """An unreadable record or thread: its place and the reason, without content."""

    place: str
    reason: str

    @classmethod
    def at(cls, place: str, error: Exception) -> Skipped:
        """Return the record of an error, without the place if the error's text begins with it or its file."""
        reason = str(error)
        for known in (place, place.partition(", ")[0]):
            reason = reason.removeprefix(known).lstrip(":, ")
        return cls(place, reason)


class Heading(msgspec.Struct, frozen=True):
    """A thread of a source, without its messages.

    Attributes:
        next_seq: The position of its next message; ``None`` if it follows from the messages.
        expires_ms: The time at which it expires, in milliseconds since 1970.
        times: The times of its creation and last activity, in milliseconds since 1970; ``None`` if unknown.
        retention: Its own retention, if it has one.
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
    """Return the times of a `Heading`; ``None`` if the store does not know them, or they are impossible."""
    return (created_ms, updated_ms) if 0 < created_ms <= updated_ms <= LATEST_MS else None


def bounded_expiry(expires_ms: int | None) -> int | None:
    """Return an expiry that fits a date, at most the end of the year 9999."""
    return None if expires_ms is None else min(expires_ms, LATEST_MS)


def left_of(updated_ms: int, expires_ms: int | None) -> int | None:
    """Return the time from the last activity of a thread to its expiry."""
    return None if expires_ms is None else expires_ms - updated_ms


class SourceThread(ABC):
    """A thread that can be read from its beginning, more than once.

    Attributes:
        place: Its file and line, for reports; empty if there is no file.
        left_out: The unreadable parts found so far: messages by position, documents by name, the rest at ``None``.
    """

    heading: Heading
    place: str = ""
    left_out: dict[int | str | None, Skipped] = {}  # noqa: RUF012 - replaced, never added to

    @abstractmethod
    def pages(self) -> AsyncIterator[Sequence[Message]]:
        """Yield its messages in order, a bounded number of bytes at a time."""

    async def documents(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the name and JSON of each document."""
        for nothing in ():
            yield nothing


class Openable(ABC):  # noqa: B024 - subclasses have abstract methods
    """Something that is opened and closed. ``async with`` does both, and closes it if opening fails."""

    async def open(self) -> None:
        """Open it.

        Raises:
            ConfigurationError: There is no such thing, or it is of another kind.
        """
        return

    async def aclose(self) -> None:
        """Close everything that `open` opened."""
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


class Source(Openable):
    """Threads to be read, the least recently active first. Opening it counts them.

    Attributes:
        total: The approximate number of messages; ``None`` if unknown.
        skipped: Unreadable parts that `open` found, if it may skip them.
    """

    total: int | None = None
    skipped: Sequence[Skipped] = ()

    @abstractmethod
    def threads(self) -> AsyncIterator[SourceThread | Skipped]:
        """Yield the threads. One that changes may come again at the end; a bad one comes as `Skipped`."""


class Outcome(msgspec.Struct, frozen=True):
    """The result for one thread.

    Attributes:
        status: ``new``, ``extended`` (messages were added), ``updated`` (only title, metadata, documents, retention or
            times), ``unchanged``, ``ahead`` (the target has later messages, and is unchanged), ``expired`` (nothing was
            written), ``conflict`` (the target has another thread of this name, and is unchanged), ``failed``.
        written: The number of messages written; in a dry run, to be written.
        present: The number of messages that the target had already.
        documents: The number of documents written; in a dry run, to be written.
        reason: The reason of a conflict or failure; no content.
        skipped: Records that cannot be read. They were left out, or exported as bytes.
    """

    key: ThreadKey
    status: Status
    written: int = 0
    present: int = 0
    documents: int = 0
    reason: str = ""
    skipped: tuple[Skipped, ...] = ()


class Report(msgspec.Struct):
    """The result of a transfer.

    Attributes:
        threads: The number of threads in each status.
        written: The number of messages written; in a dry run, to be written.
        present: The number of messages that the target had already.
        documents: The number of documents written; in a dry run, to be written.
        problems: The threads with a conflict or failure.
        skipped: Threads and records that cannot be read. They were left out, or exported as bytes.
        files: The number of files written; in a dry run, to be written.
        size: The number of bytes in these files.
        keeps_times: Whether threads keep the times of the source. Otherwise they have the time of the transfer.
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

    def add(self, outcome: Outcome, earlier: Status | None = None) -> Status:
        """Count an outcome.

        Args:
            outcome: The result for one thread.
            earlier: The status so far, of a thread that comes again.

        Returns:
            The status of the thread now.
        """
        self.written += outcome.written
        self.documents += outcome.documents
        status = outcome.status
        if earlier is None:
            self.present += outcome.present
            self.skipped += outcome.skipped
        else:
            status = _together(earlier, status)
            self.threads[earlier] -= 1
            self.threads = {each: count for each, count in self.threads.items() if count}
            self.problems = [problem for problem in self.problems if problem.key != outcome.key]
            self.skipped += [each for each in outcome.skipped if each not in self.skipped]
        self.threads[status] = self.threads.get(status, 0) + 1
        if outcome.status in PROBLEMS:
            self.problems.append(outcome)
        return status

    @property
    def is_complete(self) -> bool:
        """Return whether the target has everything that the source has."""
        return not self.problems and not self.skipped


def _together(earlier: Status, later: Status) -> Status:
    """Return the status of a thread that came twice."""
    if later in PROBLEMS or earlier in PROBLEMS or earlier == "unchanged":
        return later
    return earlier if earlier == "new" or later == "unchanged" else later


class Watcher:
    """The receiver of the progress of a transfer. This one ignores it."""

    def begin(self, total: int | None) -> None:
        """Receive the approximate number of messages, if known."""

    def advance(self, count: int) -> None:
        """Receive the number of further messages processed."""

    def finished(self, outcome: Outcome) -> None:
        """Receive the result for a thread."""
