"""Threads in this process's memory: the reference that other engines are compared with, and good for tests.

Nothing outlives the process. URL: ``memory:``; each opened store has its own threads.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

import msgspec

from everthread._url_options import engine_options
from everthread.contract import REMEMBERED_APPENDS
from everthread.engines._listing import PAGE_BYTES, Listed
from everthread.engines._tenants import ListingTenants
from everthread.engines.base import AppendRequest, ThreadChange
from everthread.errors import ConfigurationError, ConflictError, ThreadNotFoundError
from everthread.messages.tool_links import Span, add_turn, safe_start, safe_stop
from everthread.model import (
    Appended,
    Document,
    HealthCheck,
    Message,
    MessagePage,
    Retention,
    Rewrite,
    Thread,
    ThreadKey,
    Truncated,
    to_milliseconds,
)


@dataclass
class _Log:
    created_ms: int
    updated_ms: int
    messages: list[Message] = field(default_factory=list[Message])
    next_seq: int = 0
    spans: list[Span] = field(default_factory=list[Span])
    open_calls: dict[str, int] = field(default_factory=dict[str, int])
    appends: dict[str, Appended] = field(default_factory=dict[str, Appended])
    title: str | None = None
    metadata: bytes = b"{}"
    revision: int = 0
    expires_ms: int | None = None
    retention: Retention | None = None
    documents: dict[str, Document] = field(default_factory=dict[str, Document])

    @property
    def head_seq(self) -> int:
        return self.messages[0].seq if self.messages else self.next_seq


Threads = dict[ThreadKey, _Log]

T = TypeVar("T")


_changing = threading.RLock()


class MemoryStore(ListingTenants):
    """Keeps threads in a dictionary.

    Args:
        threads: The dictionary, to open the same threads twice, also in event loops of several threads.
    """

    def __init__(self, threads: Threads | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._threads: Threads = {} if threads is None else threads

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        rest, settings = engine_options(url, options)
        if rest.rstrip("/") != "memory:":
            raise ConfigurationError("A store in memory is named memory: and has no name and no options.")
        return cls(**settings)

    @property
    def location(self) -> str:
        return "memory:"

    async def _translated(self, call: Awaitable[T]) -> T:
        # No hook waits, so each is one step for stores on the same threads in loops of other threads, too.
        with _changing:
            return await super()._translated(call)

    async def _append(self, request: AppendRequest) -> Appended:
        log = self._log(request.key)
        if log is not None and (earlier := log.appends.get(request.append_id)) is not None:
            return msgspec.structs.replace(earlier, replayed=True)
        at = log.next_seq if log is not None else 0
        if request.expected_seq is not None and request.expected_seq != at:
            raise ConflictError.at_position(request.key, at, request.expected_seq)
        if log is None:
            log = self._threads[request.key] = _Log(request.now_ms, request.now_ms)
        first = request.first_seq(at)
        _write(log, request, first)
        _trim(log, request.retention_of(log.retention))
        appended = Appended(first, log.next_seq)
        log.appends[request.append_id] = appended
        if len(log.appends) > REMEMBERED_APPENDS:
            del log.appends[next(iter(log.appends))]
        return appended

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        found = [m for m in self._kept(key) if m.seq >= start and (stop is None or m.seq < stop)]
        return self._page(key, found[:limit])

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        found = [m for m in self._kept(key) if before is None or m.seq < before]
        return self._page(key, found[max(len(found) - count, 0) :])

    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated:
        log = self._existing(key)
        _expect(key, log, expected_seq)
        count = len(log.messages)
        _drop_head(log, start)
        if stop is not None and stop < log.next_seq:
            stop = safe_stop(log.spans, stop)
            log.messages = [m for m in log.messages if m.seq < stop]
            log.spans = [span for span in log.spans if span[1] < stop]
            log.open_calls = {call: at for call, at in log.open_calls.items() if at < stop}
        if stop is not None:
            log.updated_ms = max(self._now_ms(), log.created_ms)
        return Truncated(count - len(log.messages), log.head_seq, log.next_seq)

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        wanted = {change.seq: change for change in changes}
        log, done = self._log(key), 0
        for index, message in enumerate(log.messages if log is not None else ()):
            change = wanted.get(message.seq)
            if log is not None and change is not None and change.old == message.payload:
                log.messages[index] = msgspec.structs.replace(message, payload=change.new)
                done += 1
        return done

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        log = self._log(key)
        return None if log is None else _thread(key, log)

    async def _list_tenants(self, after: str, limit: int) -> list[str]:
        return sorted({key.tenant for key in self._threads if key.tenant > after})

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        live = [(key, self._log(key)) for key in list(self._threads) if key.tenant == tenant]
        logs = {(log.updated_ms, key.thread_id): log for key, log in live if log is not None}
        threads: list[Thread] = []
        size = 0
        for place in sorted(logs, reverse=True):
            if after is None or place < after:
                if len(threads) == limit or size >= PAGE_BYTES:
                    return threads, True
                threads.append(_thread(ThreadKey(place[1], tenant), logs[place]))
                size += len(logs[place].metadata)
        return threads, False

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        log = self._existing(key)
        if change.expected_revision is not None and change.expected_revision != log.revision:
            raise ConflictError.at_revision(key, log.revision, change.expected_revision)
        log.title = log.title if change.title is None else change.title
        log.metadata = log.metadata if change.metadata is None else change.metadata
        if change.retention is not None:
            log.retention = change.own_retention
            log.expires_ms = None if change.expire_ms is None else log.updated_ms + change.expire_ms
        log.revision += 1
        return _thread(key, log)

    async def _restore_position(self, key: ThreadKey, next_seq: int, expected_seq: int, expire_ms: int | None) -> None:
        now = self._now_ms()
        log = self._log(key) or _Log(now, now)
        if log.next_seq == next_seq:
            return
        _expect(key, log, expected_seq)
        self._threads[key] = log
        log.next_seq, log.updated_ms = next_seq, max(now, log.created_ms)
        log.expires_ms = log.expires_ms if expire_ms is None else log.updated_ms + expire_ms

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        log = self._existing(key)
        if log.expires_ms is not None:
            log.expires_ms += updated_ms - log.updated_ms
        log.created_ms, log.updated_ms = created_ms, updated_ms
        return _thread(key, log)

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        log = self._log(key)
        if log is None:
            return False
        _expect(key, log, expected_seq)
        del self._threads[key]
        return True

    async def _documents(self, key: ThreadKey) -> Mapping[str, Document]:
        log = self._log(key)
        return {} if log is None else log.documents

    async def _change_document(
        self, key: ThreadKey, name: str, value: bytes | None, expected_revision: int | None
    ) -> Document | None:
        current = (await self._documents(key)).get(name)
        revision = 0 if current is None else current.revision
        if expected_revision is not None and expected_revision != revision:
            raise ConflictError.at_revision(f"Document {name!r} of {key}", revision, expected_revision)
        now = self._now_ms()
        if value is not None:
            log = self._log(key) or self._threads.setdefault(key, _Log(now, now))
            log.documents[name] = current = Document(name, value, revision + 1, now)
        elif current is not None:
            del self._existing(key).documents[name]
        return current

    async def diagnose(self) -> tuple[HealthCheck, ...]:
        advice = "To keep threads, open a file: sqlite:///threads.db."
        return (HealthCheck("durability", "nothing outlives this process", "warning", advice),)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _log(self, key: ThreadKey) -> _Log | None:
        log = self._threads.get(key)
        if log is not None and log.expires_ms is not None and log.expires_ms <= self._now_ms():
            del self._threads[key]
            return None
        return log

    def _existing(self, key: ThreadKey) -> _Log:
        log = self._log(key)
        if log is None:
            raise ThreadNotFoundError(f"There is no {key}.")
        return log

    def _kept(self, key: ThreadKey) -> Sequence[Message]:
        log = self._log(key)
        return () if log is None else log.messages

    def _page(self, key: ThreadKey, messages: Sequence[Message]) -> MessagePage:
        log = self._log(key)
        return MessagePage((), 0, 0) if log is None else MessagePage(tuple(messages), log.head_seq, log.next_seq)


def _write(log: _Log, request: AppendRequest, first: int) -> None:
    for seq, new in enumerate(request.messages, first):
        created = request.now_ms if new.created_at is None else to_milliseconds(new.created_at)
        log.messages.append(Message(seq, new.payload, new.format, created, first))
    add_turn(log.spans, log.open_calls, request.links, first)
    log.next_seq = first + len(request.messages)
    # The clock may have been set back since the thread was begun.
    log.updated_ms = max(request.now_ms, log.created_ms)
    if first == 0 and log.title is None:
        log.title = request.default_title
    expire = request.retention_of(log.retention).expire_ms
    log.expires_ms = None if expire is None else log.updated_ms + expire


def _trim(log: _Log, retention: Retention) -> None:
    most = retention.max_messages
    if most is not None and len(log.messages) > most:
        _drop_head(log, log.messages[-most].seq if most else log.next_seq)


def _expect(key: ThreadKey, log: _Log, expected_seq: int | None) -> None:
    if expected_seq is not None and expected_seq != log.next_seq:
        raise ConflictError.at_position(key, log.next_seq, expected_seq)


def _drop_head(log: _Log, start: int) -> None:
    if start <= log.head_seq:
        return
    start = safe_start(log.spans, start)
    log.messages = [m for m in log.messages if m.seq >= start]
    log.spans = [span for span in log.spans if span[1] >= start]
    log.open_calls = {call: at for call, at in log.open_calls.items() if at >= start}


def _thread(key: ThreadKey, log: _Log) -> Thread:
    return Thread(
        key,
        log.head_seq,
        log.next_seq,
        len(log.messages),
        sum(len(m.payload) for m in log.messages),
        log.created_ms,
        log.updated_ms,
        log.title,
        cast(Mapping[str, object], msgspec.json.decode(log.metadata)),
        log.revision,
        log.expires_ms,
        log.retention,
    )
