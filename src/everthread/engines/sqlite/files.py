"""Check that the files on the disk are still the opened ones, and flush them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from everthread.engines.sqlite.location import url_of
from everthread.errors import StoreUnavailableError

_ZEROS = 1024 * 1024

Identity = tuple[int, int] | None
"""Device and inode of a file, or ``None`` if it does not exist. They are unique while the file is open."""


def log_of(path: Path) -> Path:
    """Return the path of a database's write-ahead log."""
    return path.with_name(path.name + "-wal")


class OpenFiles:
    """Detect that the database, or for its writer the log, was removed or replaced after it was opened.

    SQLite continues to write to a removed file or log. Such appends are lost when the last process closes it.

    Args:
        path: The database. It exists, and the caller opens it next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: list[tuple[str, Identity]] = []
        self._watch(path)

    def watch_log(self) -> None:
        """Check the log too from now on. Call this once the log is open."""
        self._watch(log_of(self._path))

    def check(self) -> None:
        """Compare the files with the opened ones: one ``stat`` each, about a microsecond.

        Raises:
            StoreUnavailableError: One was removed or replaced.
        """
        for name, opened in self._opened:
            if (found := _identity(name)) != opened:
                raise StoreUnavailableError(self._what_to_do(name, is_there=found is not None))

    def _what_to_do(self, name: str, *, is_there: bool) -> str:
        lost = f"{url_of(Path(name))} was removed or replaced while this store was open, so what was appended since"
        if not is_there or name != os.fspath(self._path):
            return (
                f"{lost} then may be lost. Close this store, put the file back if it was moved, and open a new store."
            )
        # SQLite would apply the old log to the new file, and damage it.
        return (
            f"{lost} then is not stored. Before the new file is opened: close every store of it, remove "
            f"{self._path.name}-wal and {self._path.name}-shm in its folder (they belong to the old file), put the "
            "new file in place again, and open a new store."
        )

    def flush(self) -> None:
        """Flush the commits of all processes to the disk."""
        log = log_of(self._path)
        # Windows flushes only files that are open for writing.
        _flush(log, os.O_RDWR)
        if os.name != "nt":
            # The name of a new log is only in the folder.
            _flush(log.parent, os.O_RDONLY)

    def lengthen_log(self, length: int) -> None:
        """Append zeros to the log up to this number of bytes. Does nothing if the log is longer, or was replaced.

        The caller holds the write lock. A full disk leaves the log as long as it can be.
        """
        name = os.fspath(log_of(self._path))
        with suppress(OSError), open(name, "r+b", buffering=0) as log:  # noqa: PTH123
            status = os.fstat(log.fileno())
            # The lock protects only the log that was open with it.
            if (name, (status.st_dev, status.st_ino)) not in self._opened:
                return
            at = log.seek(status.st_size)
            while at < length:
                at += log.write(bytes(min(_ZEROS, length - at)))

    def _watch(self, path: Path) -> None:
        name = os.fspath(path)
        if (identity := _identity(name)) is not None:
            self._opened.append((name, identity))


def _identity(name: str) -> Identity:
    try:
        status = os.stat(name)  # noqa: PTH116 (four times as fast)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
