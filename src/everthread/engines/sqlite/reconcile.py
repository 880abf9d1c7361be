"""Compare redundant data (counts, the search index, rows in other tables) with the threads and messages."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from everthread.model import Inconsistency

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


def reconcile(db: sqlite3.Connection, *, repair: bool) -> tuple[Inconsistency, ...]:
    """Return the inconsistencies of all tenants. With ``repair``, the caller begins and ends the transaction."""
    return tuple(drift for drift in _drifts(db, repair=repair) if drift.count)


def _drifts(db: sqlite3.Connection, *, repair: bool) -> Iterator[Inconsistency]:
    wrong = db.execute(_COUNTS).fetchall()
    if repair:
        db.executemany(_MEND_COUNTS, [(count, size, head, thread) for thread, count, size, head in wrong])
    yield Inconsistency("threads with wrong counts", len(wrong), repaired=repair)
    orphans = db.execute(_ORPHANED).fetchall()
    if repair:
        # Garbage is removed a few rows at a time, as for deleted threads.
        db.executemany("INSERT INTO garbage (thread) VALUES (?)", orphans)
    yield Inconsistency("rows of missing threads", len(orphans), repaired=repair)
    stale = _stale_words(db)
    if repair and stale:
        for statement in _NEW_INDEX:
            db.execute(statement)
    yield Inconsistency("indexed words of missing messages", stale, repaired=repair)


def _stale_words(db: sqlite3.Connection) -> int:
    (stale,) = db.execute(_STALE_WORDS).fetchone()
    return stale
