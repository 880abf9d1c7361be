"""Objects as files in a directory: atomic also under SIGKILL, and on the disk before a write is acknowledged.

obstore's own local store never asks the disk to write (no fsync), and cannot replace a file only if it is still
the same, so this is done here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Sequence
from pathlib import Path

from everthread.engines._segments.diagnosis import Described
from everthread.engines._segments.names import nonce
from everthread.engines._segments.storage import Browsable, Found, Listed
from everthread.engines._segments.threads import ThreadedStorage
from everthread.errors import ConfigurationError, StoreUnavailableError, UnsupportedError
from everthread.model import Fact

_CHUNK = 1000
_SCRATCH = ".new"
_LOCK = ".lock"
_SCRATCH_SECONDS = 3600
_LITTLE_ROOM = 100_000_000
_IN_MEMORY = {"tmpfs", "ramfs"}
_NETWORKED = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.blobfuse2", "ceph"}


class DirectoryStorage(ThreadedStorage, Browsable, Described):
    """Objects as files below a directory, which is created, for its owner's eyes alone, if it is not there.

    A file is written under a scratch name, flushed to the disk and then given its name by a hard link (which fails if
    the name is taken) or a rename; then its folder is flushed. So other processes, and a restart after a crash, see
    whole files only. Works for many processes of one machine; a network file system must have atomic links.

    Args:
        path: The directory.
        sync: Flush to the disk before a write is acknowledged. Without it, what was written in the last seconds may
            be lost when the machine (not the process) goes down.
    """

    threads = 8
    max_object_bytes = 256 * 1024 * 1024

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        try:
            self._root = Path(path).expanduser().absolute()
        except (RuntimeError, OSError) as error:
            raise ConfigurationError(f"The directory cannot be resolved: {type(error).__name__}.") from None
        self._sync = sync

    @property
    def location(self) -> str:
        return self._root.as_uri()

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        return await self.run(lambda: self._write(folder, name, data, os.link))

    async def put(self, folder: str, name: str, data: bytes) -> None:
        await self.run(lambda: self._write(folder, name, data, os.replace))

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        return await self.run(lambda: self._replace(folder, name, data, tag))

    async def get(self, folder: str, name: str) -> Found | None:
        return await self.run(lambda: _read(self._root / folder / name))

    async def delete(self, folder: str, names: Collection[str]) -> None:
        await self.run(lambda: self._delete(folder, names))

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

    async def describe(self) -> tuple[Fact, ...]:
        return await self.run(lambda: tuple(_facts(self._root, sync=self._sync)))

    async def describe_object(self, folder: str, name: str) -> tuple[Fact, ...]:
        return ()

    def typed(self, error: Exception) -> Exception:
        if isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)):
            return ConfigurationError(f"{self.location} cannot be used: {error.strerror}.")
        if isinstance(error, OSError):
            return StoreUnavailableError(f"{self.location} failed: {error.strerror or type(error).__name__}.")
        return error

    def prepare(self) -> None:
        scratch, is_new = self._root / _SCRATCH, not self._root.exists()
        _make_folder(scratch)
        if is_new:
            self._root.chmod(0o700)
        # What a writer left that was killed; nobody else knows these names.
        for left in scratch.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _SCRATCH_SECONDS:
                    left.unlink()

    def _write(self, folder: str, name: str, data: bytes, place: Callable[[Path, Path], None]) -> bool:
        scratch, target = self._root / _SCRATCH / nonce(), self._root / folder / name
        try:
            with scratch.open("xb") as file:
                file.write(data)
                if self._sync and data:
                    file.flush()
                    os.fsync(file.fileno())
            try:
                place(scratch, target)
            except FileNotFoundError:
                _make_folder(target.parent)
                place(scratch, target)
        except FileExistsError:
            return False
        finally:
            scratch.unlink(missing_ok=True)
        self._flush_folder(target.parent)
        return True

    def _replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        with self._locked():
            found = _read(self._root / folder / name)
            return found is not None and found.tag == tag and self._write(folder, name, data, os.replace)

    def _delete(self, folder: str, names: Collection[str]) -> None:
        with self._locked():
            for name in names:
                (self._root / folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Keeps other processes from replacing and deleting; ends with the process that holds it."""
        try:
            import fcntl
        except ImportError:
            raise UnsupportedError("A directory as a store needs an operating system with flock.") from None
        with (self._root / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _flush_folder(self, folder: Path) -> None:
        if not self._sync:
            return
        _flush(folder)


def _make_folder(folder: Path) -> None:
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir()
        _flush(each.parent)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
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
        return sorted(name for name in os.listdir(folder) if name > after)  # noqa: PTH208
    except FileNotFoundError:
        return []


def _with_times(folder: Path, names: Sequence[str]) -> list[Listed]:
    listed: list[Listed] = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            status = (folder / name).stat()
            listed.append(Listed(name, status.st_mtime, status.st_size))
    return listed


def _facts(root: Path, *, sync: bool) -> Iterator[Fact]:
    kind = _file_system(root)
    yield Fact("server", f"a directory on {kind or 'a file system that does not tell its name'}")
    mode = root.stat().st_mode
    readable = mode & (stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    advice = "Other users of this machine can read it: chmod 700." if readable else ""
    yield Fact("directory", f"mode {stat.filemode(mode)}", "warning" if readable else "ok", advice)
    free = shutil.disk_usage(root).free
    little = free < _LITTLE_ROOM
    advice = "Free some space." if little else ""
    yield Fact("disk", f"{free:,} bytes free", "warning" if little else "ok", advice)
    yield _durability(kind, sync=sync)


def _durability(kind: str, *, sync: bool) -> Fact:
    if kind in _IN_MEMORY:
        advice = "It is kept in memory: use a directory on a disk."
        return Fact("durability", "nothing outlives the machine", "warning", advice)
    if kind in _NETWORKED:
        advice = "Links must be atomic there, also for other machines; and what fsync means is up to the server."
        return Fact("durability", "up to the server of this network file system", "warning", advice)
    if not sync:
        return Fact("durability", "the newest writes may be lost with the power (sync=false)")
    return Fact("durability", "every write survives a loss of power (fsync of file and folder)")


def _file_system(root: Path) -> str:
    """The name of the file system's kind, where the system tells it (Linux)."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = {line.split()[1].replace("\\040", " "): line.split()[2] for line in lines}
    return next((mounts[str(folder)] for folder in (root, *root.parents) if str(folder) in mounts), "")
