"""The words of messages in the index for search: each append brings its own, older ones follow a few at a time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from everthread.engines.sqlite._reading import Session
from everthread.engines.sqlite._searching import indexed_words, mark_of
from everthread.model import NewMessage

# So many old messages, or about so many bytes of them, are indexed with one transaction.
_ROWS_AT_ONCE = 500
_BYTES_AT_ONCE = 4_000_000


class Progress(msgspec.Struct, frozen=True):
    """How the making of the index goes.

    Attributes:
        done: How many messages this step passed over, those of deleted threads included.
        left: How many are left, in the same measure.
    """

    done: int
    left: int


class Index:
    """The writer's side of the index. Each call is part of a transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def is_kept(self) -> bool:
        """Whether appends have to bring their words along: somebody has searched."""
        return self._session.run("is_indexed").fetchone() is not None

    def add(self, tenant: str, log_id: int, first: int, messages: Sequence[NewMessage]) -> None:
        """The words of messages that were just written."""
        mark = mark_of(tenant)
        rows = [(mark, indexed_words(new.payload, new.format), log_id, seq) for seq, new in enumerate(messages, first)]
        self._session.db.executemany(self._session.sql["add_words"], [row for row in rows if row[1]])

    def replace(self, tenant: str, message: int, format: str, payload: bytes) -> None:
        """The words of a payload that took the place of another."""
        # The old words go also where the new payload has none: it may have been sealed.
        self._session.run("drop_words", message)
        if words := indexed_words(payload, format):
            self._session.run("add_old_words", message, mark_of(tenant), words)

    def make_some(self) -> Progress:
        """Turns search on, and indexes some of the messages from before."""
        run = self._session.run
        indexed_to, upto = run("index_progress").fetchone() or run("begin_index").fetchall()[0]
        if indexed_to >= upto:
            return Progress(0, 0)
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
        return Progress(done - indexed_to, upto - done)
