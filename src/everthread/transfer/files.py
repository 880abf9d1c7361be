"""Files on disk. Only regular files are read; other users can neither read nor redirect written files."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from glob import escape as escape_glob
from io import BufferedRandom
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from everthread.errors import ConfigurationError, CorruptRecordError

BOM = b"\xef\xbb\xbf"
MAX_LINE = 128 * 1024 * 1024
"""Largest line in bytes: a message of 16 MiB as escaped text fits."""
_BUFFER = 256 * 1024
_NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0)
_NO_WAITING: int = getattr(os, "O_NONBLOCK", 0)


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading. A pipe would block, and a device has no end.

    Raises:
        ConfigurationError: It is not a regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_WAITING)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Cannot read {path}: {_reason(error)}.") from None
    file = os.fdopen(descriptor, "rb", buffering=_BUFFER)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise ConfigurationError(f"{path} is not a regular file. Save its content to a file first.")
    return file


class Lines:
    """The lines of a file with their numbers. CR LF counts as LF; a byte order mark is ignored.

    Args:
        file: A binary file at the beginning of a line.
        name: The file's name in errors.
        number: The number of the line before.

    Attributes:
        number: The number of the line that was read last.
    """

    def __init__(self, file: BinaryIO, name: str, number: int = 0) -> None:
        self._file = file
        self.name = name
        self.number = number

    def next(self) -> bytes:
        """Return the next line, or nothing at the end of the file.

        Raises:
            CorruptRecordError: The line is longer than `MAX_LINE`.
        """
        is_first = self.number == 0 and self._file.tell() == 0
        line = self._file.readline(MAX_LINE)
        if line:
            self.number += 1
        if len(line) == MAX_LINE:
            raise CorruptRecordError(f"{self.place} has more than {MAX_LINE:,} bytes.")
        if is_first:
            line = line.removeprefix(BOM)
        return line[:-2] + b"\n" if line.endswith(b"\r\n") else line

    @property
    def place(self) -> str:
        """Return the place of the last line: ``threads.jsonl, line 3``."""
        return f"{self.name}, line {self.number}"

    def tell(self) -> int:
        """Return the offset of the next line."""
        return self._file.tell()

    def seek(self, offset: int, number: int) -> None:
        """Go to the beginning of a line; ``number`` is that of the line before."""
        self._file.seek(offset)
        self.number = number

    def skip_rest(self) -> None:
        """Read to the end of a line that is too long."""
        while (piece := self._file.readline(MAX_LINE)) and not piece.endswith(b"\n"):
            pass


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """Write a file under a random name in the same folder, and rename it when it is complete.

    Only its owner can read it. If its name is a link, the link is replaced, not followed.

    Raises:
        ConfigurationError: The file cannot be written, or ``path`` is not a regular file.
    """
    check_replaceable(path)
    part = path.with_name(f".{_short(path.name)}.{token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o600)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _locked(descriptor)
            yield file
            finish(file, part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove files that killed runs of `replacing` left in a folder, of one name or of all.

    The file of a running process stays: that process holds a lock on it.
    """
    for part in folder.glob(f".{escape_glob(_short(name)) or '*'}.*.part"):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY | _NO_LINKS | _NO_WAITING)
            try:
                if _is_ours(os.fstat(descriptor)) and _locked(descriptor):
                    part.unlink()
            finally:
                os.close(descriptor)


def _short(name: str) -> str:
    return name.encode()[:200].decode(errors="ignore")


def _locked(descriptor: int) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def finish(file: BinaryIO, part: Path, path: Path) -> None:
    """Sync a file to disk and rename it.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    try:
        file.flush()
        os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _not_written(path, error) from None


def continuing(part: Path) -> BufferedRandom:
    """Open a file to continue it, or create it. Only its owner can read it.

    Raises:
        ConfigurationError: It cannot be written, or may be another user's: it is a link, has two names, or belongs to
            another user.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | _NO_LINKS | _NO_WAITING, 0o600)
    except OSError as error:
        if part.is_symlink():
            raise ConfigurationError(f"{part} is a link. Remove it, or export to another folder.") from None
        raise _not_written(part, error) from None
    found = os.fstat(descriptor)
    if not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and _is_ours(found)):
        os.close(descriptor)
        raise ConfigurationError(f"{part} is not a regular file of your own. Remove it, or export to another folder.")
    if found.st_mode & 0o077:
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "r+b")


def check_replaceable(path: Path) -> None:
    """Check that a path can be replaced.

    Raises:
        ConfigurationError: It is a folder, pipe or device.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        # There is no file, or a dangling link, which is replaced.
        return
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"Cannot write {path}: it exists and is not a regular file.")


def _is_ours(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def _sync_folder(folder: Path) -> None:
    # Without it, a crash of the machine may undo the renaming. Some systems do not support it.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _not_written(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"Cannot write {path}: {_reason(error)}.")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
