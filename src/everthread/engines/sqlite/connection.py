"""Open the file for the writer and for readers."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from everthread.engines.sqlite.errors import is_busy
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.log_growth import CHECKPOINT_PAGES
from everthread.engines.sqlite.schema import check_owner, migrate
from everthread.errors import (
    ConfigurationError,
    StoreUnavailableError,
)

OLDEST_SQLITE = (3, 35, 0)
"""The first version that supports RETURNING."""

# Longest wait between two attempts at a lock, in seconds. SQLite's own waits grow to 0.1 s, so that a busy process can
# lock out another one for a long time; transactions here take about a millisecond.
_LONGEST_WAIT = 0.005
_CACHE_SIZE = -8000  # KiB, for each connection

T = TypeVar("T")


def connect_writer(file: DatabaseFile) -> sqlite3.Connection:
    """Open the file for reading and writing; create it, its folder and its schema if they are missing.

    Several processes may do this at the same time.

    Raises:
        ConfigurationError: The file is not a database or belongs to another application, or SQLite is too old.
        SchemaError: A newer release wrote the file.
        StoreUnavailableError: The file cannot be created, opened or locked.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigurationError(f"SQLite {wanted} or newer is needed; this Python has {sqlite3.sqlite_version}.")
    create_file(file)
    # No waiting inside SQLite: see `patiently`.
    db = connect(file, "rwc", 0)
    try:
        patiently(file, lambda: _prepare_writer(db, file))
    except BaseException:
        db.close()
        raise
    return db


def connect_reader(file: DatabaseFile) -> sqlite3.Connection:
    """Open an existing file for reading, at the same time as the writer."""
    db = connect(file, "rw", file.busy_timeout)
    tune_reader(db)
    return db


def tune_reader(db: sqlite3.Connection) -> None:
    """Set up a connection for reading."""
    db.execute(f"PRAGMA cache_size={_CACHE_SIZE}")
    db.execute("PRAGMA query_only=1")


def patiently(file: DatabaseFile, action: Callable[[], T]) -> T:
    """Run an action and return its result; retry for ``busy_timeout`` while another connection holds a lock."""
    deadline = time.monotonic() + file.busy_timeout
    wait = 0.0001
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        # Random, so that processes that collided do not collide again.
        time.sleep(random.uniform(wait / 2, wait))  # noqa: S311
        wait = min(wait * 2, _LONGEST_WAIT)


def create_file(file: DatabaseFile) -> None:
    """Create the folder and an empty file that only the owner can read, unless the file exists."""
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite would create the file and its log readable by others. An existing file keeps its mode.
        with suppress(FileExistsError):
            os.close(os.open(file.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreUnavailableError(
            f"{file.url} cannot be created: {error.strerror or type(error).__name__}."
        ) from None


def connect(file: DatabaseFile, mode: str, timeout: float) -> sqlite3.Connection:
    """Open the file in a mode of https://sqlite.org/uri.html."""
    address = f"{file.path.as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None, cached_statements=256)


def _prepare_writer(db: sqlite3.Connection, file: DatabaseFile) -> None:
    # Every step can meet a lock, and can be repeated.
    check_owner(db, file)
    _use_wal(db, file)
    db.execute(f"PRAGMA synchronous={file.synchronous}")
    db.execute(f"PRAGMA cache_size={_CACHE_SIZE}")
    # A page that many appends change is written back once.
    db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    db.execute("PRAGMA journal_size_limit=67108864")
    # Overwrites deleted data with zeros, in changed and in freed pages.
    db.execute("PRAGMA secure_delete=1")
    migrate(db, file)


def _use_wal(db: sqlite3.Connection, file: DatabaseFile) -> None:
    (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailableError(
            f"{file.url} lies on a file system without shared memory for SQLite's write-ahead log: use a local disk."
        )
