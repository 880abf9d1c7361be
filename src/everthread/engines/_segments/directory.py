"""Objects as files in a directory: atomic also under SIGKILL, and on the disk before a write is acknowledged.

obstore's own local store never flushes (no fsync), and cannot replace a file only if it is unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path

from everthread.engines._segments.names import nonce
from everthread.engines._segments.storage import Found, Listed, NotWrittenError, ThreadedStorage
from everthread.errors import (
    ConfigurationError,
    EverthreadError,
    LimitExceededError,
    OutcomeUnknownError,
    StoreUnavailableError,
    UnsupportedError,
)
from everthread.model import HealthCheck

_CHUNK = 1000
_SCRATCH = ".new"
_LOCK = ".lock"
_LOCK_PAUSE_S = 0.01
_SCRATCH_SECONDS = 3600
_MOST_DURABLE = 100_000
_AT_ONCE = 250
"""The number of names of at most 100 characters in the 32 KiB that Linux reads of a directory at a time."""
_NEVER_REPLACED = ("r/", "s/", "t/")
"""Folders of objects that are never replaced: deleting them needs no lock."""
_LITTLE_ROOM = 100_000_000
_IN_MEMORY = {"tmpfs", "ramfs"}
_NETWORKED = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.blobfuse2", "ceph"}
_UNUSABLE = {
    errno.EACCES: "check the rights of this user",
    errno.EPERM: "check the rights of this user",
    errno.EROFS: "mount it for writing, or choose another directory",
    errno.ENOTDIR: "choose a directory",
    errno.EEXIST: "choose a directory",
    errno.EISDIR: "choose a directory that nothing else writes to",
    errno.ENAMETOOLONG: "choose a directory with a shorter path",
    errno.ELOOP: "choose a directory without circular links",
}
_EXHAUSTED = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
}


class DirectoryStorage(ThreadedStorage):
    """Objects as files below a directory. A missing directory is created with access for its owner only.

    A write creates a file under a scratch name, flushes it, and gives it its name by a hard link (which fails if the
    name is taken) or a rename. Then it flushes the folder. So other processes, and a restart after a crash, see only
    whole files. Many processes of one machine can share a directory; a network file system must have atomic links.

    Args:
        path: The directory.
        sync: Flush to the disk before a write is acknowledged. Without it, a crash of the machine (not of the process)
            may lose the writes of the last seconds.
        lock_seconds: The time to wait for another process that replaces or deletes a document.
    """

    threads = 8
    max_object_bytes = 256 * 1024 * 1024

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = True, lock_seconds: float = 10) -> None:
        try:
            self._root = Path(path).expanduser().absolute()
        except (RuntimeError, OSError) as error:
            raise ConfigurationError(f"The directory cannot be resolved: {type(error).__name__}.") from None
        self._sync = sync
        self._lock_seconds = lock_seconds
        self._durable: set[Path] = set()

    @property
    def location(self) -> str:
        return self._root.as_uri()

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        return await self.run(lambda: self._write(folder, name, data, os.link))

    async def put(self, folder: str, name: str, data: bytes) -> None:
        await self.run(lambda: self._write(folder, name, data, os.replace))

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        return await self._exclusively(lambda: self._replace(folder, name, data, tag))

    async def get(self, folder: str, name: str) -> Found | None:
        return await self.run(lambda: _read(self._root / folder / name))

    async def flush(self, folder: str, names: Collection[str]) -> None:
        if self._sync:
            await self.run(lambda: self._flush_objects(self._root / folder, names))

    async def delete(self, folder: str, names: Collection[str]) -> None:
        if folder.startswith(_NEVER_REPLACED):
            await self.run(lambda: self._delete(folder, names))
        else:
            await self._exclusively(lambda: self._delete(folder, names))

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        names = await self.run(lambda: _names(self._root / folder, after))
        for at in range(0, len(names), _CHUNK):
            chunk = names[at : at + _CHUNK]
            listed = await self.run(lambda chunk=chunk: _with_times(self._root / folder, chunk))
            if listed:
                yield listed

    async def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        names = await self.run(lambda: _names(self._root / folder, ""))
        for at in range(0, len(names), _CHUNK):
            yield names[at : at + _CHUNK]

    async def describe(self) -> tuple[HealthCheck, ...]:
        return await self.run(lambda: tuple(_facts_of(self._root, sync=self._sync)))

    def typed(self, error: Exception) -> Exception:
        return _typed(error, self.location) if isinstance(error, OSError) else error

    def prepare(self, *, read_only: bool) -> None:
        if read_only:
            if self._root.is_dir():
                return
            raise ConfigurationError(
                f"The directory {self.location} does not exist, and opening it read-only creates none. Check the path."
            )
        scratch = self._root / _SCRATCH
        missing = [folder for folder in (self._root, *self._root.parents) if not folder.exists()]
        scratch.mkdir(parents=True, exist_ok=True)
        if missing:
            self._root.chmod(0o700)
        for folder in missing or [self._root]:
            # Its creator may have died before the name was durable. The parent may be unreadable for this user.
            with contextlib.suppress(PermissionError):
                _flush(folder.parent)
        # Killed writers left these files; no other process knows their names.
        for left in scratch.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _SCRATCH_SECONDS:
                    left.unlink()

    def _write(self, folder: str, name: str, data: bytes, place: Callable[[Path, Path], None]) -> bool:
        target = self._root / folder / name
        try:
            if not self._placed(target, data, place):
                return False
        except OSError as error:
            raise _not_written(error, self.location, len(data)) from None
        try:
            self._flush_folder(target.parent)
        except OSError as error:
            raise OutcomeUnknownError(
                f"{self.location} failed after a write, which a loss of power may undo: {error.strerror}."
            ) from None
        return True

    def _placed(self, target: Path, data: bytes, place: Callable[[Path, Path], None]) -> bool:
        """Write a scratch file and give it its name; return whether that was free."""
        scratch = self._root / _SCRATCH / nonce()
        try:
            with scratch.open("xb") as file:
                file.write(data)
                if self._sync and data:
                    file.flush()
                    os.fsync(file.fileno())
            try:
                place(scratch, target)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                place(scratch, target)
        except FileExistsError:
            return False
        finally:
            scratch.unlink(missing_ok=True)
        return True

    def _replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        found = _read(self._root / folder / name)
        return found is not None and found.tag == tag and self._write(folder, name, data, os.replace)

    def _delete(self, folder: str, names: Collection[str]) -> bool:
        for name in names:
            (self._root / folder / name).unlink(missing_ok=True)
        # Nothing refers to a deleted object of a log: it does no harm if a crash restores it.
        if self._sync and not folder.startswith(_NEVER_REPLACED):
            with contextlib.suppress(FileNotFoundError):
                _flush(self._root / folder)
        return True

    # Locking

    async def _exclusively(self, work: Callable[[], bool]) -> bool:
        """Run ``work`` while no other process replaces or deletes a document.

        It waits outside the thread pool, which other operations need.
        """
        began = time.monotonic()
        while (done := await self.run(lambda: self._locked(work))) is None:
            if time.monotonic() - began > self._lock_seconds:
                raise StoreUnavailableError(
                    f"Another process has locked {self._root / _LOCK} for {self._lock_seconds:g} s, so nothing was "
                    f"written. If that process is stopped, continue or end it: fuser -v {self._root / _LOCK}"
                )
            await asyncio.sleep(_LOCK_PAUSE_S)
        return done

    def _locked(self, work: Callable[[], bool]) -> bool | None:
        """Run ``work`` if no other process holds the lock, which ends with its process; else return ``None``."""
        try:
            import fcntl
        except ImportError:
            raise UnsupportedError("A directory as a store needs an operating system with flock.") from None
        with (self._root / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            return work()

    # Durability

    def _flush_objects(self, folder: Path, names: Collection[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                _flush(folder / name)
        if folder.exists():
            self._flush_folder(folder)

    def _flush_folder(self, folder: Path) -> None:
        """Make a folder's names durable, and once also its own name: its creator may have died before."""
        if not self._sync:
            return
        _flush(folder)
        while folder not in self._durable and folder != self._root:
            _flush(folder.parent)
            if len(self._durable) >= _MOST_DURABLE:
                self._durable.clear()
            self._durable.add(folder)
            folder = folder.parent


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> Found | None:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            return Found(file.read(), f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}")
    except FileNotFoundError:
        return None


def _names(folder: Path, after: str) -> list[str]:
    try:
        names = set(os.listdir(folder))  # noqa: PTH208
        if len(names) > _AT_ONCE:
            # The system reads a large directory in parts. A file that is renamed in between may be in none of them.
            names.update(os.listdir(folder))  # noqa: PTH208
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name > after)


def _with_times(folder: Path, names: Sequence[str]) -> list[Listed]:
    listed: list[Listed] = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            status = (folder / name).stat()
            listed.append(Listed(name, status.st_mtime, status.st_size))
    return listed


def _typed(error: OSError, location: str) -> EverthreadError:
    """Translate an error of the operating system."""
    reason = error.strerror or type(error).__name__
    if error.errno in _UNUSABLE:
        return ConfigurationError(f"{location} cannot be used: {reason}. Please {_UNUSABLE[error.errno]}.")
    if error.errno in _EXHAUSTED:
        return StoreUnavailableError(f"{location} failed: {reason}. Please {_EXHAUSTED[error.errno]}, and try again.")
    return StoreUnavailableError(f"{location} failed: {reason}.")


def _not_written(error: OSError, location: str, size: int) -> EverthreadError:
    """Translate the error of a write of ``size`` bytes that failed and stored nothing."""
    if error.errno == errno.EFBIG:
        most = _largest_file()
        message = f"A file in {location} would have {size:,} bytes; the limit is {most:,} (ulimit -f)."
        return LimitExceededError(message, size, most)
    found = _typed(error, location)
    return NotWrittenError(f"{found} Nothing was written.") if isinstance(found, StoreUnavailableError) else found


def _largest_file() -> int:
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0]


def _facts_of(root: Path, *, sync: bool) -> Iterator[HealthCheck]:
    """Describe a directory: file system, rights, free space, durability."""
    kind = _file_system(root)
    yield HealthCheck("server", f"a directory on {kind or 'an unknown file system'}")
    mode = root.stat().st_mode
    readable = mode & (stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    advice = "Other users of this machine can read it: chmod 700." if readable else ""
    yield HealthCheck("directory", f"mode {stat.filemode(mode)}", "warning" if readable else "ok", advice)
    free = shutil.disk_usage(root).free
    little = free < _LITTLE_ROOM
    advice = "Free some space." if little else ""
    yield HealthCheck("disk", f"{free:,} bytes free", "warning" if little else "ok", advice)
    yield _durability(kind, sync=sync)


def _durability(kind: str, *, sync: bool) -> HealthCheck:
    if kind in _IN_MEMORY:
        advice = "The file system is in memory: use a directory on a disk."
        return HealthCheck("durability", "nothing outlives the machine", "warning", advice)
    if kind in _NETWORKED:
        advice = "Hard links must be atomic, also for other machines, and the server decides what fsync means."
        return HealthCheck("durability", "the server of this network file system decides", "warning", advice)
    if not sync:
        return HealthCheck("durability", "the newest writes may be lost with the power (sync=false)")
    return HealthCheck("durability", "every write survives a loss of power (fsync of file and folder)")


def _file_system(root: Path) -> str:
    """Return the type of the file system (Linux only), or an empty string."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = {line.split()[1].replace("\\040", " "): line.split()[2] for line in lines}
    return next((mounts[str(folder)] for folder in (root, *root.parents) if str(folder) in mounts), "")
