"""Rows of deleted and expired threads. Readers no longer see them; small transactions remove them over time."""

from __future__ import annotations

from everthread.engines.sqlite.reader import Session

ROWS_AT_ONCE = 500
"""Maximum number of rows that one transaction removes, in about a millisecond."""

_INTERVAL_MS = 1000


class Garbage:
    """Track deleted threads that still have rows. Each call is part of a transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._may_be_left = True
        self._look_for_expired_at = 0

    def bury(self, log_id: int) -> None:
        """Delete the row of a thread; its rows elsewhere become garbage."""
        self._session.run("bury_thread", log_id)
        self._session.run("drop_thread", log_id)
        self._may_be_left = True

    def was_rolled_back(self) -> None:
        """Note that a transaction was rolled back, so that garbage may be left."""
        self._may_be_left = True

    def tend(self, now_ms: int) -> None:
        """Find expired threads and remove some garbage; called with every write."""
        if now_ms >= self._look_for_expired_at:
            self._look_for_expired_at = now_ms + _INTERVAL_MS
            for (log_id,) in self._session.run("some_expired", now_ms, ROWS_AT_ONCE).fetchall():
                self.bury(log_id)
        if self._may_be_left:
            self._may_be_left = self.sweep()

    def sweep(self) -> bool:
        """Remove at most about `ROWS_AT_ONCE` messages; return whether anything may be left."""
        left = ROWS_AT_ONCE
        while left > 0:
            found = self._session.run("some_garbage").fetchone()
            if found is None:
                return False
            left -= self._sweep_thread(found[0], left)
        return True

    def _sweep_thread(self, log_id: int, most: int) -> int:
        removed = 0
        for part, names in (("sweep_messages", 1), ("sweep_spans", 2), ("sweep_documents", 1)):
            if removed < most:
                removed += self._session.run(part, *[log_id] * names, most - removed).rowcount
        if removed < most:
            for part in ("sweep_appends", "sweep_open_calls", "sweep_metadata", "sweep_done"):
                self._session.run(part, log_id)
        # An empty thread counts as work too, so that one transaction does not sweep many of them.
        return removed + 1
