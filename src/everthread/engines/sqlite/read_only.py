"""Read the file read-only: nothing is created, migrated or written, and the folder may be read-only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Self, TypeVar

from everthread.engines.sqlite.connection import connect, tune_reader
from everthread.engines.sqlite.files import OpenFiles, log_of
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.reader import Reader
from everthread.engines.sqlite.schema import APPLICATION_ID, check_owner, migrations, pragma, schema_version
from everthread.errors import ConfigurationError, SchemaError, StoreUnavailableError

_MOST_LOOKS = 5

T = TypeVar("T")

Stamp = tuple[int, int, int, int]
"""Changes when a file is written: device, inode, time of the last change and size."""


class ReadOnlyReader(Reader):
    """The reading half of a store that was opened read-only.

    SQLite must write a shared index (``-shm``) into the folder of a database with a log. In a read-only folder, a
    database without a log is opened as *immutable*, without locks. Its stamp then shows whether a writer with more
    rights has changed it.
    """

    _stamp: Stamp | None = None

    @classmethod
    def open(cls, file: DatabaseFile) -> Self:
        """Open the file.

        Raises:
            ConfigurationError: There is no database, or it belongs to another application.
            SchemaError: The database has another schema version.
            StoreUnavailableError: The database cannot be opened.
        """
        files = OpenFiles(file.path)
        stamp = _immutable_stamp(file)
        reader = cls(_connected(file, is_immutable=stamp is not None), file, files)
        reader._stamp = stamp
        return reader

    def look(self, function: Callable[..., T], *args: object) -> T:
        """Return the result of ``function``; read again if another process wrote to a file opened as immutable."""
        for _ in range(_MOST_LOOKS):
            try:
                found = function(self, *args)
            except sqlite3.DatabaseError:
                if self._is_steady():
                    raise
            else:
                if self._is_steady():
                    if self._stamp is None:
                        self.files.check()
                    return found
            self.db.close()
            self._stamp = _immutable_stamp(self.file)
            self.db = _connected(self.file, is_immutable=self._stamp is not None)
        raise StoreUnavailableError(f"{self.file.url} is written to all the time: try again.")

    def _is_steady(self) -> bool:
        return self._stamp is None or self._stamp == _immutable_stamp(self.file)


def _connected(file: DatabaseFile, *, is_immutable: bool) -> sqlite3.Connection:
    db = connect(file, "ro&immutable=1" if is_immutable else "ro", file.busy_timeout)
    try:
        _prepare(db, file)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, file: DatabaseFile) -> None:
    try:
        tune_reader(db)
        pragma(db, "user_version")
    except sqlite3.OperationalError:
        if _log_size(file) and not may_write_folder(file):
            raise StoreUnavailableError(
                f"{file.url} has a write-ahead log, which SQLite cannot read in a folder that may "
                "not be written: copy the file with its -wal to a folder of your own."
            ) from None
        raise
    check_owner(db, file)
    if pragma(db, "application_id") != APPLICATION_ID:
        raise _missing(file)
    newest = len(migrations())
    version = schema_version(db, file, newest)
    if version < newest:
        raise SchemaError(
            f"{file.url} has schema version {version}, which this release reads only after a migration. Open it "
            f"once for writing to bring it to version {newest}: everthread doctor {file.url}"
        )


def _immutable_stamp(file: DatabaseFile) -> Stamp | None:
    """Return the stamp of a file that must be opened as immutable, otherwise ``None``."""
    size = _log_size(file)
    if not file.path.exists() or (file.path.stat().st_size == 0 and not size):
        raise _missing(file)
    if size or may_write_folder(file):
        return None
    status = file.path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _missing(file: DatabaseFile) -> ConfigurationError:
    return ConfigurationError(f"There is no store at {file.url}, and opening it to read creates none. Check the path.")


def may_write_folder(file: DatabaseFile) -> bool:
    """Return whether this process may create files beside the database."""
    return os.access(file.path.parent, os.W_OK)


def _log_size(file: DatabaseFile) -> int:
    try:
        return log_of(file.path).stat().st_size
    except FileNotFoundError:
        return 0
