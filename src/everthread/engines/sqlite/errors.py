"""Convert sqlite3's exceptions to typed errors, which never quote SQL or values."""

from __future__ import annotations

import sqlite3

from everthread.engines.sqlite.location import DatabaseFile
from everthread.errors import (
    ConfigurationError,
    CorruptRecordError,
    EverthreadError,
    LimitExceededError,
    SchemaError,
    StoreUnavailableError,
)


def translate(error: Exception, file: DatabaseFile) -> EverthreadError | None:
    """Return the typed error for an error of sqlite3 or of the file system, or ``None`` for a bug."""
    if isinstance(error, OSError):
        return StoreUnavailableError(f"{file.url} cannot be opened: {error.strerror or type(error).__name__}.")
    if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.ProgrammingError):
        return None
    where, code = file.url, _primary(error)
    if is_busy(error):
        return StoreUnavailableError(
            f"{where} is locked: another program held its lock for {file.busy_timeout:g} s. End the transaction of "
            "that program (an sqlite3 shell, a backup), or raise the setting busy_timeout; then try again."
        )
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(f"{where} is not an SQLite database; nothing was changed. Choose another path.")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}:
        return CorruptRecordError(f"{where} is damaged ({_name(error)}): restore a backup, or try sqlite3's .recover.")
    if code == sqlite3.SQLITE_ERROR:
        return SchemaError(f"{where} lacks a table or column of its version: restore a backup.")
    if code == sqlite3.SQLITE_TOOBIG:
        return LimitExceededError(f"{where}: a row is larger than SQLite allows.", 0, 0)
    reason = _REASONS.get(code, "")
    return StoreUnavailableError(f"{where} cannot be used ({_name(error)}){reason}.")


_REASONS = {
    sqlite3.SQLITE_FULL: ": the disk is full. Free some space; nothing was written",
    sqlite3.SQLITE_READONLY: ": it is read-only. Its folder must be writable too",
    sqlite3.SQLITE_CANTOPEN: ": check that it is a file and that it and its folder may be written",
    sqlite3.SQLITE_PERM: ": permission denied",
    sqlite3.SQLITE_IOERR: ": the disk or file system failed",
}


def _primary(error: sqlite3.Error) -> int:
    # The extended codes keep the primary one in their lowest byte. Errors that Python itself raises have none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection holds a lock."""
    return _primary(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def is_io_failure(error: sqlite3.Error) -> bool:
    """Return whether reading or writing the file failed, so that the state on the disk is uncertain."""
    return _primary(error) == sqlite3.SQLITE_IOERR


def concerns_all(error: Exception) -> bool:
    """Return whether the other changes of a transaction would fail too without the one that failed."""
    one_record = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
    if isinstance(error, sqlite3.Error):
        return _primary(error) not in one_record
    return isinstance(error, StoreUnavailableError)


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)
