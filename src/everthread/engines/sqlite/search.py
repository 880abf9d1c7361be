"""Full-text search with FTS5: the words of messages and of queries, and the index."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2s
from typing import TYPE_CHECKING

from everthread.engines._search import text_in
from everthread.messages.tokenizer import phrases_of, words_of
from everthread.model import NewMessage

if TYPE_CHECKING:
    from everthread.engines.sqlite.reader import Session


def indexed_words(payload: bytes, format: str) -> str:
    """Return the normalized words of a message, separated by single spaces."""
    return " ".join(words_of(text_in(payload, format)))


def mark_of(tenant: str) -> str:
    """Return a word for a tenant. It only narrows a search, which also compares the tenant itself."""
    return blake2s(tenant.encode(), digest_size=12).hexdigest()


def match_of(tenant: str, text: str) -> str | None:
    """Return the query in FTS5's language, or ``None`` if the text has no words.

    https://sqlite.org/fts5.html#full_text_query_syntax. The words hold letters, digits and marks only, and are
    quoted, so no text is parsed as syntax.
    """
    phrases = [f'"{" ".join(phrase)}"' for phrase in phrases_of(text)]
    return f'tenant : "{mark_of(tenant)}" AND words : ({" AND ".join(phrases)})' if phrases else None


# One transaction indexes at most this many older messages, or about this many bytes.
_ROWS_AT_ONCE = 500
_BYTES_AT_ONCE = 4_000_000

PAGES_AT_ONCE = 500
"""Pages of the index that one transaction merges: some milliseconds."""


class Index:
    """Change the index for the writer. Each call is part of a transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def is_kept(self) -> bool:
        """Return whether appends must index their words: true after the first search."""
        return self._session.run("is_indexed").fetchone() is not None

    def add(self, tenant: str, log_id: int, first: int, messages: Sequence[NewMessage]) -> None:
        """Index messages that were just written."""
        mark = mark_of(tenant)
        rows = [(mark, indexed_words(new.payload, new.format), log_id, seq) for seq, new in enumerate(messages, first)]
        self._session.db.executemany(self._session.sql["add_words"], [row for row in rows if row[1]])

    def replace(self, tenant: str, message: int, format: str, payload: bytes) -> None:
        """Index a payload that replaced another."""
        # The new payload may have no words, if it was encrypted.
        self._session.run("drop_words", message)
        if words := indexed_words(payload, format):
            self._session.run("add_old_words", message, mark_of(tenant), words)

    def erase_some(self, *, is_first: bool) -> bool:
        """Remove the words of deleted messages from some pages of the index; return whether there is more to do.

        FTS5 stores deletions in addition to the words, and drops both when it merges parts of the index.

        Args:
            is_first: Begin with the whole index.
        """
        # https://sqlite.org/fts5.html#the_merge_command: a negative number begins, and fewer than two changes mean that
        # nothing was left to do.
        changes = self._session.db.total_changes
        self._session.run("merge_words", -PAGES_AT_ONCE if is_first else PAGES_AT_ONCE)
        return self._session.db.total_changes - changes >= 2

    def make_some(self) -> tuple[int, int]:
        """Turn search on, and index some of the older messages.

        Returns:
            The number of messages that this step passed, including those of deleted threads, and of those that remain.
        """
        run = self._session.run
        indexed_to, upto = run("index_progress").fetchone() or run("begin_index").fetchall()[0]
        if indexed_to >= upto:
            return 0, 0
        left, size, done = _ROWS_AT_ONCE, 0, upto
        found = run("next_to_index", indexed_to, upto, _ROWS_AT_ONCE)
        for at, tenant, format, payload in found:
            if words := indexed_words(payload, format):
                run("add_old_words", at, mark_of(tenant), words)
            left, size = left - 1, size + len(payload)
            if not left or size >= _BYTES_AT_ONCE:
                done = at
                break
        found.close()
        run("indexed_to", done)
        return done - indexed_to, upto - done
