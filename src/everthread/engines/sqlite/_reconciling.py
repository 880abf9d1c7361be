"""What SQLite keeps twice (counts, the index for search) or beside a thread, compared with what is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from everthread.model import Drift

_COUNTS = """
    SELECT threads.id, count(messages.id), coalesce(sum(length(CAST(messages.payload AS BLOB))), 0), min(messages.seq)
    FROM threads LEFT JOIN messages ON messages.thread = threads.id
    GROUP BY threads.id
    HAVING count(messages.id) <> threads.count
        OR coalesce(sum(length(CAST(messages.payload AS BLOB))), 0) <> threads.size
        OR coalesce(min(messages.seq), threads.next_seq) <> threads.head_seq
"""
_MEND_COUNTS = "UPDATE threads SET count = ?, size = ?, head_seq = coalesce(?, next_seq) WHERE id = ?"
_BESIDE = ("messages", "metadata", "appends", "spans", "open_calls", "documents")
_ORPHANS = " UNION ".join(f"SELECT thread FROM {table}" for table in _BESIDE)  # noqa: S608 (names from above)
_ORPHANED = f"""
    SELECT thread FROM ({_ORPHANS})
    WHERE thread NOT IN (SELECT id FROM threads) AND thread NOT IN (SELECT thread FROM garbage)
"""  # noqa: S608 (the same)
_STALE_WORDS = "SELECT count(*) FROM message_words WHERE rowid NOT IN (SELECT id FROM messages)"
_NEW_INDEX = (
    "DELETE FROM message_words",
    "UPDATE search_index SET indexed_to = 0, upto = (SELECT coalesce(max(id), 0) FROM messages)",
)


def reconcile(db: sqlite3.Connection, *, mend: bool) -> tuple[Drift, ...]:
    """The drifts of all tenants; within a transaction, if they are to be mended."""
    return tuple(drift for drift in _drifts(db, mend=mend) if drift.count)


def _drifts(db: sqlite3.Connection, *, mend: bool) -> Iterator[Drift]:
    wrong = db.execute(_COUNTS).fetchall()
    if mend:
        db.executemany(_MEND_COUNTS, [(count, size, head, thread) for thread, count, size, head in wrong])
    yield Drift("threads whose counts do not fit", len(wrong), mended=mend)
    orphans = db.execute(_ORPHANED).fetchall()
    if mend:
        # From there they are removed a few at a time, like what deleted threads leave.
        db.executemany("INSERT INTO garbage (thread) VALUES (?)", orphans)
    yield Drift("remains of threads that are not there", len(orphans), mended=mend)
    stale = _stale_words(db)
    if mend and stale:
        for statement in _NEW_INDEX:
            db.execute(statement)
    yield Drift("words in the index of messages that are not there", stale, mended=mend)


def _stale_words(db: sqlite3.Connection) -> int:
    (stale,) = db.execute(_STALE_WORDS).fetchone()
    return stale
