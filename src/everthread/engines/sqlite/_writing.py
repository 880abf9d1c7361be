"""What the writing thread does: each call is one transaction, many appends included."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import ParamSpec, Self, TypeVar

import msgspec

from everthread.contract import REMEMBERED_APPENDS
from everthread.engines._base import AppendRequest, ThreadChange
from everthread.engines.sqlite._database import (
    Place,
    connect_writer,
    is_io_failure,
    is_of_one_record,
    patiently,
    translate,
)
from everthread.engines.sqlite._garbage import ROWS_AT_ONCE, Garbage
from everthread.engines.sqlite._indexing import Index, Progress
from everthread.engines.sqlite._location import url_of
from everthread.engines.sqlite._reading import Log, Session
from everthread.engines.sqlite._reconciling import reconcile
from everthread.errors import (
    ConflictError,
    EverthreadError,
    OutcomeUnknownError,
    ThreadNotFoundError,
)
from everthread.model import (
    Appended,
    Document,
    Drift,
    Retention,
    Rewrite,
    Thread,
    ThreadKey,
    Truncated,
    to_milliseconds,
)
from everthread.retention import MAX_OPEN_CALLS, Span, TurnLinks, add_span, resolve, safe_start, safe_stop

P = ParamSpec("P")
R = TypeVar("R")


class Writer(Session):
    """The writing half of a store, in its thread."""

    def __init__(self, db: sqlite3.Connection, place: Place) -> None:
        super().__init__(db, place)
        self._garbage = Garbage(self)
        self._index = Index(self)

    @classmethod
    def open(cls, place: Place) -> Self:
        return cls(connect_writer(place), place)

    def check(self) -> None:
        """Nothing: that the connection was made is what the caller waits for."""

    def append_many(self, batch: Sequence[AppendRequest]) -> list[Appended | EverthreadError]:
        """Carries out appends in one transaction; one that cannot be stored fails alone."""
        try:
            return self._commit(self._append_all, batch)
        except sqlite3.Error as error:
            if len(batch) == 1 or not is_of_one_record(error):
                raise
            return [self._append_alone(request) for request in batch]

    def truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None, now_ms: int
    ) -> Truncated:
        return self._commit(self._truncate, key, start, stop, expected_seq, now_ms)

    def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite], now_ms: int) -> int:
        return self._commit(self._rewrite, key, changes, now_ms)

    def update_thread(self, key: ThreadKey, change: ThreadChange, now_ms: int) -> Thread:
        return self._commit(self._update_thread, key, change, now_ms)

    def restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int, now_ms: int) -> Thread:
        return self._commit(self._restore_times, key, created_ms, updated_ms, now_ms)

    def delete_thread(self, key: ThreadKey, expected_seq: int | None, now_ms: int) -> bool:
        return self._commit(self._delete_thread, key, expected_seq, now_ms)

    def delete_some_of_tenant(self, tenant: str, now_ms: int) -> tuple[int, bool]:
        """Deletes some threads; says how many had not expired, and whether there may be more."""
        return self._commit(self._delete_some_of_tenant, tenant, now_ms)

    def put_document(
        self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None, now_ms: int
    ) -> Document:
        return self._commit(self._put_document, key, name, value, expected_revision, now_ms)

    def delete_document(self, key: ThreadKey, name: str, now_ms: int) -> bool:
        return self._commit(self._delete_document, key, name, now_ms)

    def sweep(self) -> bool:
        """Removes some of what deleted threads left; says whether there is more."""
        return self._commit(self._garbage.sweep)

    def index_some(self) -> Progress:
        """Turns search on, and indexes some of the messages from before."""
        return self._commit(self._index.make_some)

    def reconcile(self, mend: bool) -> tuple[Drift, ...]:
        """What has drifted apart, in one state of the file."""
        return self._commit(partial(reconcile, self.db, mend=mend))

    # Transactions

    def _commit(self, change: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        patiently(self.place, lambda: self.db.execute("BEGIN IMMEDIATE"))
        try:
            result = change(*args, **kwargs)
            self._end()
        except BaseException:
            self._garbage.was_rolled_back()
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        return result

    def _end(self) -> None:
        try:
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            if not is_io_failure(error):
                raise
            # The commit may be in the log although the disk did not confirm it.
            raise OutcomeUnknownError(
                f"{url_of(self.place.path)}: the disk failed during a commit. Send it again with the same append_id."
            ) from None

    def _append_all(self, batch: Sequence[AppendRequest]) -> list[Appended | EverthreadError]:
        results = [self._append(request) for request in batch]
        self._garbage.tend(batch[-1].now_ms)
        return results

    def _append_alone(self, request: AppendRequest) -> Appended | EverthreadError:
        try:
            return self._commit(self._append, request)
        except sqlite3.Error as error:
            translated = translate(error, self.place)
            if translated is None:
                raise
            return translated

    # Appending

    def _append(self, request: AppendRequest) -> Appended | EverthreadError:
        log = self._live(request.key, request.now_ms)
        first = 0 if log is None else log.next_seq
        stop = first + len(request.messages)
        if request.expected_seq is not None and request.expected_seq != first:
            return self._earlier(log, request) or ConflictError(
                f"The next position of {request.key} is {first}, not {request.expected_seq}.", first
            )
        if log is None:
            log = self._begin(request.key, request.now_ms)
        # An id that nobody else has cannot come again: a transaction that failed left nothing.
        if not request.is_new_id and (earlier := self._remember(log, request, Appended(first, stop))):
            return earlier
        retention = request.retention_of(log.own_retention(request.key))
        self._write(log, request, first)
        log.expires_ms = _after(log.updated_ms, retention)
        self._trim(log, retention)
        self._save(log)
        return Appended(first, stop)

    def _remember(self, log: Log, request: AppendRequest, appended: Appended) -> Appended | None:
        """Keeps the append's id, or returns what an earlier append of this id did."""
        arguments = log.id, request.append_id, appended.first_seq, appended.next_seq
        if not self.run("remember_append", *arguments).rowcount:
            return self._earlier(log, request)
        log.appends += 1
        if log.appends > 2 * REMEMBERED_APPENDS:
            # Seldom and many at once: the newest are found by looking at all.
            self.run("forget_appends", log.id, REMEMBERED_APPENDS)
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
        log.next_seq = first + len(rows)
        log.count += len(rows)
        log.size += sum(len(new.payload) for new in request.messages)
        log.updated_ms = request.now_ms
        log.title = request.default_title if log.title is None else log.title

    def _link(self, log: Log, links: TurnLinks, first: int) -> set[int]:
        """Keeps which calls are open and which spans reach back; returns the turn's tied positions."""
        tied: set[int] = set()
        reaching_back: list[Span] = []
        for lo, hi in resolve(links, first, self._take_open_calls(log, links)):
            # Most spans lie within the turn; a mark in rows that are written anyway costs nothing.
            if lo + 1 >= first:
                tied.update(range(lo + 1, hi + 1))
            else:
                reaching_back.append((lo, hi))
        if reaching_back:
            self._merge_spans(log, reaching_back)
        for call_id, at in links.open_calls:
            self.run("add_open_call", log.id, call_id, first + at)
        if links.open_calls:
            self.run("forget_open_calls", log.id, MAX_OPEN_CALLS)
        return tied

    def _take_open_calls(self, log: Log, links: TurnLinks) -> dict[str, int]:
        called: dict[str, int] = {}
        for call_id, _ in links.early_results:
            # Fetched to the end: only then the statement has run.
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
        # Counted from the head: what is passed over is what is then removed.
        self._drop_head(log, self._nth(log, log.head_seq, log.count - most))

    def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None, now_ms: int
    ) -> Truncated:
        log = self._existing(key, now_ms)
        _expect(key, log, expected_seq)
        count = log.count
        self._drop_head(log, min(start, log.next_seq))
        if stop is not None and stop < log.next_seq:
            stop = self._safe(log, stop, "ties_downward", -1, safe_stop)
            self._drop_messages(log, stop, log.next_seq)
            self.run("drop_spans_from", log.id, stop)
            self.run("drop_open_calls_from", log.id, stop)
        if stop is not None:
            log.updated_ms = now_ms
        self._save(log)
        return Truncated(count - log.count, log.head_seq, log.next_seq)

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
        """The position of the message after the first ``skip`` from ``start`` on, or the next position."""
        row = self.run("nth_message", log.id, start, skip).fetchone()
        return log.next_seq if row is None else row[0]

    def _safe(self, log: Log, cut: int, ties: str, step: int, beyond: Callable[[Sequence[Span], int], int]) -> int:
        """The nearest position, in the direction of ``step``, before which nothing is tied and no span reaches."""
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

    def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite], now_ms: int) -> int:
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
        self._save(log)
        return done

    # Threads

    def _update_thread(self, key: ThreadKey, change: ThreadChange, now_ms: int) -> Thread:
        log = self._existing(key, now_ms)
        if change.expected_revision is not None and change.expected_revision != log.revision:
            raise ConflictError(f"{key} has revision {log.revision}, not {change.expected_revision}.", log.revision)
        if change.metadata is not None:
            self.run("set_metadata", log.id, change.metadata)
        log.title = log.title if change.title is None else change.title
        if change.retention is not None:
            own = change.own_retention
            log.retention = None if own is None else msgspec.json.encode(own).decode()
            log.expires_ms = _after(log.updated_ms, own or change.store_retention)
        log.revision += 1
        self.run("save_description", log.title, log.revision, log.retention, log.expires_ms, log.id)
        return log.thread(key, self.metadata(log))

    def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int, now_ms: int) -> Thread:
        log = self._existing(key, now_ms)
        if log.expires_ms is not None:
            log.expires_ms += updated_ms - log.updated_ms
        log.created_ms, log.updated_ms = created_ms, updated_ms
        self.run("save_times", log.created_ms, log.updated_ms, log.expires_ms, log.id)
        return log.thread(key, self.metadata(log))

    def _delete_thread(self, key: ThreadKey, expected_seq: int | None, now_ms: int) -> bool:
        log = self._live(key, now_ms)
        if log is None:
            return False
        _expect(key, log, expected_seq)
        self._garbage.bury(log.id)
        return True

    def _delete_some_of_tenant(self, tenant: str, now_ms: int) -> tuple[int, bool]:
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

    def _save(self, log: Log) -> None:
        self.run(
            "save_thread",
            log.head_seq,
            log.next_seq,
            log.count,
            log.size,
            log.updated_ms,
            log.expires_ms,
            log.title,
            log.appends,
            log.id,
        )

    # Documents

    def _put_document(
        self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None, now_ms: int
    ) -> Document:
        log = self._live(key, now_ms)
        current = None if log is None else self.document(log, name)
        revision = 0 if current is None else current.revision
        if expected_revision is not None and expected_revision != revision:
            raise ConflictError(f"Document {name!r} of {key} has revision {revision}.", revision)
        if log is None:
            log = self._begin(key, now_ms)
        self.run("put_document", log.id, name, value, revision + 1, now_ms)
        return Document(name, value, revision + 1, now_ms)

    def _delete_document(self, key: ThreadKey, name: str, now_ms: int) -> bool:
        log = self._live(key, now_ms)
        return log is not None and self.run("drop_document", log.id, name).rowcount > 0


def _expect(key: ThreadKey, log: Log, expected_seq: int | None) -> None:
    if expected_seq is not None and expected_seq != log.next_seq:
        raise ConflictError(f"The next position of {key} is {log.next_seq}, not {expected_seq}.", log.next_seq)


def _after(updated_ms: int, retention: Retention) -> int | None:
    return None if retention.expire_ms is None else updated_ms + retention.expire_ms
