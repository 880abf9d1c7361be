"""A writer's transactions: each is atomic, and on the disk before its call returns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from everthread.engines.sqlite.connection import patiently
from everthread.engines.sqlite.errors import concerns_all, is_io_failure
from everthread.engines.sqlite.files import OpenFiles
from everthread.engines.sqlite.garbage import Garbage
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.log_growth import LogGrowth
from everthread.engines.sqlite.reader import Session
from everthread.errors import OutcomeUnknownError

P = ParamSpec("P")
R = TypeVar("R")

Change = tuple[Callable[..., object], int, tuple[Any, ...]]
"""A method of the writer, the current time (its first argument), and the other arguments."""


class Transactions(Session):
    """A connection that writes."""

    def __init__(self, db: sqlite3.Connection, file: DatabaseFile, files: OpenFiles) -> None:
        super().__init__(db, file, files)
        self._garbage = Garbage(self)
        self._growth = LogGrowth(files, is_synced=file.synchronous == "full")

    def commit(self, change: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a change in its own transaction."""
        patiently(self.file, lambda: self.db.execute("BEGIN IMMEDIATE"))
        try:
            self._growth.grow()
            result = change(*args, **kwargs)
            # If the database was replaced, SQLite would apply this log to the new one: do not add to it.
            self.files.check()
            self._end()
        except BaseException:
            self._garbage.was_rolled_back()
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        return result

    def change_many(self, batch: Sequence[Change]) -> Sequence[object]:
        """Make changes in one transaction; return a result or an exception for each, on the disk by then.

        If one raises an error, each is repeated in a separate transaction, so that it fails alone.
        """
        try:
            return self._confirmed(batch)
        except Exception as error:
            if len(batch) == 1 or concerns_all(error):
                raise
        return [self._change_alone(change) for change in batch]

    def _confirmed(self, batch: Sequence[Change]) -> list[object]:
        changes = self.db.total_changes
        results = self.commit(self._change_all, batch)
        if not all(isinstance(result, Exception) for result in results):
            self._make_sure(changes)
        return results

    def _change_all(self, batch: Sequence[Change]) -> list[object]:
        results = [function(self, now_ms, *args) for function, now_ms, args in batch]
        self._garbage.tend(batch[-1][1])
        return results

    def _change_alone(self, change: Change) -> object:
        try:
            return self._confirmed([change])[0]
        except Exception as error:
            return error

    def _make_sure(self, changes: int) -> None:
        """Check that results are in the file, and on the disk if ``synchronous`` requires it.

        Args:
            changes: The connection's count of changes before the transaction.
        """
        self.files.check()
        if self.file.synchronous != "full" or self.db.total_changes != changes:
            return
        # A transaction that changed nothing depends on another writer's commit, which is visible before it is flushed,
        # and remains if that writer is killed.
        try:
            self.files.flush()
        except OSError:
            raise self._unconfirmed() from None

    def _end(self) -> None:
        try:
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            if not is_io_failure(error):
                raise
            # The commit may be in the log although the disk did not confirm it.
            raise self._unconfirmed() from None

    def _unconfirmed(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{self.file.url}: the disk failed during a commit. Send it again with the same append_id."
        )
