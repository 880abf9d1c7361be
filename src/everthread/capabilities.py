"""Abilities that some stores have and others lack. Ask for one with `capability`.

For example:

    searchable = capability(store, SupportsSearch)
    if searchable is not None:
        page = await searchable.search("", "invoice")
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar, cast

from everthread.contract import Store
from everthread.errors import UnsupportedError
from everthread.model import HealthCheck, Inconsistency, Page, Rewrite, SearchHit, Thread, ThreadKey

T = TypeVar("T")


def capability(store: Store, ability: type[T]) -> T | None:
    """Return the store as one that has an ability, or ``None`` if it lacks it.

    Use this instead of ``isinstance``: a wrapper has an ability only if the store inside has it too.
    """
    return cast(T, store) if store.supports(ability) else None


def required_capability(store: Store, ability: type[T]) -> T:
    """Return the store as one that has an ability.

    Raises:
        UnsupportedError: The store lacks it.
    """
    if store.supports(ability):
        return cast(T, store)
    raise UnsupportedError(f"The store at {store.location} lacks {ability.__name__}: ask with capability() first.")


class SupportsDiagnosis(ABC):
    """A store that describes its engine: server, version, encryption, rights, schema, durability."""

    @abstractmethod
    async def diagnose(self) -> tuple[HealthCheck, ...]:
        """Return health checks in the order in which a person reads them.

        Costs a few round trips, however much the store holds. A check that needs missing rights is reported as such
        and raises nothing.
        """

    async def probe(self) -> tuple[HealthCheck, ...]:
        """Return checks that need a trial write. The record is removed afterward.

        Engines need this if they depend on rules that not every storage keeps. For others there is no such check.
        """
        return ()


class SupportsReconciling(ABC):
    """A store that compares derived data (counts, indexes, companion records) with its messages."""

    @abstractmethod
    async def reconcile(self, tenant: str = "", *, repair: bool = False) -> tuple[Inconsistency, ...]:
        """Return the inconsistencies of this tenant or, in some engines, of all tenants.

        Reads everything, so it takes time in proportion to the store. Messages are never changed.

        Args:
            tenant: The tenant to examine.
            repair: Repair each inconsistency.

        Raises:
            UnsupportedError: The server does not allow it.
        """


class SupportsSearch(ABC):
    """A store that finds messages by their words.

    A message is found by the text of its view (`everthread.messages.codec.View`) as soon as its append is visible.
    Messages that were stored while search was off are not found.
    """

    @abstractmethod
    async def search(self, tenant: str, text: str, *, limit: int = 20, cursor: str | None = None) -> Page[SearchHit]:
        """Return at most ``limit`` of a tenant's messages that contain every word of ``text``, newest first.

        Words in double quotes must be adjacent. Case is ignored. The engine decides which other spellings are the
        same word (endings, accents). Text without a word finds nothing.

        Raises:
            ConfigurationError: The cursor is not from this search.
            InvalidMessageError: ``text`` is not a string, or longer than 1,000 characters.
        """

    async def prepare_search(  # noqa: B027 (most engines have nothing to prepare)
        self, *, advance: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Index the messages that the store already holds, which the first search would otherwise do.

        Runs beside readers and writers and may be stopped at any moment: the next call or search continues. Costs at
        most one quick check if the index is complete.

        Args:
            advance: Called after each part with the number of indexed messages and the approximate total.
        """


class SupportsRewrite(ABC):
    """A store that replaces stored payloads, for encryption and repair."""

    @abstractmethod
    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        """Replace each payload that still equals ``Rewrite.old``; return how many were replaced.

        Positions, times, formats, turns and links stay unchanged. This is not activity. A message that was trimmed or
        changed since it was read is left alone. All changes of one call become visible together. A call may be
        repeated if its outcome is unknown.

        Raises:
            InvalidMessageError: A new payload is not JSON in UTF-8, or ``changes`` are not `Rewrite` objects.
            LimitExceededError: A payload, or the number of changes, exceeds what this engine stores.
        """


MAX_RESTORED_SEQ = 10**13
"""Highest position that an import sets. Every engine stores it exactly and appends after it."""


class SupportsImport(ABC):
    """A store that sets the times and the next position of a thread, for copies and imports.

    Its `everthread.contract.Store.append` accepts ``skip_to``.
    """

    @abstractmethod
    async def restore_position(
        self, key: ThreadKey, next_seq: int, *, expected_seq: int, expire_after: timedelta | None = None
    ) -> None:
        """Move a thread's next position forward, past positions that will never have a message.

        Costs the same for any distance. Creates the thread if it does not exist and ``next_seq`` is above 0. Changes
        nothing if the thread is at ``next_seq`` already, so the call is safe to repeat. It counts as activity.

        Args:
            key: The thread.
            next_seq: The position of the next message.
            expected_seq: The next position now; 0 for a thread that does not exist.
            expire_after: The time from now until the thread expires. ``None`` leaves its expiry unchanged.

        Raises:
            ConflictError: The next position is neither ``expected_seq`` nor ``next_seq``; carries the actual one.
            ConfigurationError: ``next_seq`` is below ``expected_seq``: positions are never given twice.
            LimitExceededError: ``next_seq`` is above `MAX_RESTORED_SEQ`.
        """

    @abstractmethod
    async def restore_times(self, key: ThreadKey, *, created_at: datetime, updated_at: datetime) -> Thread:
        """Set the creation and the last activity of a thread, and with it the thread's place in listings.

        An expiry moves by as much as the last activity. The revision stays. Times have millisecond precision; a time
        without a zone is UTC.

        Raises:
            ThreadNotFoundError: There is no such thread.
            ConfigurationError: ``updated_at`` is before ``created_at``, or a time is before 1970.
        """


class ScansThreads(ABC):
    """A store that enumerates a tenant's threads in an order that activity does not change."""

    @abstractmethod
    def scan_threads(self, tenant: str = "") -> AsyncIterator[Thread]:
        """Yield every thread that exists throughout the scan, in no particular order. Costs more than a listing.

        Raises:
            CorruptRecordError: Some threads could not be read. Raised after all others were yielded.
        """


class SupportsTenantList(ABC):
    """A store that lists its tenants."""

    @abstractmethod
    async def list_tenants(self, *, after: str = "", limit: int = 1000) -> tuple[str, ...]:
        """Return the names of at most ``limit`` (1,000) tenants above ``after`` that have threads, ascending.

        The default tenant has no name and is not among them. A tenant whose threads have all expired may be. Redis
        scans all keys and object storage reads all tenants for each call; other engines read ``limit`` names.
        """


class SupportsCompaction(ABC):
    """A store that keeps a thread in many small objects and can join them."""

    @abstractmethod
    async def compact(self, key: ThreadKey) -> None:
        """Join a thread's small objects and free the space of dropped messages.

        Engines also do this on their own now and then. Readers and writers are not affected, and it is not activity.
        May be stopped at any moment and repeated. Does nothing for an unknown thread.
        """


class SupportsSealing(ABC):
    """A store that encrypts everything with keys of the tenant before the engine gets it."""

    @abstractmethod
    async def seal(self, key: ThreadKey, payload: bytes) -> bytes:
        """Return an encrypted payload as JSON, for records outside the thread such as a backup.

        The result is at most a third and 100 bytes larger.
        """

    @abstractmethod
    async def unseal(self, key: ThreadKey, payload: bytes) -> bytes:
        """Return the payload that was sealed for this thread.

        Raises:
            CorruptRecordError: It was changed, or sealed for another thread.
            EncryptionKeyError: Its key is missing, wrong or destroyed.
        """

    @abstractmethod
    async def shred_tenant(self, tenant: str) -> int:
        """Delete a tenant's threads and destroy its keys; return the number of threads.

        Afterward no copy of the data can be read, in any place.
        """
