"""What is moved, and what became of it: a source's threads, a thread's outcome, a report. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Literal, Self

import msgspec

from everthread.model import Message, ThreadKey

Status = Literal["new", "extended", "updated", "unchanged", "ahead", "conflict", "failed"]

PROBLEMS: frozenset[Status] = frozenset({"conflict", "failed"})


class Heading(msgspec.Struct, frozen=True):
    """What a source says of a thread beside its messages.

    Attributes:
        next_seq: The position that its next message would get; ``None`` if only its messages tell.
        expires_ms: When the whole thread is to be forgotten, in milliseconds since 1970.
    """

    key: ThreadKey
    next_seq: int | None = None
    title: str | None = None
    metadata: Mapping[str, object] = {}
    expires_ms: int | None = None

    def __repr__(self) -> str:
        return f"Heading({self.key})"


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
    """

    total: int | None = None

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
        status: ``new``, ``extended`` (messages were added), ``updated`` (only title, metadata or
            documents), ``unchanged`` (all was there), ``ahead`` (the target has gone on by itself, and was
            left as it is), ``conflict`` (the target has another conversation of this name, which was left as
            it is), ``failed``.
        written: Messages that were written, or would be.
        present: Messages that were there already.
        documents: Documents that were written, or would be.
        reason: Why, for what went wrong; no content.
    """

    key: ThreadKey
    status: Status
    written: int = 0
    present: int = 0
    documents: int = 0
    reason: str = ""


class Report(msgspec.Struct):
    """What became of all threads.

    Attributes:
        threads: How many ended in each status.
        written: Messages that were written, or would be.
        present: Messages that were there already.
        documents: Documents that were written, or would be.
        problems: The outcomes that need somebody's attention.
    """

    threads: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    written: int = 0
    present: int = 0
    documents: int = 0
    problems: list[Outcome] = msgspec.field(default_factory=list[Outcome])

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome."""
        self.threads[outcome.status] = self.threads.get(outcome.status, 0) + 1
        self.written += outcome.written
        self.present += outcome.present
        self.documents += outcome.documents
        if outcome.status in PROBLEMS:
            self.problems.append(outcome)

    @property
    def is_complete(self) -> bool:
        """Whether every thread is in the target as it is in the source, or further."""
        return not self.problems


class Watcher:
    """Is told how it goes; this one does not care."""

    def begin(self, total: int | None) -> None:
        """About how many messages there will be, if that is known."""

    def advance(self, count: int) -> None:
        """So many more messages were dealt with."""

    def finished(self, outcome: Outcome) -> None:
        """A thread is done."""


class Digest:
    """Tells whether two runs of messages are equal: positions, formats, payloads, and times where they are known."""

    def __init__(self) -> None:
        self._content = blake2b(digest_size=16)
        self._times = blake2b(digest_size=16)
        self._is_timed = True
        self.count = 0
        self.first_seq: int | None = None
        self.stop = 0

    def add(self, message: Message) -> None:
        """Takes in the next message."""
        payload = message.payload
        self._content.update(b"%d %d %b\n%b" % (message.seq, len(payload), message.format.encode(), payload))
        if message.created_ms is None:
            self._is_timed = False
        else:
            self._times.update(b"%d\n" % message.created_ms)
        if self.first_seq is None:
            self.first_seq = message.seq
        self.stop = message.seq + 1
        self.count += 1

    def is_met_by(self, stored: Digest) -> bool:
        """Whether what is stored is equal; a time that this side does not know may be any."""
        if self.count != stored.count or self._content.digest() != stored._content.digest():
            return False
        return not self._is_timed or self._times.digest() == stored._times.digest()
