"""A complete engine: each thread is one JSON file in a folder.

    async with JsonFiles("talks") as store:
        await store.append(ThreadKey("trip"), [new_message({"role": "user", "content": "Hello"})])

Every change rewrites the file of its thread, so this engine suits short threads. It does its work in the event loop. An
engine for long threads appends instead, and an engine for slow storage awaits a driver or a worker thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from everthread import Appended, Document, Message, MessagePage, Retention, Thread, ThreadKey, Truncated
from everthread.contract import REMEMBERED_APPENDS
from everthread.engines.base import PAGE_BYTES, AppendRequest, Engine, Listed, ThreadChange, engine_options
from everthread.errors import (
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from everthread.messages.tool_links import Span, add_turn, safe_start, safe_stop
from everthread.model import to_milliseconds


class Entry(msgspec.Struct):
    """A stored message. The payload is a string, so that JSON files hold it byte for byte."""

    seq: int
    payload: str
    format: str
    created_ms: int | None
    turn: int


class Log(msgspec.Struct):
    """The content of a thread's file. ``spans`` and ``open_calls`` link tool calls and results."""

    key: ThreadKey
    created_ms: int
    updated_ms: int
    next_seq: int = 0
    messages: list[Entry] = []
    spans: list[Span] = []
    open_calls: dict[str, int] = {}
    appends: dict[str, tuple[int, int]] = {}
    title: str | None = None
    metadata: str = "{}"
    revision: int = 0
    expires_ms: int | None = None
    retention: Retention | None = None
    documents: dict[str, tuple[str, int, int]] = {}

    @property
    def head_seq(self) -> int:
        return self.messages[0].seq if self.messages else self.next_seq

    def expire_after(self, milliseconds: int | None) -> None:
        self.expires_ms = None if milliseconds is None else self.updated_ms + milliseconds

    def check_position(self, expected_seq: int | None) -> None:
        if expected_seq is not None and expected_seq != self.next_seq:
            raise ConflictError.at_position(self.key, self.next_seq, expected_seq)

    def keep(self, start: int, stop: int) -> None:
        """Keep the positions from ``start`` to ``stop``; no result loses its call."""
        if start > self.head_seq:
            start = safe_start(self.spans, start)
        if stop < self.next_seq:
            stop = safe_stop(self.spans, stop)
        self.messages = [each for each in self.messages if start <= each.seq < stop]
        self.spans = [span for span in self.spans if start <= span[1] < stop]
        self.open_calls = {call: at for call, at in self.open_calls.items() if start <= at < stop}

    def page(self, messages: list[Entry]) -> MessagePage:
        found = [Message(m.seq, m.payload.encode(), m.format, m.created_ms, m.turn) for m in messages]
        return MessagePage(tuple(found), self.head_seq, self.next_seq)

    def thread(self) -> Thread:
        return Thread(
            self.key,
            self.head_seq,
            self.next_seq,
            len(self.messages),
            sum(len(message.payload.encode()) for message in self.messages),
            self.created_ms,
            self.updated_ms,
            self.title,
            msgspec.json.decode(self.metadata, type=dict[str, Any]),
            self.revision,
            self.expires_ms,
            self.retention,
        )


class JsonFiles(Engine):
    """Stores each thread as a JSON file.

    Args:
        folder: The folder of the files. It is created unless the store is opened with ``read_only=True``.
        options: The options of every engine: see `Engine`.
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(**options)
        self._folder = Path(folder)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        rest, settings = engine_options(url, options)
        return cls(rest.partition("://")[2], **settings)

    @property
    def location(self) -> str:
        return f"jsonfiles://{self._folder}"

    async def _open(self) -> None:
        if self.read_only and not self._folder.is_dir():
            raise ConfigurationError(f"There is no folder {self._folder}.")
        if not self.read_only:
            self._folder.mkdir(parents=True, exist_ok=True)

    def _translate(self, error: Exception) -> EverthreadError | None:
        if isinstance(error, OSError):
            return StoreUnavailableError(f"{self._folder} cannot be read or written: {error.strerror}.")
        return None

    # Files. No hook waits, so each runs in one step of the event loop and calls keep their order.

    def _path(self, key: ThreadKey) -> Path:
        # Digests, because an identifier may be longer than a file name and contain any character.
        names = [hashlib.sha256(name.encode()).hexdigest() for name in (key.tenant, key.thread_id)]
        return self._folder / names[0] / f"{names[1]}.json"

    def _load(self, path: Path) -> Log | None:
        try:
            log = msgspec.json.decode(path.read_bytes(), type=Log)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            raise CorruptRecordError(f"The file {path} cannot be decoded.") from None
        return None if log.expires_ms is not None and log.expires_ms <= self._now() else log

    @contextmanager
    def _changing(self, key: ThreadKey, *, create: bool = False) -> Generator[Log | None]:
        """Lock a thread, give its content, and replace its file if the block ends without an error."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        with (path.parent / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            log = self._load(path)
            if log is None and create:
                log = Log(key, self._now(), self._now())
            yield log
            if log is not None:
                new = path.with_suffix(".new")
                with new.open("wb") as file:
                    file.write(msgspec.json.encode(log))
                    file.flush()
                    os.fsync(file.fileno())
                # Readers see the former file or the new one, whole, also after a crash.
                new.replace(path)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    # Messages

    async def _append(self, request: AppendRequest) -> Appended:
        with self._changing(request.key, create=True) as log:
            assert log is not None
            if (earlier := log.appends.get(request.append_id)) is not None:
                return Appended(*earlier, replayed=True)
            log.check_position(request.expected_seq)
            first = log.next_seq
            for seq, new in enumerate(request.messages, first):
                created = request.now_ms if new.created_at is None else to_milliseconds(new.created_at)
                log.messages.append(Entry(seq, new.payload.decode(), new.format, created, first))
            add_turn(log.spans, log.open_calls, request.links, first)
            log.next_seq = first + len(request.messages)
            log.updated_ms = max(request.now_ms, log.created_ms)
            if first == 0 and log.title is None:
                log.title = request.default_title
            retention = request.retention_of(log.retention)
            log.expire_after(retention.expire_ms)
            most = retention.max_messages
            if most is not None and len(log.messages) > most:
                log.keep(log.messages[-most].seq if most else log.next_seq, log.next_seq)
            log.appends[request.append_id] = (first, log.next_seq)
            if len(log.appends) > REMEMBERED_APPENDS:
                del log.appends[next(iter(log.appends))]
            return Appended(first, log.next_seq)

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        log = self._load(self._path(key))
        if log is None:
            return MessagePage((), 0, 0)
        return log.page([m for m in log.messages if start <= m.seq and (stop is None or m.seq < stop)][:limit])

    async def _truncate(self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None) -> Truncated:
        with self._changing(key) as log:
            if log is None:
                raise ThreadNotFoundError(f"There is no {key}.")
            log.check_position(expected_seq)
            count = len(log.messages)
            log.keep(start, log.next_seq if stop is None else stop)
            if stop is not None:
                log.updated_ms = max(self._now(), log.created_ms)
            return Truncated(count - len(log.messages), log.head_seq, log.next_seq)

    # Threads

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        log = self._load(self._path(key))
        return None if log is None else log.thread()

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        logs: dict[tuple[int, bytes], Log] = {}
        for path in self._path(ThreadKey("any", tenant)).parent.glob("*.json"):
            try:
                log = self._load(path)
            except CorruptRecordError as error:
                # A damaged file must not hide the other threads.
                logging.getLogger("everthread").warning("A thread is not listed: %s", error)
                continue
            if log is not None:
                logs[log.updated_ms, log.key.thread_id.encode()] = log
        below = None if after is None else (after[0], after[1].encode())
        page, size = list[Thread](), 0
        for place in sorted((each for each in logs if below is None or each < below), reverse=True):
            if len(page) == limit or size >= PAGE_BYTES:
                return page, True
            page.append(logs[place].thread())
            size += len(logs[place].metadata)
        return page, False

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        with self._changing(key) as log:
            if log is None:
                raise ThreadNotFoundError(f"There is no {key}.")
            if change.expected_revision not in (None, log.revision):
                raise ConflictError.at_revision(key, log.revision, change.expected_revision)
            log.title = log.title if change.title is None else change.title
            log.metadata = log.metadata if change.metadata is None else change.metadata.decode()
            if change.retention is not None:
                log.retention = change.own_retention
                log.expire_after(change.expire_ms)
            log.revision += 1
            return log.thread()

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None) -> bool:
        path = self._path(key)
        if not path.exists():
            return False
        with (path.parent / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            log = self._load(path)
            if log is not None:
                log.check_position(expected_seq)
            path.unlink(missing_ok=True)
            return log is not None

    # Documents

    async def _documents(self, key: ThreadKey) -> Mapping[str, Document]:
        log = self._load(self._path(key))
        stored = {} if log is None else log.documents
        return {name: Document(name, value.encode(), *rest) for name, (value, *rest) in stored.items()}

    async def _change_document(
        self, key: ThreadKey, name: str, value: bytes | None, expected_revision: int | None
    ) -> Document | None:
        with self._changing(key, create=value is not None) as log:
            if log is None:
                return None
            former = log.documents.pop(name, None)
            if value is None:
                return None if former is None else Document(name, former[0].encode(), *former[1:])
            revision = 0 if former is None else former[1]
            if expected_revision not in (None, revision):
                raise ConflictError.at_revision(f"Document {name!r} of {key}", revision, expected_revision)
            log.documents[name] = (value.decode(), revision + 1, self._now())
            return Document(name, value, revision + 1, log.documents[name][2])
