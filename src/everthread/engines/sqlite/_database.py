"""Connecting to the file: what it must be, its schema, and the typed error for each of SQLite's."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from everthread.engines.sqlite._location import url_of
from everthread.engines.sqlite._sql import migrations
from everthread.errors import (
    ConfigurationError,
    CorruptRecordError,
    EverthreadError,
    LimitExceededError,
    SchemaError,
    StoreUnavailableError,
)

APPLICATION_ID = 0x65767472
"""Marks the file as everthread's ("evtr"); `file` and sqlite3's shell show it."""

OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""

# Waits before the next attempt at a lock grow to this, in seconds. SQLite's own grow to 0.1, which
# lets a busy process keep another one out for long; transactions here take about a millisecond.
_LONGEST_WAIT = 0.005
_CACHE_SIZE = -8000  # KiB, for each connection
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}

T = TypeVar("T")


class Place(msgspec.Struct, frozen=True):
    """A file and how it is used.

    Attributes:
        path: From the root.
        synchronous: ``"full"`` or ``"normal"``.
        busy_timeout: Seconds to wait for another process's lock.
    """

    path: Path
    synchronous: str
    busy_timeout: float


def connect_writer(place: Place) -> sqlite3.Connection:
    """Opens the file for reading and writing; creates it, its folder and its schema where they are missing.

    Safe when many processes do it at once.

    Raises:
        ConfigurationError: It is not a database, another application's, or SQLite is too old.
        SchemaError: A newer release wrote it.
        StoreUnavailableError: It cannot be created, opened or locked.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigurationError(f"SQLite {wanted} or newer is needed; this Python has {sqlite3.sqlite_version}.")
    _create_file(place)
    # No waiting inside SQLite: see `patiently`.
    db = _connect(place, "rwc", 0)
    try:
        patiently(place, lambda: _prepare_writer(db, place))
    except BaseException:
        db.close()
        raise
    return db


def connect_reader(place: Place) -> sqlite3.Connection:
    """Opens the file, which exists, for reading beside the writer."""
    db = _connect(place, "rw", place.busy_timeout)
    db.execute(f"PRAGMA cache_size={_CACHE_SIZE}")
    db.execute("PRAGMA query_only=1")
    return db


def patiently(place: Place, action: Callable[[], T]) -> T:
    """The action's result, tried again for ``busy_timeout`` while another connection is in its way."""
    deadline = time.monotonic() + place.busy_timeout
    wait = 0.0001
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if _primary(error) not in _BUSY or time.monotonic() >= deadline:
                raise
        # Of unequal length, so that processes that collided do not collide again.
        time.sleep(random.uniform(wait / 2, wait))  # noqa: S311
        wait = min(wait * 2, _LONGEST_WAIT)


def translate(error: Exception, place: Place) -> EverthreadError | None:
    """The typed error for one of sqlite3's, or ``None`` for a bug. Never quotes SQL or values."""
    if isinstance(error, OSError):
        return StoreUnavailableError(
            f"{url_of(place.path)} cannot be opened: {error.strerror or type(error).__name__}."
        )
    if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.ProgrammingError):
        return None
    where, code = url_of(place.path), _primary(error)
    if code in _BUSY:
        return StoreUnavailableError(
            f"{where} is locked: another program kept it for {place.busy_timeout:g} s (setting busy_timeout)."
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


def is_io_failure(error: sqlite3.Error) -> bool:
    """Whether reading or writing the file failed, so that what is on the disk is uncertain."""
    return _primary(error) == sqlite3.SQLITE_IOERR


def is_of_one_record(error: sqlite3.Error) -> bool:
    """Whether other appends of the same transaction may well succeed without the one that failed."""
    return _primary(error) in {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
    }


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)


def _create_file(place: Place) -> None:
    """Makes the folder and an empty file if there is none: conversations are for their owner's eyes alone."""
    try:
        place.path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite would make it readable by others (its log takes over the mode). A file that is there keeps its mode.
        with suppress(FileExistsError):
            os.close(os.open(place.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreUnavailableError(
            f"{url_of(place.path)} cannot be created: {error.strerror or type(error).__name__}."
        ) from None


def _connect(place: Place, mode: str, timeout: float) -> sqlite3.Connection:
    address = f"{place.path.as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None, cached_statements=256)


def _prepare_writer(db: sqlite3.Connection, place: Place) -> None:
    # Every step may meet a lock, and may be done again.
    _check_owner(db, place)
    _use_wal(db, place)
    db.execute(f"PRAGMA synchronous={place.synchronous}")
    db.execute(f"PRAGMA cache_size={_CACHE_SIZE}")
    # Pages that many appends change are written back once for all of them.
    db.execute("PRAGMA wal_autocheckpoint=4000")
    db.execute("PRAGMA journal_size_limit=67108864")
    _migrate(db, place)


def _check_owner(db: sqlite3.Connection, place: Place) -> None:
    if _pragma(db, "application_id") == APPLICATION_ID:
        return
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    # A file that another process is about to fill is still empty, or has its mark by now.
    if tables and _pragma(db, "application_id") != APPLICATION_ID:
        raise ConfigurationError(
            f"{url_of(place.path)} is the database of another application; nothing was changed. Choose another path."
        )


def _use_wal(db: sqlite3.Connection, place: Place) -> None:
    (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailableError(
            f"{url_of(place.path)} lies on a file system without shared memory for SQLite's write-ahead log: "
            "use a local disk."
        )


def _migrate(db: sqlite3.Connection, place: Place) -> None:
    newest = len(migrations())
    if _version(db, place, newest) == newest:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations()[_version(db, place, newest) :]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={newest}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _version(db: sqlite3.Connection, place: Place, newest: int) -> int:
    version = _pragma(db, "user_version")
    if version > newest:
        raise SchemaError(
            f"{url_of(place.path)} has schema version {version}; this release knows {newest}. "
            "Upgrade: pip install -U everthread"
        )
    return version


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
