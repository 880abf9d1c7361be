"""``everthread prune``: its output and exit status; a killed run can be repeated."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from everthread import ThreadKey, open_store
from tests.cli.driving import PROGRAM, Tty, environment, piped
from tests.operations.threads import answering, calling, everything, said

THREADS = 150


async def fill(url: str, threads: int = THREADS) -> None:
    async with open_store(url) as store:
        for number in range(threads):
            await store.append(ThreadKey(f"t{number}"), [said("a"), calling("c"), answering("c"), said("b")])
            await store.append(ThreadKey(f"t{number}"), [said("c"), said("d")])


async def contents(url: str) -> dict[str, Any]:
    async with open_store(url) as store:
        return await everything(store)


def prune(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return piped("", *arguments, home=home, program=(PROGRAM, "prune"))


async def test_prune_reports_the_totals(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill(url, 3)
    run = prune(tmp_path, "--store", url, "--max-messages", "4", "--yes", "--json")
    assert run.returncode == 0
    *each, totals = map(json.loads, run.stdout.splitlines())
    assert [(one["messages"], one["start"], one["deleted"]) for one in each] == [(3, 3, False)] * 3
    assert totals == {
        "schema": 1,
        "dry_run": False,
        "threads": 3,
        "shortened": 3,
        "deleted": 0,
        "messages": 9,
        "size": sum(one["size"] for one in each),
        "busy": 0,
        "failed": 0,
    }
    again = prune(tmp_path, "--store", url, "--max-messages", "4", "--yes")
    assert again.stdout == "Freed 0 messages (0 B): 0 of 3 threads shortened, 0 deleted.\n"


async def test_prune_prints_the_amount_before_it_asks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    await fill(url, 3)
    before = await contents(url)
    with Tty("--store", url, "--max-messages", "4", home=tmp_path, program=(PROGRAM, "prune"), columns=200) as tty:
        tty.expect(r"9 messages \(\d+ B\): 3 of 3 threads shortened, 0 deleted. Continue\? \[y/N\]")
        assert "3/3" in tty.raw
        tty.type("n\r")
        assert tty.exit_status() == 1
    assert await contents(url) == before


async def test_a_dry_run_asks_nothing_and_changes_nothing(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill(url, 2)
    before = await contents(url)
    run = prune(tmp_path, "--store", url, "--max-size", "0", "--dry-run")
    assert run.returncode == 0
    assert run.stdout.splitlines()[-1].startswith("Would free 12 messages")
    assert len(run.stdout.splitlines()) == 3
    assert await contents(url) == before


async def test_without_a_terminal_prune_requires_yes(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill(url, 1)
    run = prune(tmp_path, "--store", url, "--max-messages", "1")
    assert run.returncode == 2
    assert "--yes" in run.stderr
    assert len((await contents(url))["t0"][2]) == 6


@pytest.mark.parametrize(
    "arguments",
    [(), ("--max-messages", "-1"), ("--max-size", "5 parsecs"), ("--max-age", "1y"), ("--older-than", "soon")],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    run = prune(tmp_path, "--store", f"sqlite:///{tmp_path}/t.db", *arguments, "--yes")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_an_unreachable_store_ends_with_4(tmp_path: Path) -> None:
    url = "redis://:hush@127.0.0.1:1/0?retries=0"
    run = prune(tmp_path, "--store", url, "--max-messages", "1", "--yes")
    assert run.returncode == 4
    assert "hush" not in run.stdout + run.stderr


@pytest.mark.slow
async def test_killed_and_run_again_it_ends_as_one_run(places: Any, tmp_path: Path) -> None:
    killed, undisturbed = places(), places()
    await asyncio.gather(fill(killed), fill(undisturbed))
    command = [PROGRAM, "prune", "--store", killed, "--max-messages", "3", "--yes", "--json"]
    reading, writing = os.pipe()
    # It tells of each thread and waits when the pipe is full, with some threads done and the others not.
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(command, stdout=writing, env=environment(tmp_path))
    assert os.read(reading, 1) == b"{"
    process.kill()
    process.wait()
    os.close(reading)
    os.close(writing)
    lengths = {len(messages) for _, _, messages in (await contents(killed)).values()}
    assert len(lengths) > 1
    for url in (killed, undisturbed):
        assert prune(tmp_path, "--store", url, "--max-messages", "3", "--yes").returncode == 0
    assert await contents(killed) == await contents(undisturbed)
