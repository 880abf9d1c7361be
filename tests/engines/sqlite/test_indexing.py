"""The index of a file that holds much already: its making tells how it goes, can be broken off, takes little memory."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from everthread import ThreadKey, new_message
from everthread.engines.sqlite import SqliteStore

KEY = ThreadKey("trip")
WORDS = " ".join(f"word{number}" for number in range(120))


async def fill(path: Path, turns: int) -> None:
    """Turns of 500 messages of about a kilobyte."""
    async with SqliteStore(path, synchronous="normal") as store:
        for number in range(turns):
            turn = [new_message({"role": "user", "content": f"{WORDS} of{number} at{at}"}) for at in range(500)]
            await store.append(KEY, turn)


async def test_progress_rises_to_the_total_and_then_ends(tmp_path: Path) -> None:
    await fill(tmp_path / "x.db", 4)
    seen: list[tuple[int, int]] = []
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.prepare_search(advance=lambda done, total: seen.append((done, total)))
        assert seen == [(500 * part, 2000) for part in range(1, 5)]
        await store.prepare_search(advance=lambda done, total: seen.append((done, total)))
        assert len(seen) == 4
        assert len(await store.search("", "of3")) == 20


async def test_a_search_prepares_by_itself_and_nothing_is_left_then(tmp_path: Path) -> None:
    await fill(tmp_path / "x.db", 2)
    async with SqliteStore(tmp_path / "x.db") as store:
        assert len(await store.search("", "at499")) == 2
        await store.prepare_search(advance=lambda done, total: pytest.fail("there is nothing to do"))


async def test_one_that_is_cancelled_goes_on_where_it_was(tmp_path: Path) -> None:
    await fill(tmp_path / "x.db", 6)
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        if done == 1000:
            making.cancel()

    async with SqliteStore(tmp_path / "x.db") as store:
        making = asyncio.create_task(store.prepare_search(advance=stop))
        with pytest.raises(asyncio.CancelledError):
            await making
        told = {fact.name: fact.value for fact in await store.diagnose()}
        assert told["search"] in {f"the index is {part}% complete: the next search continues" for part in (33, 50)}
        await store.append(KEY, [new_message({"role": "user", "content": "meanwhile"})])
        await store.prepare_search(advance=lambda done, total: seen.append((done, total)))
        # One part that was under way when it was cancelled may have been carried out.
        assert seen[-1] in {(2000, 2000), (1500, 1500)}
        assert len(await store.search("", "at7")) == 6
        assert len(await store.search("", "meanwhile")) == 1


async def test_one_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await fill(path, 10)
    script = f"""
import asyncio
from everthread.engines.sqlite import SqliteStore

async def main():
    async with SqliteStore({str(path)!r}) as store:
        await store.prepare_search(advance=lambda done, total: print(done, flush=True))

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "500\n"
        os.kill(process.pid, signal.SIGKILL)
        told = ["500", *process.stdout.read().split()]
    seen: list[int] = []
    async with SqliteStore(path) as store:
        await store.prepare_search(advance=lambda done, total: seen.append(total))
        assert not seen or seen[0] <= 5000 - int(told[-1])
        for number in range(10):
            assert len(await store.search("", f"of{number} at1")) == 1


async def test_memory_is_bounded_by_a_part_not_by_the_file(tmp_path: Path) -> None:
    def peak(turns: int) -> int:
        path = tmp_path / f"{turns}.db"
        asyncio.run(fill(path, turns))
        script = f"""
import asyncio
from everthread.engines.sqlite import SqliteStore

async def main():
    async with SqliteStore({str(path)!r}, synchronous="normal") as store:
        await store.prepare_search()

asyncio.run(main())
print(open("/proc/self/status").read())
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        found = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
        assert found is not None
        return int(found[1])

    small, large = await asyncio.to_thread(peak, 4), await asyncio.to_thread(peak, 60)
    # 30,000 messages are 30 MB, and their words as much again.
    assert large < small + 25_000
