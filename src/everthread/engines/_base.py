"""What all engines share: checking arguments, opening once, coalescing appends, translating errors.

An engine is the hooks at the end. They get arguments that have been checked, are called only
while the store is open, and may let driver exceptions out: `_translate` types them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

import msgspec

from everthread._arguments import (
    check_document,
    checked_key,
    checked_metadata,
    checked_retention,
    checked_title,
    checked_turn,
)
from everthread.contract import Store
from everthread.engines._coalescing import Coalescer
from everthread.errors import ConfigurationError, EverthreadError
from everthread.model import (
    Appended,
    Document,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Thread,
    ThreadKey,
    Truncated,
    check_count,
    check_identifier,
)
from everthread.retention import NO_LINKS, TurnLinks, links_of

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_PAGE = 1000

T = TypeVar("T")


class AppendRequest(msgspec.Struct, frozen=True):
    """One append as an engine gets it: checked, with an id, its links worked out.

    Attributes:
        retention: What holds for this append, unless the thread has its own and ``overrides`` is false.
        overrides: The caller gave the retention with this append, so it goes before the thread's own.
        now_ms: The time by this process's clock, for engines whose storage has no clock.
        is_new_id: The id was made for this append, so no earlier one can have had it.
    """

    key: ThreadKey
    messages: tuple[NewMessage, ...]
    links: TurnLinks
    append_id: str
    expected_seq: int | None
    retention: Retention
    default_title: str | None
    now_ms: int
    is_new_id: bool = False
    overrides: bool = False

    def retention_of(self, own: Retention | None) -> Retention:
        """What holds for this append to a thread with the retention ``own``."""
        return self.retention if self.overrides or own is None else own


class ThreadChange(msgspec.Struct, frozen=True):
    """What ``update_thread`` changes; ``metadata`` as JSON. ``None`` leaves a thing as it is.

    Attributes:
        store_retention: What holds for a thread that has none of its own.
    """

    title: str | None
    metadata: bytes | None
    expected_revision: int | None
    retention: Retention | Literal["inherit"] | None = None
    store_retention: Retention = Retention()

    @property
    def own_retention(self) -> Retention | None:
        """The thread's own after the change, where ``retention`` is given."""
        return self.retention if isinstance(self.retention, Retention) else None

    @property
    def expire_ms(self) -> int | None:
        """How long after its last activity the thread expires after the change, where ``retention`` is given."""
        return (self.own_retention or self.store_retention).expire_ms


class BaseEngine(Store):
    """Base of all engines; of those whose appends gain from going together `Engine` is.

    Args:
        retention: What this store forgets, unless an append says otherwise.
        max_message_bytes: Larger payloads are refused with `LimitExceededError`.
        clock: Seconds since 1970.
        new_id: Makes append ids for appends that come without.
    """

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        check_count(max_message_bytes, "max_message_bytes", least=1)
        self.retention = checked_retention(retention) or Retention()
        self.max_message_bytes = max_message_bytes
        self._clock = clock
        self._new_id = new_id or append_ids()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._is_open = False
        self._is_closed = False
        self._must_close = False

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """The store that a URL names. Does no I/O. Keyword options override those in the URL."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"

    # Opening and closing

    async def open(self) -> None:
        if self._is_open:
            self._check_loop()
            return
        self._check_not_closed()
        if not self._opening.locked():
            # After an opening that failed the next try may come from another loop.
            self._loop = asyncio.get_running_loop()
        self._check_loop()
        async with self._opening:
            self._check_not_closed()
            if not self._must_close:
                await self._translated(self._open())
                self._must_close = True
            self._is_open = not self._is_closed
        self._check_not_closed()

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise ConfigurationError(f"This store ({self.location}) was closed: open a new one.")

    async def aclose(self) -> None:
        if self._must_close:
            self._check_loop()
        # Nothing new begins from here on; an opening that is under way is waited for.
        self._is_closed, self._is_open = True, False
        async with self._opening:
            if self._must_close:
                await self._translated(self._finish())
                # Only now, so that a closing which was cancelled can be asked for again.
                self._must_close = False

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                "This store was opened in another event loop: open one store for each loop (one asyncio.run)."
            )

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
    ) -> Appended:
        turn = checked_turn(checked_key(key), messages, self.max_message_bytes)
        check_count(expected_seq, "expected_seq", optional=True)
        if append_id is not None:
            check_identifier(append_id, "append_id")
        request = AppendRequest(
            key,
            turn,
            _links(turn),
            append_id or self._new_id(),
            expected_seq,
            checked_retention(retention) or self.retention,
            checked_title(default_title),
            int(self._clock() * 1000),
            append_id is None,
            retention is not None,
        )
        await self._ready()
        return await self._translated(self._append_one(request))

    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        check_count(start, "start")
        check_count(stop, "stop", optional=True)
        check_count(limit, "limit", optional=True)
        return await self._call(self._read(checked_key(key), start, stop, limit))

    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        check_count(count, "count")
        check_count(before, "before", optional=True)
        return await self._call(self._read_last(checked_key(key), count, before))

    async def truncate(
        self, key: ThreadKey, *, start: int | None = None, stop: int | None = None, expected_seq: int | None = None
    ) -> Truncated:
        check_count(start, "start", optional=True)
        check_count(stop, "stop", optional=True)
        check_count(expected_seq, "expected_seq", optional=True)
        if start is None and stop is None:
            raise ConfigurationError("truncate needs start (drop the head), stop (drop the tail), or both.")
        if expected_seq is None:
            return await self._call(self._truncate(checked_key(key), start or 0, stop))
        return await self._call(self._truncate(checked_key(key), start or 0, stop, expected_seq))

    # Threads

    async def get_thread(self, key: ThreadKey) -> Thread | None:
        return await self._call(self._get_thread(checked_key(key)))

    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        check_count(limit, "limit", least=1)
        after = None if cursor is None else _read_cursor(cursor, tenant)
        limit = min(limit, MAX_PAGE)
        threads = await self._call(self._list_threads(tenant, limit, after))
        more = _cursor(tenant, threads[-1]) if len(threads) == limit else None
        return Page(tuple(threads), more)

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
        return await self._call(self._update_thread(checked_key(key), change))

    async def delete_thread(self, key: ThreadKey, *, expected_seq: int | None = None) -> bool:
        check_count(expected_seq, "expected_seq", optional=True)
        if expected_seq is None:
            return await self._call(self._delete_thread(checked_key(key)))
        return await self._call(self._delete_thread(checked_key(key), expected_seq))

    async def delete_tenant(self, tenant: str) -> int:
        check_identifier(tenant, "tenant", may_be_empty=True)
        return await self._call(self._delete_tenant(tenant))

    # Documents

    async def get_document(self, key: ThreadKey, name: str) -> Document | None:
        check_identifier(name, "document name")
        return await self._call(self._get_document(checked_key(key), name))

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        check_identifier(name, "document name")
        check_count(expected_revision, "expected_revision", optional=True)
        check_document(value)
        return await self._call(self._put_document(checked_key(key), name, value, expected_revision))

    async def delete_document(self, key: ThreadKey, name: str) -> bool:
        check_identifier(name, "document name")
        return await self._call(self._delete_document(checked_key(key), name))

    async def list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        return await self._call(self._list_documents(checked_key(key)))

    # Shared

    async def _ready(self) -> None:
        if not self._is_open or self._loop is not asyncio.get_running_loop():
            await self.open()

    async def _call(self, hook: Coroutine[Any, Any, T]) -> T:
        try:
            await self._ready()
        except BaseException:
            hook.close()
            raise
        return await self._translated(hook)

    async def _translated(self, hook: Coroutine[Any, Any, T]) -> T:
        try:
            return await hook
        except EverthreadError:
            raise
        except Exception as error:
            translated = self._translate(error)
            if translated is None:
                raise
            raise translated from None

    async def _finish(self) -> None:
        await self._close()

    # The hooks of an engine

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def _translate(self, error: Exception) -> EverthreadError | None:
        """The typed error for a driver's exception, or ``None`` for a bug, which stays as it is."""

    @abstractmethod
    async def _append_one(self, request: AppendRequest) -> Appended:
        """Carries out an append. Many may be under way; those to one thread take effect in the order of the calls."""

    @abstractmethod
    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage: ...

    @abstractmethod
    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage: ...

    @abstractmethod
    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated: ...

    @abstractmethod
    async def _get_thread(self, key: ThreadKey) -> Thread | None: ...

    @abstractmethod
    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Sequence[Thread]:
        """Threads in descending order of (updated_ms, thread_id as UTF-8), below ``after``."""

    @abstractmethod
    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread: ...

    @abstractmethod
    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool: ...

    @abstractmethod
    async def _delete_tenant(self, tenant: str) -> int: ...

    @abstractmethod
    async def _get_document(self, key: ThreadKey, name: str) -> Document | None: ...

    @abstractmethod
    async def _put_document(
        self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None
    ) -> Document: ...

    @abstractmethod
    async def _delete_document(self, key: ThreadKey, name: str) -> bool: ...

    @abstractmethod
    async def _list_documents(self, key: ThreadKey) -> tuple[str, ...]: ...


class Engine(BaseEngine):
    """Base of the engines that send together the appends that wait at the same time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._appends: Coalescer[AppendRequest, Appended] = Coalescer(self._append_translated)

    async def _append_one(self, request: AppendRequest) -> Appended:
        return await self._appends.submit(request)

    async def _append_translated(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        return await self._translated(self._append_many(batch))

    async def _finish(self) -> None:
        await self._appends.drain()
        await super()._finish()

    @abstractmethod
    async def _append_many(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        """Carries out appends together; each succeeds or fails by itself, in order."""


def append_ids() -> Callable[[], str]:
    """A maker of ids that are unique across processes: random once, then counted (4 × faster than uuid4)."""
    start, counter = os.urandom(9), itertools.count()
    # Thread ids of forks differ although they share the random part.
    prefix = base64.urlsafe_b64encode(start).decode()
    return lambda: f"{prefix}{os.getpid():x}-{next(counter):x}"


def _links(turn: Sequence[NewMessage]) -> TurnLinks:
    if not any(message.calls or message.results for message in turn):
        return NO_LINKS
    return links_of((message.calls, message.results) for message in turn)


def _cursor(tenant: str, last: Thread) -> str:
    data = msgspec.json.encode((tenant, last.updated_ms, last.key.thread_id))
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read_cursor(cursor: str, tenant: str) -> tuple[int, str]:
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        of, updated_ms, thread_id = msgspec.json.decode(data, type=tuple[str, int, str])
    except (msgspec.MsgspecError, binascii.Error, ValueError, TypeError):
        raise ConfigurationError("This is not a cursor that list_threads gave: start again without one.") from None
    check_count(updated_ms, "The cursor's time")
    if of != tenant:
        raise ConfigurationError("This cursor is of another tenant's listing: start again without one.")
    return updated_ms, thread_id
