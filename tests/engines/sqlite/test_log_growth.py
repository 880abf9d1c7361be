"""The write-ahead log gets its length in advance, at any moment safely."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from everthread import NewMessage, ThreadKey
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite.log_growth import STEPS
from tests.engines.sqlite.database import KEY, look, run_at_the_same_time

FIRST, FULL = STEPS.values()
FEW, MANY = STEPS


def log_length(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


async def test_after_some_commits_the_log_has_its_length(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    lengths: list[int] = []
    async with SqliteStore(path) as store:
        for number in range(MANY + 20):
            await store.append(KEY, [NewMessage(b"%d" % number)])
            lengths.append(log_length(path))
        assert [message.payload for message in await store.read(KEY)] == [b"%d" % n for n in range(MANY + 20)]
        assert max(lengths[: FEW - 2]) < FIRST
        assert set(lengths[FEW : MANY - 1]) == {FIRST}
        assert set(lengths[MANY:]) == {FULL}
        await store.erase_remains()
        assert log_length(path) == 0
        for number in range(FEW):
            await store.append(KEY, [NewMessage(b"%d" % number)])
        assert log_length(path) == FIRST
    assert [each.name for each in tmp_path.iterdir()] == ["x.db"]


async def test_a_log_that_is_not_synced_is_left_to_grow(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db", synchronous="normal") as store:
        for number in range(FEW + 1):
            await store.append(KEY, [NewMessage(b"%d" % number)])
        assert log_length(tmp_path / "x.db") < FIRST


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the size of files")
@pytest.mark.parametrize("killed_at", [1_000_001, FIRST - 1, FIRST + 1, FULL - 500_000, FULL - 1])
async def test_a_process_killed_while_the_log_grows_loses_nothing(tmp_path: Path, killed_at: int) -> None:
    script = f"""
        import asyncio, os, resource, signal
        from everthread import NewMessage, ThreadKey, open_store

        async def main():
            # The kernel kills the process in the middle of the write that makes a file longer than this.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, ({killed_at}, {killed_at}))
            async with open_store("sqlite:///{tmp_path}/x.db") as store:
                for number in range(1000):
                    await store.append(ThreadKey("a"), [NewMessage(b"%d" % number)], append_id=str(number))
                    os.write(1, b"%d\\n" % number)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    confirmed = len(done.stdout.split())
    assert FEW - 2 <= confirmed <= MANY
    assert log_length(tmp_path / "x.db") == killed_at
    async with SqliteStore(tmp_path / "x.db") as store:
        found = [message.payload for message in await store.read(KEY)]
        assert found == [b"%d" % number for number in range(len(found))]
        assert confirmed <= len(found) <= confirmed + 1
        again = await store.append(KEY, [NewMessage(b"0")], append_id=str(confirmed - 1))
        assert again.replayed
        assert (await store.append(KEY, [NewMessage(b"1")])).first_seq == len(found)
    assert look(tmp_path / "x.db", "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_two_processes_lengthen_one_log_and_lose_nothing(tmp_path: Path) -> None:
    script = f"""
        from everthread import NewMessage, ThreadKey, open_store

        async def main(number):
            key = ThreadKey(f"thread {{number}}")
            async with open_store("sqlite:///{tmp_path}/x.db", busy_timeout=50) as store:
                for turn in range({MANY + 20}):
                    await store.append(key, [NewMessage(b"%d" % turn)])
                    if turn % 25 == 24:
                        # The other process has written meanwhile, and gets an empty log.
                        await store.erase_remains()
                page = await store.read(key)
                assert [message.payload for message in page] == [b"%d" % turn for turn in range({MANY + 20})]
    """
    run_at_the_same_time(script, processes=2)
    assert look(tmp_path / "x.db", "SELECT count(*) FROM messages") == [(2 * (MANY + 20),)]
    assert look(tmp_path / "x.db", "PRAGMA integrity_check") == [("ok",)]


async def test_a_log_of_another_file_is_not_touched(tmp_path: Path) -> None:
    path, log = tmp_path / "x.db", tmp_path / "x.db-wal"
    store = SqliteStore(path)
    for number in range(FEW - 3):
        await store.append(ThreadKey("a"), [NewMessage(b"%d" % number)])
    other = log.read_bytes()
    log.unlink()
    log.write_bytes(other)
    for _ in range(5):
        with pytest.raises(Exception, match="removed or replaced"):
            await store.append(KEY, [NewMessage(b"1")])
    assert log.read_bytes() == other
    await store.aclose()
