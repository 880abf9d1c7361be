"""What deleted and expired threads leave: out of sight at once, removed a part at a time, so that nobody waits long."""

from __future__ import annotations

from everthread.engines.sqlite._reading import Session

ROWS_AT_ONCE = 500
"""So many rows go with one transaction: a millisecond or so."""

_INTERVAL_MS = 1000


class Garbage:
    """The writer's half-forgotten threads. Each call is part of a transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._may_be_left = True
        self._look_for_expired_at = 0

    def bury(self, log_id: int) -> None:
        """Makes a thread unknown; its rows elsewhere become garbage."""
        self._session.run("bury_thread", log_id)
        self._session.run("drop_thread", log_id)
        self._may_be_left = True

    def was_rolled_back(self) -> None:
        """The transaction came to nothing, so what it seemed to remove may be there."""
        self._may_be_left = True

    def tend(self, now_ms: int) -> None:
        """Does a little of what is to be done, beside every write."""
        if now_ms >= self._look_for_expired_at:
            self._look_for_expired_at = now_ms + _INTERVAL_MS
            for (log_id,) in self._session.run("some_expired", now_ms, ROWS_AT_ONCE).fetchall():
                self.bury(log_id)
        if self._may_be_left:
            self._may_be_left = self.sweep()

    def sweep(self) -> bool:
        """Removes at most about `ROWS_AT_ONCE` messages; says whether anything may be left."""
        left = ROWS_AT_ONCE
        while left > 0:
            found = self._session.run("some_garbage").fetchone()
            if found is None:
                return False
            left -= self._sweep_thread(found[0], left)
        return True

    def _sweep_thread(self, log_id: int, most: int) -> int:
        removed = 0
        for part in ("sweep_messages", "sweep_spans", "sweep_documents"):
            if removed < most:
                removed += self._session.run(part, log_id, most - removed).rowcount
        if removed < most:
            for part in ("sweep_appends", "sweep_open_calls", "sweep_metadata", "sweep_done"):
                self._session.run(part, log_id)
        # Counts as work also where nothing was left, so that many empty threads are not swept at once.
        return removed + 1
