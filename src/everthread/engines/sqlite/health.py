"""Health checks of the file and its folder; read-only."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.reader import Reader
from everthread.engines.sqlite.schema import migrations
from everthread.model import HealthCheck

_LITTLE_ROOM = 100_000_000


def facts(reader: Reader) -> tuple[HealthCheck, ...]:
    """Return the health checks of the file that a reader has open."""
    return (*_of_file(reader.file), *_of_database(reader.db, reader.file))


def _of_file(file: DatabaseFile) -> Iterator[HealthCheck]:
    status = file.path.stat()
    log = file.path.with_name(file.path.name + "-wal")
    log_size = log.stat().st_size if log.exists() else 0
    yield HealthCheck("size", f"{status.st_size:,} bytes, and {log_size:,} in the write-ahead log")
    readable = status.st_mode & (stat.S_IRGRP | stat.S_IROTH) and not _is_on_read_only_disk(file.path)
    yield HealthCheck(
        "file",
        f"mode {stat.filemode(status.st_mode)}",
        "warning" if readable else "ok",
        "Other users of this machine can read it: chmod 600." if readable else "",
    )
    free = shutil.disk_usage(file.path.parent).free
    little = free < _LITTLE_ROOM
    yield HealthCheck(
        "disk", f"{free:,} bytes free", "warning" if little else "ok", "Free some space." if little else ""
    )


def _of_database(db: sqlite3.Connection, file: DatabaseFile) -> Iterator[HealthCheck]:
    yield HealthCheck("server", f"SQLite {sqlite3.sqlite_version}, in this process")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    yield HealthCheck("schema", f"version {version} of {len(migrations())}")
    # SQLite says "delete" for a file that is opened as immutable.
    mode = "wal" if _has_log_mode(file.path) else db.execute("PRAGMA journal_mode").fetchone()[0]
    yield HealthCheck("journal", mode, "ok" if mode == "wal" else "error")
    if file.synchronous == "full":
        yield HealthCheck("durability", "every append survives a loss of power (synchronous=full)")
    else:
        yield HealthCheck("durability", "the newest appends may be lost with the power (synchronous=normal)")
    (garbage,) = db.execute("SELECT count(*) FROM garbage").fetchone()
    if garbage:
        yield HealthCheck("remains", f"of {garbage:,} deleted threads; later writes remove them")
    progress = db.execute("SELECT indexed_to, upto FROM search_index").fetchone()
    yield HealthCheck("search", _index(progress))


def _has_log_mode(path: Path) -> bool:
    """Return whether the file's header requests a write-ahead log (https://sqlite.org/fileformat.html, 1.3.3)."""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _is_on_read_only_disk(path: Path) -> bool:
    # Windows has no statvfs.
    return hasattr(os, "statvfs") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _index(progress: tuple[int, int] | None) -> str:
    if progress is None:
        return "no index yet: the first search makes it"
    indexed_to, upto = progress
    if indexed_to >= upto:
        return "with an index"
    return f"the index is {indexed_to / upto:.0%} complete: the next search continues"
