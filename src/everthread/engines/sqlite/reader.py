"""Reads in the reading threads: each call sees one state of the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Self, TypeVar

import msgspec

from everthread.engines._listing import PAGE_BYTES, Listed, Parts, decode_metadata
from everthread.engines._names import NameRange
from everthread.engines._search import Position, hit
from everthread.engines.sqlite.connection import connect_reader
from everthread.engines.sqlite.files import OpenFiles
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.reconcile import reconcile
from everthread.engines.sqlite.schema import queries
from everthread.engines.sqlite.search import match_of
from everthread.errors import CorruptRecordError
from everthread.model import (
    MAX_SEQ,
    Document,
    Inconsistency,
    Message,
    MessagePage,
    Retention,
    SearchHit,
    Thread,
    ThreadKey,
)

NO_PAGE = MessagePage((), 0, 0)

T = TypeVar("T")


class Log(msgspec.Struct):
    """A row of ``threads``, in the order of the queries' columns."""

    id: int
    head_seq: int
    next_seq: int
    count: int
    size: int
    created_ms: int
    updated_ms: int
    expires_ms: int | None
    title: bytes | None
    revision: int
    appends: int
    retention: str | None

    def is_live(self, now_ms: int) -> bool:
        """Return whether the thread has not expired."""
        return self.expires_ms is None or self.expires_ms > now_ms

    def thread(self, key: ThreadKey, metadata: bytes | None) -> Thread:
        """Return the thread as callers see it."""
        parts = Parts(key)
        return Thread(
            key,
            self.head_seq,
            self.next_seq,
            self.count,
            self.size,
            self.created_ms,
            self.updated_ms,
            parts.decode("title", self.title, bytes.decode, None),
            parts.decode("metadata", metadata, decode_metadata, {}),
            self.revision,
            self.expires_ms,
            parts.decode("retention", self.retention, _decode_retention, None),
            parts.damage,
        )

    def own_retention(self, key: ThreadKey) -> Retention | None:
        """Return the thread's own retention.

        Raises:
            CorruptRecordError: It cannot be decoded.
        """
        parts = Parts(key)
        own = parts.decode("retention", self.retention, _decode_retention, None)
        if parts.damage:
            raise CorruptRecordError(parts.damage)
        return own


def _decode_retention(stored: str) -> Retention:
    return msgspec.json.decode(stored, type=Retention)


class Session:
    """A connection with the named statements, and lookups that reader and writer share."""

    def __init__(self, db: sqlite3.Connection, file: DatabaseFile, files: OpenFiles) -> None:
        self.db = db
        self.file = file
        self.files = files
        self.sql = queries()

    def close(self) -> None:
        self.db.close()

    def check(self) -> None:
        """Do nothing; the call only makes the worker connect."""

    def run(self, name: str, *arguments: object) -> sqlite3.Cursor:
        """Run a named statement."""
        return self.db.execute(self.sql[name], arguments)

    def find(self, key: ThreadKey) -> Log | None:
        """Return a thread's row, expired or not."""
        row = self.db.execute(self.sql["find_thread"], (key.tenant, key.thread_id)).fetchone()
        return None if row is None else Log(*row)

    def metadata(self, log: Log) -> bytes | None:
        """Return a thread's metadata as JSON, if it has any."""
        row = self.db.execute(self.sql["find_metadata"], (log.id,)).fetchone()
        return None if row is None else row[0]

    def document(self, log: Log, name: str) -> Document | None:
        """Return a document of a thread, or ``None``."""
        row = self.db.execute(self.sql["find_document"], (log.id, name)).fetchone()
        return None if row is None else Document(*row)


class Reader(Session):
    """The reading half of a store, in one of its threads."""

    @classmethod
    def open(cls, file: DatabaseFile) -> Self:
        files = OpenFiles(file.path)
        return cls(connect_reader(file), file, files)

    def look(self, function: Callable[..., T], *args: object) -> T:
        """Return the result of ``function``, unless the file was removed or replaced."""
        found = function(self, *args)
        self.files.check()
        return found

    def read(self, now_ms: int, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        return self._page("read_messages", now_ms, key, (start, stop), -1 if limit is None else limit)

    def read_last(self, now_ms: int, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        return self._page("read_last_messages", now_ms, key, (0, before), count)

    def get_thread(self, now_ms: int, key: ThreadKey) -> Thread | None:
        return self._snapshot(now_ms, key, lambda log: log.thread(key, self.metadata(log)), None)

    def list_threads(self, now_ms: int, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        name, position = ("list_first", ()) if after is None else ("list_after", after)
        threads: list[Thread] = []
        size = 0
        # Fetched one by one, so that at most a page is in memory.
        rows = self.db.execute(self.sql[name], (tenant, now_ms, *position, limit + 1))
        for row in rows:
            if len(threads) == limit or size >= PAGE_BYTES:
                rows.close()
                return threads, True
            threads.append(Log(*row[:-2]).thread(ThreadKey(row[-2], tenant), row[-1]))
            size += len(row[-1] or b"")
        return threads, False

    def list_tenants(self, after: str, limit: int) -> list[str]:
        return [tenant for (tenant,) in self.run("list_tenants", after, limit)]

    def get_document(self, now_ms: int, key: ThreadKey, name: str) -> Document | None:
        return self._snapshot(now_ms, key, lambda log: self.document(log, name), None)

    def list_documents(self, now_ms: int, key: ThreadKey, names: NameRange) -> tuple[str, ...]:
        between = (names.start, b"" if names.stop is None else names.stop)
        limit = -1 if names.limit is None else names.limit
        return self._snapshot(
            now_ms, key, lambda log: tuple(name for (name,) in self.run("list_documents", log.id, *between, limit)), ()
        )

    def search(
        self, now_ms: int, tenant: str, text: str, limit: int, after: Position | None
    ) -> Sequence[tuple[SearchHit, Position]] | None:
        """Return hits, or ``None`` if the index is not complete."""
        if not self.is_indexed():
            return None
        match = match_of(tenant, text)
        below = MAX_SEQ if after is None else after[0]
        rows = () if match is None else self.db.execute(self.sql["search"], (match, below, tenant, now_ms, limit))
        return [
            (hit(ThreadKey(found, tenant), seq, created_ms, payload=payload, format=format, query=text), (at, 0, 0))
            for found, at, seq, created_ms, format, payload in rows
        ]

    def reconcile(self) -> tuple[Inconsistency, ...]:
        """Return the inconsistencies in one state of the file. Does not block writers."""
        self.db.execute("BEGIN")
        try:
            return reconcile(self.db, repair=False)
        finally:
            if self.db.in_transaction:
                self.db.execute("COMMIT")

    def is_indexed(self) -> bool:
        """Return whether the index is complete."""
        progress = self.run("index_progress").fetchone()
        return progress is not None and progress[0] >= progress[1]

    def _page(self, query: str, now_ms: int, key: ThreadKey, span: tuple[int, int | None], limit: int) -> MessagePage:
        def look(log: Log) -> MessagePage:
            start, stop = span
            rows = self.run(query, log.id, start, log.next_seq if stop is None else stop, limit).fetchall()
            if query == "read_last_messages":
                rows.reverse()
            return MessagePage(tuple(starmap(Message, rows)), log.head_seq, log.next_seq)

        return self._snapshot(now_ms, key, look, NO_PAGE)

    def _snapshot(self, now_ms: int, key: ThreadKey, look: Callable[[Log], T], nothing: T) -> T:
        """Return the result of ``look`` for a thread in one state of the file; ``nothing`` if there is no thread."""
        self.db.execute("BEGIN")
        try:
            log = self.find(key)
            return look(log) if log is not None and log.is_live(now_ms) else nothing
        finally:
            # SQLite itself ends a transaction after an I/O failure.
            if self.db.in_transaction:
                self.db.execute("COMMIT")
