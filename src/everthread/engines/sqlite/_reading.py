"""What the reading threads do: each call sees one state of the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from typing import Any, Self, TypeVar, cast

import msgspec

from everthread.engines._search import Position, hit
from everthread.engines.sqlite._database import Place, connect_reader
from everthread.engines.sqlite._searching import match_of
from everthread.engines.sqlite._sql import queries
from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import MAX_SEQ, Document, Message, MessagePage, Retention, SearchHit, Thread, ThreadKey

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
    title: str | None
    revision: int
    appends: int
    retention: str | None

    def is_live(self, now_ms: int) -> bool:
        """Whether it has not expired."""
        return self.expires_ms is None or self.expires_ms > now_ms

    def thread(self, key: ThreadKey, metadata: bytes | None) -> Thread:
        """What callers see of it."""
        return Thread(
            key,
            self.head_seq,
            self.next_seq,
            self.count,
            self.size,
            self.created_ms,
            self.updated_ms,
            self.title,
            _decoded(key, metadata),
            self.revision,
            self.expires_ms,
            self.own_retention(key),
        )

    def own_retention(self, key: ThreadKey) -> Retention | None:
        """What was set on the thread itself.

        Raises:
            CorruptRecordError: It cannot be decoded.
        """
        if self.retention is None:
            return None
        try:
            return msgspec.json.decode(self.retention, type=Retention)
        except (msgspec.MsgspecError, ConfigurationError, TypeError):
            raise CorruptRecordError(f"The retention of {key} cannot be read: set it anew.") from None


def _decoded(key: ThreadKey, metadata: bytes | None) -> Mapping[str, object]:
    if metadata is None:
        return {}
    try:
        return cast(Mapping[str, object], msgspec.json.decode(metadata, type=dict[str, Any]))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CorruptRecordError(f"The metadata of {key} is not a JSON object.") from None


class Session:
    """A connection with the named statements, and what reader and writer both look up."""

    def __init__(self, db: sqlite3.Connection, place: Place) -> None:
        self.db = db
        self.place = place
        self.sql = queries()

    def close(self) -> None:
        self.db.close()

    def run(self, name: str, *arguments: object) -> sqlite3.Cursor:
        """Runs a named statement."""
        return self.db.execute(self.sql[name], arguments)

    def find(self, key: ThreadKey) -> Log | None:
        """A thread's row, expired or not."""
        row = self.db.execute(self.sql["find_thread"], (key.tenant, key.thread_id)).fetchone()
        return None if row is None else Log(*row)

    def metadata(self, log: Log) -> bytes | None:
        """A thread's metadata as JSON, if it has any."""
        row = self.db.execute(self.sql["find_metadata"], (log.id,)).fetchone()
        return None if row is None else row[0]

    def document(self, log: Log, name: str) -> Document | None:
        """A document of a thread, if it has it."""
        row = self.db.execute(self.sql["find_document"], (log.id, name)).fetchone()
        return None if row is None else Document(*row)


class Reader(Session):
    """The reading half of a store, in one of its threads."""

    @classmethod
    def open(cls, place: Place) -> Self:
        return cls(connect_reader(place), place)

    def read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None, now_ms: int) -> MessagePage:
        def look(log: Log) -> MessagePage:
            return _page(log, self._rows("read_messages", log, start, stop, -1 if limit is None else limit))

        return self._snapshot(key, now_ms, look, NO_PAGE)

    def read_last(self, key: ThreadKey, count: int, before: int | None, now_ms: int) -> MessagePage:
        def look(log: Log) -> MessagePage:
            rows = self._rows("read_last_messages", log, 0, before, count)
            rows.reverse()
            return _page(log, rows)

        return self._snapshot(key, now_ms, look, NO_PAGE)

    def get_thread(self, key: ThreadKey, now_ms: int) -> Thread | None:
        return self._snapshot(key, now_ms, lambda log: log.thread(key, self.metadata(log)), None)

    def list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None, now_ms: int) -> Sequence[Thread]:
        name, position = ("list_first", ()) if after is None else ("list_after", after)
        rows = self.db.execute(self.sql[name], (tenant, now_ms, *position, limit)).fetchall()
        return [Log(*row[:-2]).thread(ThreadKey(row[-2], tenant), row[-1]) for row in rows]

    def get_document(self, key: ThreadKey, name: str, now_ms: int) -> Document | None:
        return self._snapshot(key, now_ms, lambda log: self.document(log, name), None)

    def list_documents(self, key: ThreadKey, now_ms: int) -> tuple[str, ...]:
        def look(log: Log) -> tuple[str, ...]:
            return tuple(name for (name,) in self.db.execute(self.sql["list_documents"], (log.id,)))

        return self._snapshot(key, now_ms, look, ())

    def search(
        self, tenant: str, text: str, limit: int, after: Position | None, now_ms: int
    ) -> Sequence[tuple[SearchHit, Position]] | None:
        """Hits, or ``None`` where the index is still to be built."""
        if not self.is_indexed():
            return None
        match = match_of(tenant, text)
        below = MAX_SEQ if after is None else after[0]
        rows = () if match is None else self.db.execute(self.sql["search"], (match, below, tenant, now_ms, limit))
        return [
            (hit(ThreadKey(found, tenant), seq, created_ms, payload=payload, format=format, query=text), (at, 0, 0))
            for found, at, seq, created_ms, format, payload in rows
        ]

    def is_indexed(self) -> bool:
        """Whether a search finds its index whole."""
        progress = self.run("index_progress").fetchone()
        return progress is not None and progress[0] >= progress[1]

    def _snapshot(self, key: ThreadKey, now_ms: int, look: Callable[[Log], T], nothing: T) -> T:
        """What ``look`` finds of a thread, all of it in one state of the file; ``nothing`` for no thread."""
        self.db.execute("BEGIN")
        try:
            log = self.find(key)
            return look(log) if log is not None and log.is_live(now_ms) else nothing
        finally:
            # SQLite itself ends a transaction in which the file failed.
            if self.db.in_transaction:
                self.db.execute("COMMIT")

    def _rows(self, query: str, log: Log, start: int, stop: int | None, limit: int) -> list[Any]:
        below = log.next_seq if stop is None else stop
        return self.db.execute(self.sql[query], (log.id, start, below, limit)).fetchall()


def _page(log: Log, rows: list[Any]) -> MessagePage:
    return MessagePage(tuple(starmap(Message, rows)), log.head_seq, log.next_seq)
