"""Threads in this process's memory: the reference that other engines are compared with, and good for tests.

Nothing outlives the process. URL: ``memory:``; each opening has threads of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import msgspec

from everthread.contract import REMEMBERED_APPENDS, SupportsDiagnosis
from everthread.engines._base import AppendRequest, Engine, ThreadChange
from everthread.engines._importing import Importing
from everthread.engines._rewriting import Rewriting
from everthread.errors import ConfigurationError, ConflictError, EverthreadError, ThreadNotFoundError
from everthread.model import (
    Appended,
    Document,
    Fact,
    Message,
    MessagePage,
    Retention,
    Rewrite,
    Thread,
    ThreadKey,
    Truncated,
    to_milliseconds,
)
from everthread.retention import MAX_OPEN_CALLS, Span, add_span, resolve, safe_start, safe_stop
from everthread.settings import engine_options


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


class MemoryStore(Rewriting, Importing, Engine, SupportsDiagnosis):
    """Keeps threads in a dictionary.

    Args:
        threads: The dictionary, to open the same threads twice.
    """

    def __init__(self, threads: Threads | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._threads: Threads = {} if threads is None else threads

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        rest, settings = engine_options(url, options)
        if rest.rstrip("/") != "memory:":
            raise ConfigurationError("A store in memory is named memory: and has no name or options of its own.")
        return cls(**settings)

    @property
    def location(self) -> str:
        return "memory:"

    async def _open(self) -> None: ...

    async def _close(self) -> None: ...

    def _translate(self, error: Exception) -> EverthreadError | None:
        return None

    async def _append_many(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        return [self._append(request) for request in batch]

    def _append(self, request: AppendRequest) -> Appended | EverthreadError:
        log = self._log(request.key)
        if log is not None and (earlier := log.appends.get(request.append_id)) is not None:
            return msgspec.structs.replace(earlier, replayed=True)
        first = log.next_seq if log is not None else 0
        if request.expected_seq is not None and request.expected_seq != first:
            return ConflictError(f"The next position of {request.key} is {first}, not {request.expected_seq}.", first)
        if log is None:
            log = self._threads[request.key] = _Log(request.now_ms, request.now_ms)
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
            log.updated_ms = self._now_ms()
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

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Sequence[Thread]:
        live = [(key, self._log(key)) for key in list(self._threads) if key.tenant == tenant]
        threads = [_thread(key, log) for key, log in live if log is not None]
        threads.sort(key=_recency, reverse=True)
        return [thread for thread in threads if after is None or _recency(thread) < after][:limit]

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        log = self._existing(key)
        if change.expected_revision is not None and change.expected_revision != log.revision:
            raise ConflictError(f"{key} has revision {log.revision}, not {change.expected_revision}.", log.revision)
        log.title = log.title if change.title is None else change.title
        log.metadata = log.metadata if change.metadata is None else change.metadata
        if change.retention is not None:
            log.retention = change.own_retention
            log.expires_ms = None if change.expire_ms is None else log.updated_ms + change.expire_ms
        log.revision += 1
        return _thread(key, log)

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

    async def _delete_tenant(self, tenant: str) -> int:
        return sum([await self._delete_thread(key) for key in list(self._threads) if key.tenant == tenant])

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        log = self._log(key)
        return None if log is None else log.documents.get(name)

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        current = await self._get_document(key, name)
        revision = 0 if current is None else current.revision
        if expected_revision is not None and expected_revision != revision:
            raise ConflictError(f"Document {name!r} of {key} has revision {revision}.", revision)
        now = self._now_ms()
        log = self._log(key) or self._threads.setdefault(key, _Log(now, now))
        log.documents[name] = Document(name, value, revision + 1, now)
        return log.documents[name]

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        log = self._log(key)
        return log is not None and log.documents.pop(name, None) is not None

    async def _list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        log = self._log(key)
        return () if log is None else tuple(sorted(log.documents))

    async def diagnose(self) -> tuple[Fact, ...]:
        advice = "To keep threads, open a file: sqlite:///threads.db."
        return (Fact("durability", "nothing outlives this process", "warning", advice),)

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
    for span in resolve(request.links, first, log.open_calls):
        add_span(log.spans, *span)
    for call_id, _ in request.links.early_results:
        log.open_calls.pop(call_id, None)
    for call_id, at in request.links.open_calls:
        log.open_calls.pop(call_id, None)
        log.open_calls[call_id] = first + at
    while len(log.open_calls) > MAX_OPEN_CALLS:
        del log.open_calls[next(iter(log.open_calls))]
    log.next_seq = first + len(request.messages)
    log.updated_ms = request.now_ms
    log.title = log.title if log.title is not None else request.default_title
    expire = request.retention_of(log.retention).expire_ms
    log.expires_ms = None if expire is None else request.now_ms + expire


def _trim(log: _Log, retention: Retention) -> None:
    most = retention.max_messages
    if most is not None and len(log.messages) > most:
        _drop_head(log, log.messages[-most].seq if most else log.next_seq)


def _expect(key: ThreadKey, log: _Log, expected_seq: int | None) -> None:
    if expected_seq is not None and expected_seq != log.next_seq:
        raise ConflictError(f"The next position of {key} is {log.next_seq}, not {expected_seq}.", log.next_seq)


def _drop_head(log: _Log, start: int) -> None:
    if start <= log.head_seq:
        return
    start = safe_start(log.spans, start)
    log.messages = [m for m in log.messages if m.seq >= start]
    log.spans = [span for span in log.spans if span[1] >= start]
    log.open_calls = {call: at for call, at in log.open_calls.items() if at >= start}


def _recency(thread: Thread) -> tuple[int, str]:
    return thread.updated_ms, thread.key.thread_id


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
