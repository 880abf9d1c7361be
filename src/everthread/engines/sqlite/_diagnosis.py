"""What is known of the file and its folder; read-only."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Iterator

from everthread.engines.sqlite._database import Place
from everthread.engines.sqlite._reading import Reader
from everthread.engines.sqlite._sql import migrations
from everthread.model import Fact

_LITTLE_ROOM = 100_000_000


def facts(reader: Reader) -> tuple[Fact, ...]:
    """The facts, gathered on a reader's connection."""
    return (*_of_file(reader.place), *_of_database(reader.db, reader.place))


def _of_file(place: Place) -> Iterator[Fact]:
    status = place.path.stat()
    log = place.path.with_name(place.path.name + "-wal")
    log_size = log.stat().st_size if log.exists() else 0
    yield Fact("size", f"{status.st_size:,} bytes, and {log_size:,} in the write-ahead log")
    readable = status.st_mode & (stat.S_IRGRP | stat.S_IROTH)
    yield Fact(
        "file",
        f"mode {stat.filemode(status.st_mode)}",
        "warning" if readable else "ok",
        "Other users of this machine can read it: chmod 600." if readable else "",
    )
    free = shutil.disk_usage(place.path.parent).free
    little = free < _LITTLE_ROOM
    yield Fact("disk", f"{free:,} bytes free", "warning" if little else "ok", "Free some space." if little else "")


def _of_database(db: sqlite3.Connection, place: Place) -> Iterator[Fact]:
    yield Fact("server", f"SQLite {sqlite3.sqlite_version}, in this process")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    yield Fact("schema", f"version {version} of {len(migrations())}")
    (mode,) = db.execute("PRAGMA journal_mode").fetchone()
    yield Fact("journal", mode, "ok" if mode == "wal" else "error")
    if place.synchronous == "full":
        yield Fact("durability", "every append survives a loss of power (synchronous=full)")
    else:
        yield Fact("durability", "the newest appends may be lost with the power (synchronous=normal)")
    (garbage,) = db.execute("SELECT count(*) FROM garbage").fetchone()
    if garbage:
        yield Fact("remains", f"of {garbage:,} deleted threads; later writes remove them")
    progress = db.execute("SELECT indexed_to, upto FROM search_index").fetchone()
    yield Fact("search", _index(progress))


def _index(progress: tuple[int, int] | None) -> str:
    if progress is None:
        return "no index yet: the first search makes it"
    indexed_to, upto = progress
    if indexed_to >= upto:
        return "with an index"
    return f"the index is made to {indexed_to / upto:.0%}: the next search goes on"
