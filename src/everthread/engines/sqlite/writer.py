"""Changes in the writing thread: each call is one transaction, also for many appends."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Self

import msgspec

from everthread.contract import REMEMBERED_APPENDS
from everthread.engines.base import AppendRequest, ThreadChange, cannot_be_stored
from everthread.engines.sqlite.connection import connect_writer, create_file
from everthread.engines.sqlite.files import OpenFiles
from everthread.engines.sqlite.garbage import ROWS_AT_ONCE
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.reader import Log
from everthread.engines.sqlite.reconcile import reconcile
from everthread.engines.sqlite.search import Index
from everthread.engines.sqlite.transactions import Transactions
from everthread.errors import (
    ConflictError,
    EverthreadError,
    ThreadNotFoundError,
)
from everthread.messages.tool_links import MAX_OPEN_CALLS, Span, TurnLinks, add_span, resolve, safe_start, safe_stop
from everthread.model import (
    Appended,
    Document,
    Inconsistency,
    Retention,
    Rewrite,
    Thread,
    ThreadKey,
    Truncated,
    to_milliseconds,
)


class Writer(Transactions):
    """The writing half of a store, in its thread."""

    def __init__(self, db: sqlite3.Connection, file: DatabaseFile, files: OpenFiles) -> None:
        super().__init__(db, file, files)
        self._index = Index(self)

    @classmethod
    def open(cls, file: DatabaseFile) -> Self:
        create_file(file)
        files = OpenFiles(file.path)
        db = connect_writer(file)
        files.watch_log()
        return cls(db, file, files)

    def sweep(self) -> bool:
        """Remove some rows of deleted threads; return whether there may be more."""
        return self.commit(self._garbage.sweep)

    def erase_some(self, is_first: bool) -> bool:
        """Remove some words of deleted messages from the index; return whether there is more to do."""
        return self.commit(self._index.erase_some, is_first=is_first)

    def empty_log(self) -> bool:
        """Move the log into the file and truncate it; return whether no reader prevented it."""
        self.files.check()
        (is_busy, *_) = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._growth.begin_again()
        return not is_busy

    def index_some(self) -> tuple[int, int]:
        """Turn search on, and index some of the older messages; return how many, and how many remain."""
        return self.commit(self._index.make_some)

    def repair(self) -> tuple[Inconsistency, ...]:
        """Repair all inconsistencies and return them."""
        return self.commit(partial(reconcile, self.db, repair=True))

    # Appending

    def append(self, now_ms: int, request: AppendRequest) -> Appended | EverthreadError:
        try:
            return self._append(request)
        except (sqlite3.Error, EverthreadError):
            raise
        except Exception as error:
            raise cannot_be_stored(request, error) from None

    def _append(self, request: AppendRequest) -> Appended | EverthreadError:
        log = self._live(request.key, request.now_ms)
        at = 0 if log is None else log.next_seq
        if request.expected_seq is not None and request.expected_seq != at:
            return self._earlier(log, request) or ConflictError.at_position(request.key, at, request.expected_seq)
        first = request.first_seq(at)
        stop = first + len(request.messages)
        if log is None:
            log = self._begin(request.key, request.now_ms)
        # A new ID cannot be a repeat: a failed transaction left nothing.
        if not request.is_new_id and (earlier := self._remember(log, request, Appended(first, stop))):
            return earlier
        retention = request.retention_of(log.own_retention(request.key))
        self._write(log, request, first)
        log.expires_ms = _after(log.updated_ms, retention)
        self._trim(log, retention)
        self._save(log, default_title=None if first else request.default_title)
        return Appended(first, stop)

    def _remember(self, log: Log, request: AppendRequest, appended: Appended) -> Appended | None:
        """Store the append ID, or return the result of an earlier append with this ID."""
        arguments = log.id, request.append_id, appended.first_seq, appended.next_seq
        if not self.run("remember_append", *arguments).rowcount:
            return self._earlier(log, request)
        log.appends += 1
        if log.appends > 2 * REMEMBERED_APPENDS:
            # Deletes rarely and many rows together: to find the newest IDs, it reads all.
            self.run("forget_appends", log.id, log.id, REMEMBERED_APPENDS)
            log.appends = REMEMBERED_APPENDS
        return None

    def _earlier(self, log: Log | None, request: AppendRequest) -> Appended | None:
        row = None if log is None else self.run("find_append", log.id, request.append_id).fetchone()
        return None if row is None else Appended(*row, replayed=True)

    def _write(self, log: Log, request: AppendRequest, first: int) -> None:
        tied = self._link(log, request.links, first)
        rows = [
            (
                log.id,
                seq,
                first,
                seq in tied,
                request.now_ms if new.created_at is None else to_milliseconds(new.created_at),
                new.format,
                new.payload,
            )
            for seq, new in enumerate(request.messages, first)
        ]
        self.db.executemany(self.sql["add_message"], rows)
        if self._index.is_kept:
            self._index.add(request.key.tenant, log.id, first, request.messages)
        log.head_seq = log.head_seq if log.count else first
        log.next_seq = first + len(rows)
        log.count += len(rows)
        log.size += sum(len(new.payload) for new in request.messages)
        log.updated_ms = max(request.now_ms, log.created_ms)

    def _link(self, log: Log, links: TurnLinks, first: int) -> set[int]:
        """Store open calls and spans that reach back; return the turn's linked positions."""
        tied: set[int] = set()
        reaching_back: list[Span] = []
        for lo, hi in resolve(links, first, self._take_open_calls(log, links)):
            # Most spans lie within the turn: a mark in rows that are written anyway is free.
            if lo + 1 >= first:
                tied.update(range(lo + 1, hi + 1))
            else:
                reaching_back.append((lo, hi))
        if reaching_back:
            self._merge_spans(log, reaching_back)
        for call_id, at in links.open_calls:
            self.run("add_open_call", log.id, call_id, first + at)
        if links.open_calls:
            self.run("forget_open_calls", log.id, log.id, MAX_OPEN_CALLS)
        return tied

    def _take_open_calls(self, log: Log, links: TurnLinks) -> dict[str, int]:
        called: dict[str, int] = {}
        for call_id, _ in links.early_results:
            # Fetched to the end: only then has the statement run.
            for (seq,) in self.run("take_open_call", log.id, call_id).fetchall():
                called[call_id] = seq
        return called

    def _merge_spans(self, log: Log, new: Sequence[Span]) -> None:
        lowest = min(lo for lo, _ in new)
        spans = sorted(self.run("take_spans", log.id, lowest).fetchall(), key=lambda span: span[1])
        for span in new:
            add_span(spans, *span)
        for span in spans:
            self.run("add_span", log.id, *span)

    # Cutting

    def _trim(self, log: Log, retention: Retention) -> None:
        most = retention.max_messages
        if most is None or log.count <= most:
            return
        # Counted from the head, over just the rows that are then removed.
        self._drop_head(log, self._nth(log, log.head_seq, log.count - most))

    def truncate(
        self, now_ms: int, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None
    ) -> Truncated:
        log = self._existing(key, now_ms)
        _expect(key, log, expected_seq)
        before = copy(log)
        self._drop_head(log, min(start, log.next_seq))
        if stop is not None and stop < log.next_seq:
            stop = self._safe(log, stop, "ties_downward", -1, safe_stop)
            self._drop_messages(log, stop, log.next_seq)
            self.run("drop_spans_from", log.id, stop)
            self.run("drop_open_calls_from", log.id, stop)
        if stop is not None:
            log.updated_ms = max(now_ms, log.created_ms)
        if log != before:
            self._save(log)
        return Truncated(before.count - log.count, log.head_seq, log.next_seq)

    def _drop_head(self, log: Log, start: int) -> None:
        if start <= log.head_seq:
            return
        start = self._safe(log, start, "ties_upward", 1, safe_start)
        self._drop_messages(log, log.head_seq, start)
        self.run("drop_spans_below", log.id, start)
        self.run("drop_open_calls_below", log.id, start)

    def _drop_messages(self, log: Log, start: int, stop: int) -> None:
        sizes = self.run("drop_messages", log.id, start, stop).fetchall()
        log.count -= len(sizes)
        log.size -= sum(size for (size,) in sizes)
        log.head_seq = self._nth(log, log.head_seq, 0) if log.count else log.next_seq

    def _nth(self, log: Log, start: int, skip: int) -> int:
        """Return the position of the message after the first ``skip`` from ``start`` on, or the next position."""
        row = self.run("nth_message", log.id, start, skip).fetchone()
        return log.next_seq if row is None else row[0]

    def _safe(self, log: Log, cut: int, ties: str, step: int, beyond: Callable[[Sequence[Span], int], int]) -> int:
        """Return the nearest position, in the direction of ``step``, where a cut separates no result from its call."""
        while True:
            free = self._untied(log, cut, ties, step)
            cut = beyond(self.run("span_around", log.id, free).fetchall(), free)
            if cut == free:
                return cut

    def _untied(self, log: Log, cut: int, ties: str, step: int) -> int:
        rows = self.run(ties, log.id, cut)
        for seq, tied in rows:
            if seq != cut or not tied:
                break
            cut += step
        rows.close()
        return cut

    # Rewriting

    def rewrite(self, now_ms: int, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        log = self._live(key, now_ms)
        if log is None:
            return 0
        done = 0
        is_indexed = self._index.is_kept
        for change in changes:
            for message, format in self.run("rewrite_message", change.new, log.id, change.seq, change.old).fetchall():
                done += 1
                log.size += len(change.new) - len(change.old)
                if is_indexed:
                    self._index.replace(key.tenant, message, format, change.new)
        if done:
            self._save(log)
        return done

    # Threads

    def update_thread(self, now_ms: int, key: ThreadKey, change: ThreadChange) -> Thread:
        log = self._existing(key, now_ms)
        if change.expected_revision is not None and change.expected_revision != log.revision:
            raise ConflictError.at_revision(key, log.revision, change.expected_revision)
        if change.metadata is not None:
            self.run("set_metadata", log.id, change.metadata)
        log.title = log.title if change.title is None else change.title.encode()
        if change.retention is not None:
            own = change.own_retention
            log.retention = None if own is None else msgspec.json.encode(own).decode()
            log.expires_ms = _after(log.updated_ms, own or change.store_retention)
        log.revision += 1
        self.run("save_description", change.title, log.revision, log.retention, log.expires_ms, log.id)
        return log.thread(key, self.metadata(log))

    def restore_position(
        self, now_ms: int, key: ThreadKey, next_seq: int, expected_seq: int, expire_ms: int | None
    ) -> None:
        log = self._live(key, now_ms)
        at = 0 if log is None else log.next_seq
        if at == next_seq:
            return
        if at != expected_seq:
            raise ConflictError.at_position(key, at, expected_seq)
        log = log or self._begin(key, now_ms)
        log.next_seq = next_seq
        log.head_seq = log.head_seq if log.count else next_seq
        log.updated_ms = max(now_ms, log.created_ms)
        log.expires_ms = log.expires_ms if expire_ms is None else log.updated_ms + expire_ms
        self._save(log)

    def restore_times(self, now_ms: int, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        log = self._existing(key, now_ms)
        if log.expires_ms is not None:
            log.expires_ms += updated_ms - log.updated_ms
        log.created_ms, log.updated_ms = created_ms, updated_ms
        self.run("save_times", log.created_ms, log.updated_ms, log.expires_ms, log.id)
        return log.thread(key, self.metadata(log))

    def delete_thread(self, now_ms: int, key: ThreadKey, expected_seq: int | None) -> bool:
        log = self._live(key, now_ms)
        if log is None:
            return False
        _expect(key, log, expected_seq)
        self._garbage.bury(log.id)
        return True

    def delete_some_of_tenant(self, now_ms: int, tenant: str) -> tuple[int, bool]:
        some = self.run("some_of_tenant", tenant, ROWS_AT_ONCE).fetchall()
        for log_id, _ in some:
            self._garbage.bury(log_id)
        live = sum(expires_ms is None or expires_ms > now_ms for _, expires_ms in some)
        return live, len(some) == ROWS_AT_ONCE

    def _live(self, key: ThreadKey, now_ms: int) -> Log | None:
        log = self.find(key)
        if log is None or log.is_live(now_ms):
            return log
        self._garbage.bury(log.id)
        return None

    def _existing(self, key: ThreadKey, now_ms: int) -> Log:
        log = self._live(key, now_ms)
        if log is None:
            raise ThreadNotFoundError(f"There is no {key}.")
        return log

    def _begin(self, key: ThreadKey, now_ms: int) -> Log:
        added = self.run("begin_thread", key.tenant, key.thread_id, now_ms, now_ms)
        assert added.lastrowid is not None
        return Log(added.lastrowid, 0, 0, 0, 0, now_ms, now_ms, None, None, 0, 0, None)

    def _save(self, log: Log, *, default_title: str | None = None) -> None:
        self.run(
            "save_thread",
            log.head_seq,
            log.next_seq,
            log.count,
            log.size,
            log.updated_ms,
            log.expires_ms,
            default_title,
            log.appends,
            log.id,
        )

    # Documents

    def put_document(
        self, now_ms: int, key: ThreadKey, name: str, value: bytes, expected_revision: int | None
    ) -> Document:
        log = self._live(key, now_ms)
        current = None if log is None else self.document(log, name)
        revision = 0 if current is None else current.revision
        if expected_revision is not None and expected_revision != revision:
            raise ConflictError.at_revision(f"Document {name!r} of {key}", revision, expected_revision)
        if log is None:
            log = self._begin(key, now_ms)
        self.run("put_document", log.id, name, value, revision + 1, now_ms)
        return Document(name, value, revision + 1, now_ms)

    def delete_document(self, now_ms: int, key: ThreadKey, name: str) -> bool:
        log = self._live(key, now_ms)
        return log is not None and self.run("drop_document", log.id, name).rowcount > 0


def _expect(key: ThreadKey, log: Log, expected_seq: int | None) -> None:
    if expected_seq is not None and expected_seq != log.next_seq:
        raise ConflictError.at_position(key, log.next_seq, expected_seq)


def _after(updated_ms: int, retention: Retention) -> int | None:
    return None if retention.expire_ms is None else updated_ms + retention.expire_ms
