"""The contract of a store. The conformance kit (`everthread.testing`) holds every engine to it.

Guarantees of every method of every engine:

Atomic
    An append is there completely or not at all, for every reader, after any crash. Trimming by retention is part of
    the same step.
Ordered
    Positions come from the store, never from a clock. Each turn stays contiguous, and concurrent writers neither lose
    nor interleave messages. Appends that one process makes to one thread through one store land in the order in which
    it made them, also if it starts them at the same time. No order is promised for other calls that run at the same
    time: await the first one.
Retry-safe
    An append repeated with the same ``append_id`` takes effect once, as long as the id is among the newest
    `REMEMBERED_APPENDS` of its thread, even after its messages were trimmed. An append without an id gets a random
    one, so an engine's own retries never store a turn twice.
Conflict-aware
    ``expected_seq=k`` appends only if the thread's next position is k.
Lossless
    A payload comes back byte for byte. A record that cannot be decoded raises `CorruptRecordError` and does not stop
    calls on others.
Bounded
    ``append`` costs one round trip, independent of the thread's length and of its history of undos. The newest k
    messages cost O(k), a page of threads costs O(page), in bytes too.
Isolated
    No choice of tenant and thread id reaches the data of another.
Discreet
    ``repr``, ``location``, logs and errors contain no credentials and no message content.
Typed
    Only the errors of `everthread.errors` and ``CancelledError`` are raised.
Owned
    A store closes what it opened and nothing else. A cancelled call leaves its turn whole or absent and the store
    usable; a write that was already sent may still land a little later.

Positions are never reused. An append of n messages gets n consecutive positions after the last one ever assigned in
the thread. Dropping the tail (undo) leaves a gap, so a remembered position (a summary's, a cursor's, ``expected_seq``)
never refers to other messages than before. Deleting a thread deletes its positions too: a new thread of the same id
starts at 0.

The first append or document creates a thread. An expired thread is equivalent to a deleted one.

A store that was opened with ``read_only=True`` creates, migrates and writes nothing: opening a place that does not
exist raises `ConfigurationError`, and calls that write raise `UnsupportedError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from everthread._uncopied import Uncopied
from everthread.errors import InvalidMessageError
from everthread.model import (
    Appended,
    Document,
    Message,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Thread,
    ThreadKey,
    Truncated,
)

REMEMBERED_APPENDS = 1000
"""The least number of a thread's newest append ids that an engine remembers."""

MAX_DOCUMENT_BYTES = 1024 * 1024
"""Largest document value."""

MAX_METADATA_BYTES = 64 * 1024
"""Largest metadata of a thread as JSON, because listings carry it. Larger metadata of older releases can be read."""


class Store(Uncopied, ABC):
    """An open connection to an engine that stores threads.

    Creating one does no I/O. ``async with`` opens and closes it. Without it, the first call opens the store, and
    `aclose` closes it. A store belongs to the event loop that opened it; `everthread.wrappers.per_loop` has one that
    works in every loop. Copying or pickling a store raises `ConfigurationError`.

    Every method raises `InvalidIdentifierError` or `ConfigurationError` for invalid arguments,
    `StoreUnavailableError` if the storage cannot be reached, and `SchemaError` if its data is of another version.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """The place of this store for messages to people, without secrets."""

    @abstractmethod
    async def open(self) -> None:
        """Connect and check the schema. Does nothing if the store is open."""

    @abstractmethod
    async def aclose(self) -> None:
        """Finish calls in progress and close what the store opened. May be repeated."""

    def supports(self, ability: type) -> bool:
        """Return whether this store has an ability of `everthread.capabilities`. Callers use `capability`."""
        return isinstance(self, ability)

    def abandon(self) -> None:
        """Release connections and threads without waiting. For a store on a closed event loop."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @abstractmethod
    def tenant(self, tenant: str) -> Store:
        """Return a view of this store that contains one tenant only: no call on it reaches data of another.

        The view shares this store's connection and never closes it.

        Args:
            tenant: Within the view, the default tenant ``""`` stands for it.

        Raises:
            InvalidIdentifierError: The tenant is not a valid name.
        """

    # Messages

    @abstractmethod
    async def append(
        self,
        key: ThreadKey,
        messages: Sequence[NewMessage],
        *,
        append_id: str | None = None,
        expected_seq: int | None = None,
        retention: Retention | None = None,
        default_title: str | None = None,
        skip_to: int | None = None,
    ) -> Appended:
        """Append one turn to a thread, and trim its head in the same step.

        Args:
            key: The thread; it is created if it does not exist.
            messages: At least one.
            append_id: Makes the call safe to repeat. A repeat returns the result of the first call and ignores its
                other arguments.
            expected_seq: Append only if the thread's next position is this (0 for a new thread).
            retention: Overrides the thread's own and the store's for this append.
            default_title: The title of a thread that begins with this append: one that has had no message and has no
                title yet. An existing conversation keeps its title, or none.
            skip_to: For imports: the position of the first message. The positions from ``expected_seq``, which must be
                given, to this one stay without messages; the default title is not set.

        Raises:
            ConfigurationError: ``skip_to`` is below ``expected_seq``, or is given without it.
            ConflictError: ``expected_seq`` is not the next position, which the error carries.
            InvalidMessageError: There are no messages, or one is not a `NewMessage`.
            LimitExceededError: A message or the turn is larger than this engine stores, or ``skip_to`` is above
                `everthread.capabilities.MAX_RESTORED_SEQ`.
            UnsupportedError: ``skip_to`` is given, and the store lacks `everthread.capabilities.SupportsImport`.
            OutcomeUnknownError: The turn may have been written. Repeat the call with the same ``append_id``.
        """

    async def check_append(self, key: ThreadKey, messages: Sequence[NewMessage]) -> None:
        """Raise the error that `append` would raise because of these messages. Reads and writes nothing.

        Call it before expensive work that ends with an append, such as a call of a model. It is no guarantee: the
        messages together with other data may still exceed a limit.

        Raises:
            InvalidMessageError: There are no messages, or one is not a `NewMessage`.
            LimitExceededError: A message or the turn is larger than this engine stores.
        """
        if not messages:
            raise InvalidMessageError(f"There is nothing to append to {key}: give at least one message.")

    @abstractmethod
    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        """Return messages at positions ``start`` ≤ seq < ``stop``, oldest first, at most ``limit`` of them.

        The page skips positions that were trimmed or never written. An unknown thread gives an empty page. To page
        forward, continue with ``start`` one past the last message's position.
        """

    @abstractmethod
    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        """Return the newest ``count`` messages at positions below ``before``, oldest first.

        Costs O(count). To page backward, continue with ``before`` at the first message's position.
        """

    @abstractmethod
    async def truncate(
        self, key: ThreadKey, *, start: int | None = None, stop: int | None = None, expected_seq: int | None = None
    ) -> Truncated:
        """Delete all messages except those at positions ``start`` ≤ seq < ``stop``.

        ``start`` drops the head, ``stop`` drops the tail (undo). A tool result never loses its call: ``start`` moves up
        and ``stop`` moves down to the nearest position that separates no pair. Dropped positions are not reused. A
        ``start`` at or below the head drops nothing. Undo is activity; dropping only the head is not.

        Args:
            key: The thread.
            start: The first position to keep; ``None`` keeps the head.
            stop: The position after the last to keep; ``None`` keeps the tail.
            expected_seq: Truncate only if the thread's next position is this, so that the caller drops no turn that it
                has not seen.

        Raises:
            ConflictError: ``expected_seq`` is not the next position, which the error carries.
            ThreadNotFoundError: There is no such thread.
        """

    # Threads

    @abstractmethod
    async def get_thread(self, key: ThreadKey) -> Thread | None:
        """Return the description of a thread without its messages, or ``None``."""

    @abstractmethod
    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        """Return at most ``limit`` of a tenant's threads, newest activity first.

        A page can be shorter although more follow, because it ends once its metadata has 1 MiB. The last page has no
        cursor.

        A page contains each thread of its range once if the thread exists while the page is read, even if another
        writer appends to it at the same time. A sequence of pages can miss a thread that becomes active between two of
        them, because it moves to the front. It misses and repeats no other thread.
        `everthread.listing.every_thread` yields every thread that exists all the time, also those that move. A damaged
        thread does not hide the others: `Thread.damage` reports it.

        Raises:
            ConfigurationError: The cursor is not one that this store gave for this tenant.
        """

    @abstractmethod
    async def update_thread(
        self,
        key: ThreadKey,
        *,
        title: str | None = None,
        metadata: Mapping[str, object] | None = None,
        retention: Retention | Literal["inherit"] | None = None,
        expected_revision: int | None = None,
    ) -> Thread:
        """Set the title, the metadata or the retention of a thread, or several of them. This is not activity.

        Args:
            key: The thread.
            title: ``None`` keeps the title.
            metadata: A JSON object that replaces the former one; ``None`` keeps it.
            retention: Applies to appends that give none, instead of the store's retention, so ``Retention()`` keeps
                everything. ``"inherit"`` returns to the store's retention; ``None`` changes nothing. The next append
                trims messages. The expiry changes immediately, to the last activity plus ``expire_after``. That
                time can be past.
            expected_revision: Change it only if it has this revision.

        Raises:
            ThreadNotFoundError: There is no such thread.
            ConflictError: The revision is not ``expected_revision``; carries the actual one.
            InvalidMessageError: The metadata or title cannot be stored as JSON.
            LimitExceededError: The metadata is larger than `MAX_METADATA_BYTES`.
        """

    @abstractmethod
    async def delete_thread(self, key: ThreadKey, *, expected_seq: int | None = None) -> bool:
        """Delete a thread with its documents; return whether it existed.

        Args:
            key: The thread.
            expected_seq: Delete it only if its next position is this, so that the caller deletes no turn that it
                has not seen.

        Raises:
            ConflictError: ``expected_seq`` is not the next position, which the error carries.
        """

    @abstractmethod
    async def delete_tenant(self, tenant: str) -> int:
        """Delete all threads of a tenant; return their number.

        Not atomic: an append that runs at the same time may leave its thread.
        """

    async def erase_remains(self) -> tuple[str, ...]:
        """Erase the remains of deleted and replaced records from the engine's own files.

        Returns:
            Messages that say which remains stay and why. Servers reclaim some space in their own time (an append-only
            file, dead rows): see docs/how-to/tenants.md.
        """
        return ()

    # Documents

    @abstractmethod
    async def get_document(self, key: ThreadKey, name: str) -> Document | None:
        """Return a document of a thread, or ``None``."""

    @abstractmethod
    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        """Store a document (JSON as UTF-8), and create its thread if needed. This is not activity.

        Args:
            expected_revision: Write only if the document has this revision (0: does not exist).

        Raises:
            ConflictError: The revision is another; carries the actual one.
            InvalidMessageError: The value is not JSON in UTF-8.
            LimitExceededError: The value is larger than `MAX_DOCUMENT_BYTES`.
        """

    @abstractmethod
    async def delete_document(self, key: ThreadKey, name: str) -> bool:
        """Delete a document; return whether it existed."""

    @abstractmethod
    async def list_documents(
        self, key: ThreadKey, *, prefix: str = "", after: str | None = None, limit: int | None = None
    ) -> tuple[str, ...]:
        """Return the names of a thread's documents, in the order of their UTF-8; none for an unknown thread.

        SQLite and PostgreSQL read only the names that they return. Redis walks all names of the thread on the server,
        and sends those of the range. Object storage and Cosmos DB read only the page if names are plain (at most 100
        lower-case letters, digits, ``.``, ``_`` and ``-``, the first one a letter or digit, the last one no ``.``) and
        the prefix has a ``.`` before its last character; a shorter prefix lists all names that begin alike. They also
        read each document with another name that begins like ``prefix``.

        Args:
            key: The thread.
            prefix: Return only names that begin with this.
            after: Return only names above this one. To page forward, continue with the last name of a page.
            limit: The maximum number of names; ``None``: all.
        """


async def read_all(store: Store, key: ThreadKey, *, start: int = 0, page_size: int = 500) -> AsyncIterator[Message]:
    """Yield every stored message of a thread from ``start`` on. Reads pages, so memory stays bounded.

    Includes messages that are appended during the iteration.
    """
    while True:
        page = await store.read(key, start=start, limit=page_size)
        for message in page:
            yield message
        if len(page) < page_size:
            return
        start = page[-1].seq + 1
