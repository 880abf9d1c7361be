"""SIGKILL in the middle of moving threads, and again: what follows ends as one clean run does."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from everthread import Store, ThreadKey, open_store
from everthread.transfer import export_threads
from tests.transfer.conftest import Places
from tests.transfer.conversations import everything, fill, turn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SEEDS = [1, 2]
RUNS = [("sqlite", 1), ("sqlite", 2), ("redis", 1), ("redis", 2), ("postgres", 3), ("objects", 4)]


def run_until_done(how: str, source: str, target: str, seed: int) -> int:
    """Kills it at a later call each time, until it comes to its end; says how often."""
    dice = random.Random(seed)
    calls = kills = 0
    while True:
        calls += dice.randint(1, 45)
        later = dice.choice([0, 0, 300, 1500])
        command = [sys.executable, "-m", "tests.transfer.killed", str(calls), str(later), how, source, target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            return kills
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1


async def fill_more(store: Store) -> None:
    await fill(store)
    for number in range(150):
        await store.append(ThreadKey("long"), turn(number))
        if number % 50 == 9:
            await store.truncate(ThreadKey("long"), stop=4 * number)


async def filled(url: str) -> str:
    async with open_store(url) as store:
        await fill_more(store)
    return url


@pytest.mark.parametrize(("place", "seed"), RUNS, indirect=["place"])
async def test_a_copy_killed_many_times_equals_a_clean_one(place: str, tmp_path: Path, seed: int) -> None:
    source = await filled(f"sqlite:///{tmp_path}/source.db")
    assert run_until_done("copy", source, place, seed) > 1
    async with open_store(source) as store, open_store(place) as killed:
        assert await everything(killed) == await everything(store)


@pytest.mark.parametrize(("place", "seed"), RUNS, indirect=["place"])
async def test_an_import_killed_many_times_equals_a_clean_one(place: str, tmp_path: Path, seed: int) -> None:
    async with open_store("memory:") as store:
        await fill_more(store)
        await export_threads(store, tmp_path / "x")
        assert run_until_done("import", str(tmp_path / "x"), place, seed) > 1
        async with open_store(place) as killed:
            assert await everything(killed) == await everything(store)


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_export_killed_many_times_writes_the_same_bytes(places: Places, tmp_path: Path, seed: int) -> None:
    source = await filled(places())
    assert run_until_done("export", source, str(tmp_path / "killed"), seed) > 1
    async with open_store(source) as store:
        await export_threads(store, tmp_path / "clean")
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "clean").read_bytes()
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".db"} >= {"killed", "clean"}
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_folder_export_killed_many_times_equals_a_clean_one(places: Places, tmp_path: Path, seed: int) -> None:
    source = await filled(places())
    assert run_until_done("export into a folder", source, str(tmp_path / "killed"), seed) > 1
    async with open_store(source) as store:
        await export_threads(store, tmp_path / "clean", into_folder=True)
    killed, clean = ({path.name: path.read_bytes() for path in (tmp_path / it).iterdir()} for it in ("killed", "clean"))
    assert killed == clean
