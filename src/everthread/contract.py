"""What a store promises. The conformance kit (`everthread.testing`) holds every engine to it.

The guarantees, for every method of every engine:

Atomic
    An append of n messages is all there or not at all, for every reader, after any crash.
    Retention's trimming is part of the same step.
Ordered
    Positions come from the store, never from a clock. Each turn stays contiguous; no message of
    two concurrent writers is lost or interleaved. Appends that one task awaits one after another,
    or that one process submits in an order, land in that order.
Retry-safe
    The same ``append_id`` takes effect once for as long as it is among the newest
    `REMEMBERED_APPENDS` of its thread, also after its messages were trimmed. Appends without an id
    get a random one, so an engine's own retries never double a turn either.
Conflict-aware
    ``expected_seq=k`` appends only if the thread's next position is k.
Lossless
    A payload comes back byte for byte.
Bounded
    ``append`` is one round trip whatever the thread's length; the last k cost O(k); a page of
    threads costs O(page).
Isolated
    No choice of tenant and thread id reaches another's data.
Discreet
    No credential and no message content in ``repr``, ``location``, logs or errors.
Typed
    Only the errors of `everthread.errors` (and ``CancelledError``) come out.
Honest
    A store closes what it opened and never what it was handed. A cancelled call leaves its turn
    whole or absent, and the store usable; a write that was already sent may still land a little later.

Positions are never reused. They are dense as written: an append of n messages gets n consecutive
positions that follow the last position ever given in this thread. Dropping the tail (undo) leaves
a hole, so that whoever remembers a position (a follower, a summary, a cursor, ``expected_seq``) can
not mistake new messages for the dropped ones. Deleting a thread forgets it wholly: a new thread of
the same id starts at 0.

A thread comes into being with its first append or document. An expired thread is in every way as
if it had been deleted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from everthread.model import (
    Appended,
    Document,
    Drift,
    Fact,
    Message,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Rewrite,
    SearchHit,
    Thread,
    ThreadKey,
    Truncated,
)

if TYPE_CHECKING:
    from everthread.wrappers.tenant import Quota, TenantStore

REMEMBERED_APPENDS = 1000
"""How many of a thread's newest append ids an engine remembers at least."""

MAX_DOCUMENT_BYTES = 1024 * 1024
"""Largest document value: documents are small JSON beside a thread, not another message log."""


class Store(ABC):
    """An open connection to an engine that keeps threads.

    Creating one does no I/O. ``async with`` opens and closes it; without that it opens at its first
    use, and `aclose` closes it. A store belongs to the event loop it was opened in.

    Every method raises `InvalidIdentifierError` or `ConfigurationError` for arguments that are
    wrong in themselves, `StoreUnavailableError` where the store cannot be reached, and
    `SchemaError` where its data is of another version.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """Where this store keeps its threads, for people; holds no secret."""

    @abstractmethod
    async def open(self) -> None:
        """Connects and checks the schema; does nothing if that has been done."""

    @abstractmethod
    async def aclose(self) -> None:
        """Finishes what is under way and closes what was opened here. May be called again."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def tenant(self, tenant: str, *, quota: Quota | None = None) -> TenantStore:
        """A view of this store in which there is only one tenant: no call on it reaches another's data.

        It shares this store's connection and never closes it.

        Args:
            tenant: Within the view, the default tenant ``""`` stands for it.
            quota: The most that the tenant may keep, where it writes through this view.

        Raises:
            InvalidIdentifierError: The tenant cannot be a name.
        """
        from everthread.wrappers.tenant import TenantStore

        return TenantStore(self, tenant, quota=quota)

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
    ) -> Appended:
        """Writes one turn at the tail of a thread, and trims the head in the same step.

        Args:
            key: The thread; it is created if it does not exist.
            messages: At least one.
            append_id: Makes the call safe to repeat: see *Retry-safe* above. A repeat returns what
                the first call did, whatever else it is given.
            expected_seq: Append only if the thread's next position is this (0 for a new thread).
            retention: Overrides the thread's own and the store's for this append.
            default_title: Becomes the thread's title if it has none.

        Raises:
            ConflictError: ``expected_seq`` is not the next position, which the error carries.
            InvalidMessageError: There are no messages, or one is not a `NewMessage`.
            LimitExceededError: A message or the turn is larger than this engine stores.
            OutcomeUnknownError: It may have been written; repeat it with the same ``append_id``.
        """

    @abstractmethod
    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        """Messages at positions ``start`` ≤ seq < ``stop``, oldest first; at most the first ``limit``.

        Positions that were trimmed or never written are simply not there; an unknown thread gives an
        empty page. To page forward, continue with ``start`` one past the last message's position.
        """

    @abstractmethod
    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        """The newest ``count`` messages (of those at positions < ``before``), oldest first.

        Costs O(count). To page backward, continue with ``before`` at the first message's position.
        """

    @abstractmethod
    async def truncate(
        self, key: ThreadKey, *, start: int | None = None, stop: int | None = None, expected_seq: int | None = None
    ) -> Truncated:
        """Keeps only positions ``start`` ≤ seq < ``stop``, as a slice would, for good.

        ``start`` drops the head; ``stop`` drops the tail (undo). A tool result is never cut from
        its call: ``start`` moves up and ``stop`` moves down to the nearest position where nothing is
        cut apart. Dropped positions are not given again. A ``start`` at or below the head drops nothing.
        Undo is activity; dropping the head alone is not.

        Args:
            key: The thread.
            start: The first position to keep; ``None`` keeps the head.
            stop: The position after the last to keep; ``None`` keeps the tail.
            expected_seq: Truncate only if the thread's next position is this, so that no turn is dropped which
                the caller has not seen.

        Raises:
            ConflictError: ``expected_seq`` is not the next position, which the error carries.
            ThreadNotFoundError: There is no such thread.
        """

    # Threads

    @abstractmethod
    async def get_thread(self, key: ThreadKey) -> Thread | None:
        """What is known of a thread without its messages, or ``None``."""

    @abstractmethod
    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        """A tenant's threads, the newest activity first; at most ``limit`` of them.

        A thread with new activity while a listing is paged moves to its front and may be missed by
        the pages that follow; none that stays still is missed or shown twice.

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
        """Sets the title, the metadata, the thread's own retention, or several at once; this is not activity.

        Args:
            key: The thread.
            title: ``None`` leaves it.
            metadata: A JSON object that takes the place of the former; ``None`` leaves it.
            retention: Holds for each append that brings none of its own, before the store's. (So
                ``Retention()`` keeps everything, whatever the store says.) ``"inherit"`` takes it away:
                the store's holds again; ``None`` leaves it. Messages are trimmed from the next append on. The expiry
                moves at once: to the last activity and ``expire_after`` of what now holds, which may be past.
            expected_revision: Change it only if it has this revision.

        Raises:
            ThreadNotFoundError: There is no such thread.
            ConflictError: The revision is not ``expected_revision``; carries the actual one.
            InvalidMessageError: The metadata or title cannot be stored as JSON.
        """

    @abstractmethod
    async def delete_thread(self, key: ThreadKey, *, expected_seq: int | None = None) -> bool:
        """Forgets a thread, its documents and all else of it; says whether there was one.

        Args:
            key: The thread.
            expected_seq: Delete it only if its next position is this, so that no turn is lost which the
                caller has not seen.

        Raises:
            ConflictError: ``expected_seq`` is not the next position, which the error carries.
        """

    @abstractmethod
    async def delete_tenant(self, tenant: str) -> int:
        """Forgets all threads of a tenant; says how many there were.

        Not atomic: an append that runs at the same time may leave its thread.
        """

    # Documents

    @abstractmethod
    async def get_document(self, key: ThreadKey, name: str) -> Document | None:
        """A document of a thread, or ``None``."""

    @abstractmethod
    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        """Writes a document (JSON as UTF-8); creates the thread if needed; this is not activity.

        Args:
            expected_revision: Write only if the document has this revision (0: does not exist).

        Raises:
            ConflictError: The revision is another; carries the actual one.
            InvalidMessageError: The value is not JSON in UTF-8.
            LimitExceededError: The value is larger than `MAX_DOCUMENT_BYTES`.
        """

    @abstractmethod
    async def delete_document(self, key: ThreadKey, name: str) -> bool:
        """Forgets a document; says whether there was one."""

    @abstractmethod
    async def list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        """The names of a thread's documents, sorted; empty for an unknown thread."""


class SupportsDiagnosis(ABC):
    """A store that can tell how its engine is: server, version, encryption, rights, schema, durability."""

    @abstractmethod
    async def diagnose(self) -> tuple[Fact, ...]:
        """What is worth knowing, in an order for people. Costs a few round trips, whatever the store holds.

        What may not be asked (rights are missing) is a fact too, not an error.
        """

    async def probe(self) -> tuple[Fact, ...]:
        """What only trying tells: it writes something of its own, and removes it.

        For engines that rely on rules which not every storage keeps. What the doctor itself writes is enough
        for the others.
        """
        return ()


class SupportsReconciling(ABC):
    """A store that can compare what it keeps twice (counts, indexes, companions) with the messages themselves."""

    @abstractmethod
    async def reconcile(self, tenant: str = "", *, mend: bool = False) -> tuple[Drift, ...]:
        """What has drifted apart; with ``mend`` it is put right. Messages are never changed.

        It looks at everything, of this tenant or of all, so it takes its time.

        Raises:
            UnsupportedError: Not with these servers.
        """


class SupportsSearch(ABC):
    """A store that finds messages by their words; ask with ``isinstance``.

    A message is found by the text of its view (`everthread.codec.View`), from the moment in which its
    append is visible. Messages that were stored while search was off are not found.
    """

    @abstractmethod
    async def search(self, tenant: str, text: str, *, limit: int = 20, cursor: str | None = None) -> Page[SearchHit]:
        """A tenant's messages that hold every word of ``text``, the newest first; at most ``limit`` of them.

        Words in double quotes must follow one another. Capitals do not count; what else is taken for
        the same word (endings, accents) is the engine's. Text without any word finds nothing.

        Raises:
            ConfigurationError: The cursor is not one that this search gave.
            InvalidMessageError: ``text`` is not text, or longer than 1,000 characters.
        """

    async def prepare_search(  # noqa: B027 (most engines have nothing to prepare)
        self, *, advance: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Does what the first search would otherwise begin with: making the index of what is there already.

        Where that takes a while it goes on beside readers and writers, and may be stopped at any moment: the next
        call, or search, goes on with what is left. Where nothing is to be done it costs one quick look, or nothing.

        Args:
            advance: Told after each part how many messages are done, and about how many there are in all.
        """


class SupportsRewrite(ABC):
    """A store that can put other payloads in the place of stored ones: to encrypt them anew, or to mend them."""

    @abstractmethod
    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        """Replaces each payload that still is what was read; says how many were.

        Positions, times, formats, turns and what belongs together stay as they are; it is no activity. What was
        trimmed or changed meanwhile is left as it is. All changes of one call become visible together. May be
        sent again when its outcome is unknown.

        Raises:
            InvalidMessageError: A new payload is not JSON in UTF-8, or ``changes`` are no `Rewrite` objects.
            LimitExceededError: A new payload, or their number, is larger than this engine stores.
        """


class SupportsImport(ABC):
    """A store that can give a thread the times which it had elsewhere: for what copies threads and takes them in."""

    @abstractmethod
    async def restore_times(self, key: ThreadKey, *, created_at: datetime, updated_at: datetime) -> Thread:
        """Sets when a thread was begun and last active, and with it its place among the others.

        The time that was left until it expires counts from ``updated_at``. Its revision stays. Times are kept to
        the millisecond, and are in UTC where they name no zone.

        Raises:
            ThreadNotFoundError: There is no such thread.
            ConfigurationError: ``updated_at`` is before ``created_at``, or one of them is before 1970.
        """


class SupportsCompaction(ABC):
    """A store whose threads lie in many small objects, and that can join them when it is asked to."""

    @abstractmethod
    async def compact(self, key: ThreadKey) -> None:
        """Joins a thread's small objects, and frees what messages that were dropped still take up.

        Happens by itself now and then. Readers and writers notice nothing of it; it is no activity. May be stopped
        at any moment and called again. Does nothing for a thread that is not there.
        """


class SupportsShredding(ABC):
    """A store that can make a tenant's data unreadable by destroying its keys, wherever copies of the data lie."""

    @abstractmethod
    async def shred_tenant(self, tenant: str) -> int:
        """Forgets a tenant's threads and destroys its keys; says how many there were."""


class SupportsSealing(ABC):
    """A store whose engine gets nothing in plain text: for what is written beside it, such as a backup."""

    @abstractmethod
    async def seal(self, key: ThreadKey, payload: bytes) -> bytes:
        """A message's payload as this store would keep it in a thread: JSON that tells nothing.

        It is larger by at most a third and 100 bytes.
        """

    @abstractmethod
    async def unseal(self, key: ThreadKey, payload: bytes) -> bytes:
        """What was sealed for this thread.

        Raises:
            CorruptRecordError: It was changed, or sealed for another place.
            EncryptionKeyError: Its key is missing, wrong or destroyed.
        """


async def read_all(store: Store, key: ThreadKey, *, start: int = 0, page_size: int = 500) -> AsyncIterator[Message]:
    """Every kept message of a thread from ``start`` on, in pages, so that memory stays bounded.

    Messages that are appended meanwhile are included.
    """
    while True:
        page = await store.read(key, start=start, limit=page_size)
        for message in page:
            yield message
        if len(page) < page_size:
            return
        start = page[-1].seq + 1
