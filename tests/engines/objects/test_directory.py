"""A directory as a store: what is acknowledged is durable, what fails says why, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from everthread.contract import Store
from everthread.engines._segments.directory import DirectoryStorage
from everthread.engines.objects import ObjectStore
from everthread.errors import (
    ConfigurationError,
    EverthreadError,
    LimitExceededError,
    StoreUnavailableError,
)
from everthread.model import ThreadKey
from tests.engines.segments.scripts import message

KEY = ThreadKey("thread", "tenant")


@asynccontextmanager
async def opened(path: Path, *, sync: bool = True, lock_seconds: float = 10) -> AsyncIterator[Store]:
    async with ObjectStore(DirectoryStorage(path, sync=sync, lock_seconds=lock_seconds)) as store:
        yield store


class Disk:
    """Watches which files and folders are flushed, and lets flushes of some fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flushed: set[Path] = set()
        self.fails: Callable[[Path], bool] = lambda path: False
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._flush)

    def _flush(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if self.fails(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fsync(handle)
        self.flushed.add(path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def all_of(root: Path, folder: Path) -> set[Path]:
    """A folder, the folders above it, and the files in it."""
    above = {each for each in (folder, *folder.parents) if each.is_relative_to(root)}
    return above | set(folder.iterdir())


async def test_a_repeated_append_is_durable_when_it_is_acknowledged(tmp_path: Path, disk: Disk) -> None:
    # A store that never flushes leaves what a writer leaves that is killed before it flushes.
    async with opened(tmp_path / "d", sync=False) as killed:
        await killed.append(KEY, [message(0)], append_id="1")
    disk.flushed.clear()
    async with opened(tmp_path / "d") as store:
        assert (await store.append(KEY, [message(0)], append_id="1")).replayed
    assert disk.flushed >= all_of(tmp_path / "d", tmp_path / "d/t/tenant/thread")


async def test_a_repeated_append_to_a_compacted_thread_is_durable(tmp_path: Path, disk: Disk) -> None:
    async with opened(tmp_path / "d", sync=False) as killed:
        for number in range(3):
            await killed.append(KEY, [message(number)], append_id=str(number))
        await killed.compact(KEY)  # type: ignore[attr-defined]
    disk.flushed.clear()
    async with opened(tmp_path / "d") as store:
        assert (await store.append(KEY, [message(0)], append_id="0")).replayed
    joined = [each for each in (tmp_path / "d/s/tenant/thread").iterdir() if each.read_bytes().startswith(b'{"v"')]
    assert disk.flushed & set(joined)


async def test_an_append_flushes_folders_that_a_killed_writer_made(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "d/t/tenant/thread").mkdir(parents=True)
    async with opened(tmp_path / "d") as store:
        await store.append(KEY, [message(0)])
    assert disk.flushed >= all_of(tmp_path / "d", tmp_path / "d/t/tenant/thread") - set(
        (tmp_path / "d/t/tenant/thread").iterdir()
    )
    assert tmp_path in disk.flushed


async def test_a_failed_flush_is_repeated_before_the_append_is_acknowledged(tmp_path: Path, disk: Disk) -> None:
    folder = tmp_path / "d/t/tenant/thread"
    async with opened(tmp_path / "d") as store:
        await store.append(KEY, [message(0)])
        failures = 0

        def fails(path: Path) -> bool:
            nonlocal failures
            is_first = path == folder and failures == 0
            failures += is_first
            return is_first

        disk.flushed.clear()
        disk.fails = fails
        await store.append(KEY, [message(1)], append_id="1")
        assert failures == 1
        assert folder in disk.flushed


async def test_an_append_that_is_never_flushed_is_of_unknown_outcome(tmp_path: Path, disk: Disk) -> None:
    folder = tmp_path / "d/t/tenant/thread"
    async with opened(tmp_path / "d") as store:
        await store.append(KEY, [message(0)])
        disk.fails = lambda path: path == folder
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="Input/output error"):
                await store.append(KEY, [message(1)], append_id="1")
        disk.fails = lambda path: False
        assert (await store.append(KEY, [message(1)], append_id="1")).first_seq == 1
        assert len(await store.read(KEY)) == 2


async def test_a_deleted_document_is_flushed(tmp_path: Path, disk: Disk) -> None:
    async with opened(tmp_path / "d") as store:
        await store.put_document(KEY, "d", b"1")
        disk.flushed.clear()
        await store.delete_document(KEY, "d")
    assert tmp_path / "d/d/tenant/thread" in disk.flushed


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreUnavailableError),
        (errno.EDQUOT, StoreUnavailableError),
        (errno.EMFILE, StoreUnavailableError),
        (errno.EROFS, ConfigurationError),
        (errno.EACCES, ConfigurationError),
        (errno.ENAMETOOLONG, ConfigurationError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
async def test_a_write_that_the_system_refuses_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[EverthreadError]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    async with opened(tmp_path / "d") as store:
        await store.append(KEY, [message(0)])
        with monkeypatch.context() as patched:
            patched.setattr(os, "link", refuse)
            with pytest.raises(kind, match=os.strerror(number)) as caught:
                await store.append(KEY, [message(1)])
            assert type(caught.value) is kind
        assert (await store.append(KEY, [message(2)])).first_seq == 1


async def test_a_turn_above_the_file_size_limit_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as store:
        await store.append(KEY, [message(0)])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(LimitExceededError) as caught:
                await store.append(KEY, [message(1, size=10_000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.limit == 4096
        assert (await store.append(KEY, [message(2)])).first_seq == 1


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Another process holds the directory's lock, as one that is stopped does."""
    code = "import fcntl,sys; f=open(sys.argv[1],'a'); fcntl.flock(f,fcntl.LOCK_EX); print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await asyncio.to_thread(process.stdout.readline)
        yield
    finally:
        process.kill()
        process.communicate()


async def test_a_stopped_lock_holder_delays_no_append(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as store:
        await store.append(KEY, [message(0)])
        async with locked(tmp_path / "d"):
            for number in range(20):
                await asyncio.wait_for(store.append(KEY, [message(number)]), 60)
            await store.compact(KEY)  # type: ignore[attr-defined]
            assert len((await store.list_threads(KEY.tenant)).items) == 1


async def test_a_document_waits_for_the_lock_within_a_bound(tmp_path: Path) -> None:
    async with opened(tmp_path / "d", lock_seconds=0.1) as store:
        await store.put_document(KEY, "d", b"1")
        async with locked(tmp_path / "d"):
            with pytest.raises(StoreUnavailableError, match=r"d/\.lock"):
                await store.put_document(KEY, "d", b"2")
            with pytest.raises(StoreUnavailableError, match=r"d/\.lock"):
                await store.delete_document(KEY, "d")
            await store.append(KEY, [message(0)])
        assert (await store.put_document(KEY, "d", b"3")).revision == 2
