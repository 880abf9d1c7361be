"""The base class of all engines, for engines of other packages too: see docs/contributing/write-an-engine.md.

An engine writes the hooks at the end of `Engine`. `Engine` does the rest: it checks arguments, opens the store at its
first use, refuses writes to a read-only store, makes cursors and append ids, and translates the driver's exceptions.
"""

from __future__ import annotations

import base64
import itertools
import os
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec, Self, TypeVar

from everthread._url_options import engine_options
from everthread._validation import (
    check_document,
    check_not_reserved,
    check_restored,
    checked_changes,
    checked_key,
    checked_metadata,
    checked_retention,
    checked_title,
    checked_turn,
    writable_key,
)
from everthread.capabilities import SupportsDiagnosis, SupportsImport, SupportsRewrite
from everthread.engines._cursors import listing_cursor, read_listing_cursor
from everthread.engines._listing import PAGE_BYTES, Listed
from everthread.engines._names import NameRange
from everthread.engines._opening import OpensOnce
from everthread.engines._requests import AppendRequest, ThreadChange
from everthread.errors import (
    ConfigurationError,
    CorruptRecordError,
    InvalidMessageError,
    UnsupportedError,
)
from everthread.messages.tool_links import turn_links
from everthread.model import (
    MAX_SEQ,
    Appended,
    Document,
    HealthCheck,
    Message,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Rewrite,
    Thread,
    ThreadKey,
    Truncated,
    check_count,
    check_identifier,
    to_milliseconds,
)
from everthread.wrappers.forwarding import TenantStore

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_PAGE",
    "PAGE_BYTES",
    "AppendRequest",
    "Engine",
    "Listed",
    "ThreadChange",
    "append_ids",
    "cannot_be_stored",
    "engine_options",
]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_PAGE = 1000

P = ParamSpec("P")
T = TypeVar("T")


class Engine(OpensOnce, SupportsRewrite, SupportsImport, SupportsDiagnosis):
    """The base of all engines.

    Args:
        retention: Applies to appends that give none, to threads without their own retention.
        max_message_bytes: Larger payloads raise `LimitExceededError`.
        clock: Returns seconds since 1970.
        new_id: Makes append ids for appends that give none.
        read_only: Write nothing: see `everthread.open_store`.
    """

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__()
        check_count(max_message_bytes, "max_message_bytes", least=1)
        self.retention = checked_retention(retention) or Retention()
        self.max_message_bytes = max_message_bytes
        self.read_only = read_only
        self._clock = clock
        self._new_id = new_id or append_ids()

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the store that a URL names, without I/O. Keyword options override those in the URL."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"

    def supports(self, ability: type) -> bool:
        hook = {SupportsRewrite: "_rewrite", SupportsImport: "_restore_times"}.get(ability)
        if hook is not None and getattr(type(self), hook) is getattr(Engine, hook):
            return False
        return super().supports(ability)

    def tenant(self, tenant: str) -> TenantStore:
        return TenantStore(self, tenant)

    # Messages

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
        turn = checked_turn(writable_key(key), messages, self.max_message_bytes)
        check_count(expected_seq, "expected_seq", optional=True)
        if append_id is not None:
            check_identifier(append_id, "append_id")
        request = AppendRequest(
            checked_key(key),
            turn,
            turn_links(turn),
            append_id or self._new_id(),
            expected_seq,
            checked_retention(retention) or self.retention,
            checked_title(default_title),
            int(self._clock() * 1000),
            append_id is None,
            retention is not None,
            None if skip_to is None else self._checked_skip(key, skip_to, expected_seq),
        )
        return await self._call_to_write(self._append, request)

    async def check_append(self, key: ThreadKey, messages: Sequence[NewMessage]) -> None:
        checked_turn(checked_key(key), messages, self.max_message_bytes)

    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        check_count(start, "start")
        check_count(stop, "stop", optional=True)
        check_count(limit, "limit", optional=True)
        return await self._call(self._read, checked_key(key), start, stop, limit)

    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        check_count(count, "count")
        check_count(before, "before", optional=True)
        return await self._call(self._read_last, checked_key(key), count, before)

    async def truncate(
        self, key: ThreadKey, *, start: int | None = None, stop: int | None = None, expected_seq: int | None = None
    ) -> Truncated:
        check_count(start, "start", optional=True)
        check_count(stop, "stop", optional=True)
        check_count(expected_seq, "expected_seq", optional=True)
        if start is None and stop is None:
            raise ConfigurationError("truncate needs start (drop the head), stop (drop the tail), or both.")
        return await self._call_to_write(self._truncate, writable_key(key), start or 0, stop, expected_seq)

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        checked = checked_changes(writable_key(key), changes, self.max_message_bytes)
        self._check_writable()
        return await self._call(self._rewrite, checked_key(key), checked) if checked else 0

    # Threads

    async def get_thread(self, key: ThreadKey) -> Thread | None:
        thread = await self._call(self._get_thread, checked_key(key))
        if thread is not None and thread.damage:
            raise CorruptRecordError(thread.damage)
        return thread

    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        tenant = str(check_identifier(tenant, "tenant", may_be_empty=True))
        check_count(limit, "limit", least=1)
        after = None if cursor is None else read_listing_cursor(cursor, tenant)
        threads, more = await self._call(self._list_threads, tenant, min(limit, MAX_PAGE), after)
        return Page(tuple(threads), listing_cursor(tenant, threads[-1]) if more and threads else None)

    async def update_thread(
        self,
        key: ThreadKey,
        *,
        title: str | None = None,
        metadata: Mapping[str, object] | None = None,
        retention: Retention | Literal["inherit"] | None = None,
        expected_revision: int | None = None,
    ) -> Thread:
        check_count(expected_revision, "expected_revision", optional=True)
        change = ThreadChange(
            checked_title(title),
            checked_metadata(metadata),
            expected_revision,
            retention if retention == "inherit" else checked_retention(retention),
            self.retention,
        )
        return await self._call_to_write(self._update_thread, writable_key(key), change)

    async def restore_position(
        self, key: ThreadKey, next_seq: int, *, expected_seq: int, expire_after: timedelta | None = None
    ) -> None:
        check_restored(key, "next_seq", next_seq, expected_seq)
        expire_ms = Retention(expire_after=expire_after).expire_ms
        await self._call_to_write(self._restore_position, writable_key(key), next_seq, expected_seq, expire_ms)

    async def restore_times(self, key: ThreadKey, *, created_at: datetime, updated_at: datetime) -> Thread:
        for name, value in (("created_at", created_at), ("updated_at", updated_at)):
            if not isinstance(value, datetime):
                raise ConfigurationError(f"{name} must be a datetime, not {type(value).__name__}.")
        created_ms, updated_ms = to_milliseconds(created_at), to_milliseconds(updated_at)
        if not 0 <= created_ms <= updated_ms:
            raise ConfigurationError("updated_at must not be before created_at, nor created_at before 1970.")
        return await self._call_to_write(self._restore_times, writable_key(key), created_ms, updated_ms)

    async def delete_thread(self, key: ThreadKey, *, expected_seq: int | None = None) -> bool:
        check_count(expected_seq, "expected_seq", optional=True)
        return await self._call_to_write(self._delete_thread, writable_key(key), expected_seq)

    async def delete_tenant(self, tenant: str) -> int:
        check_identifier(tenant, "tenant", may_be_empty=True)
        check_not_reserved(tenant)
        return await self._call_to_write(self._delete_tenant, str(tenant))

    # Documents

    async def get_document(self, key: ThreadKey, name: str) -> Document | None:
        check_identifier(name, "document name")
        return await self._call(self._get_document, checked_key(key), name)

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        check_identifier(name, "document name")
        check_count(expected_revision, "expected_revision", optional=True)
        check_document(value)
        return await self._call_to_write(self._put_document, writable_key(key), name, value, expected_revision)

    async def delete_document(self, key: ThreadKey, name: str) -> bool:
        check_identifier(name, "document name")
        return await self._call_to_write(self._delete_document, writable_key(key), name)

    async def list_documents(
        self, key: ThreadKey, *, prefix: str = "", after: str | None = None, limit: int | None = None
    ) -> tuple[str, ...]:
        check_identifier(prefix, "prefix", may_be_empty=True)
        if after is not None:
            check_identifier(after, "after", may_be_empty=True)
        check_count(limit, "limit", optional=True)
        return await self._call(self._list_documents, checked_key(key), NameRange.of(prefix, after, limit))

    async def diagnose(self) -> tuple[HealthCheck, ...]:
        return ()

    # Shared

    async def _call(self, hook: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Open the store if needed, call a hook, and translate its exceptions. Every call of an engine uses this."""
        await self._ready()
        return await self._translated(hook(*args, **kwargs))

    async def _call_to_write(self, hook: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the same for a hook that writes. Raises `UnsupportedError` if the store is read-only."""
        self._check_writable()
        return await self._call(hook, *args, **kwargs)

    def _checked_skip(self, key: ThreadKey, skip_to: int, expected_seq: int | None) -> int | None:
        check_restored(key, "skip_to", skip_to, expected_seq)
        if not self.supports(SupportsImport):
            raise UnsupportedError(f"{self.location} cannot restore positions: append without skip_to.")
        return None if skip_to == expected_seq else skip_to

    def _check_writable(self) -> None:
        if self.read_only:
            raise UnsupportedError(f"{self.location} was opened with read_only=True: open it without that to write.")

    # Hooks that an engine must write

    @abstractmethod
    async def _append(self, request: AppendRequest) -> Appended:
        """Append one turn atomically. Concurrent appends to one thread take effect in the order of the calls."""

    @abstractmethod
    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage: ...

    @abstractmethod
    async def _truncate(self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None) -> Truncated: ...

    @abstractmethod
    async def _get_thread(self, key: ThreadKey) -> Thread | None: ...

    @abstractmethod
    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        """Return threads in descending order of (updated_ms, thread_id as UTF-8), below ``after``, and if more follow.

        At most ``limit``, and at least one; no more once their metadata has `PAGE_BYTES` (`_listing`).
        """

    @abstractmethod
    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread: ...

    @abstractmethod
    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None) -> bool: ...

    # Hooks for documents: an engine writes `_documents` and `_change_document`, or the other four

    async def _documents(self, key: ThreadKey) -> Mapping[str, Document]:
        """Return all documents of a thread by name; none for an unknown thread."""
        raise NotImplementedError

    async def _change_document(
        self, key: ThreadKey, name: str, value: bytes | None, expected_revision: int | None
    ) -> Document | None:
        """Store a document and return it, or delete it for ``None`` and return the deleted one, atomically.

        A document that is stored creates its thread. The revision is one more than before, and 1 for a new document.
        """
        raise NotImplementedError

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        return (await self._documents(key)).get(name)

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        document = await self._change_document(key, name, value, expected_revision)
        assert document is not None, "a stored document is returned"
        return document

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        return await self._change_document(key, name, None, None) is not None

    async def _list_documents(self, key: ThreadKey, names: NameRange) -> tuple[str, ...]:
        return names.pick(await self._documents(key))

    # Hooks that an engine may write: without the first three it lacks the ability, the others work but can be faster

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        raise UnsupportedError(f"{self.location} cannot replace stored payloads.")

    async def _restore_position(self, key: ThreadKey, next_seq: int, expected_seq: int, expire_ms: int | None) -> None:
        """Move the next position forward, unless it is ``next_seq`` already."""
        raise UnsupportedError(f"{self.location} cannot set the next position of a thread.")

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        """Set both times, and move an expiry by as much as the last activity."""
        raise UnsupportedError(f"{self.location} cannot set the times of a thread.")

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        page = await self._read(key, 0, None, 0)
        high = min(page.next_seq, MAX_SEQ if before is None else before)
        found: list[Message] = []
        width = count
        while len(found) < count and high > page.head_seq:
            # Undo leaves gaps between positions: wider ranges pass over large ones in few reads.
            low = max(high - width, page.head_seq)
            found[:0] = await self._read(key, low, high, None)
            high, width = low, width * 2
        return MessagePage(tuple(found[max(len(found) - count, 0) :]), page.head_seq, page.next_seq)

    async def _delete_tenant(self, tenant: str) -> int:
        count = 0
        while True:
            threads, _ = await self._list_threads(tenant, MAX_PAGE, None)
            deleted = sum([await self._delete_thread(thread.key, None) for thread in threads])
            count += deleted
            if not deleted:
                return count


def cannot_be_stored(request: AppendRequest, error: Exception) -> InvalidMessageError:
    """Return the error for an append that made the driver fail. Omits the cause's text, which may quote content."""
    return InvalidMessageError(f"This turn of {request.key} cannot be stored ({type(error).__name__}).")


def append_ids() -> Callable[[], str]:
    """Return a maker of ids that are unique across processes: a random part and a counter, 4 × faster than uuid4."""
    start, counter = os.urandom(9), itertools.count()
    # The process id keeps forked processes apart, which share the random part.
    prefix = base64.urlsafe_b64encode(start).decode()
    return lambda: f"{prefix}{os.getpid():x}-{next(counter):x}"
