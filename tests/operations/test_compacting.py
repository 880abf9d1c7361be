"""Compacting: fewer objects, no bytes of what was dropped, and the same threads as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everthread import Store, ThreadKey, open_store
from everthread.capabilities import SupportsCompaction, capability
from everthread.errors import UnsupportedError
from everthread.messages.codec import new_message
from everthread.operations.compact import compact_threads
from everthread.operations.prune import PrunePolicy, prune
from everthread.wrappers.redacted import Redacted
from tests.cli.driving import PROGRAM, piped

TENANT = "acme"
KEYS = [ThreadKey(f"thread {number}", TENANT) for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "threads"


async def fill(store: Store) -> None:
    for key in KEYS:
        for number in range(30):
            await store.append(key, [new_message({"role": "user", "content": f"secret of turn {number}!"})])


async def texts(store: Store) -> list[list[bytes]]:
    return [[message.payload for message in await store.read(key)] for key in KEYS]


def files_with(folder: Path, text: str) -> int:
    return sum(text.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


async def test_threads_are_as_before_and_lie_in_fewer_bytes(folder: Path) -> None:
    async with open_store(f"file://{folder}") as store:
        await fill(store)
        before, size = await texts(store), size_of(folder)
        done = [thread.key async for thread in compact_threads(store, TENANT)]
        assert sorted(done) == KEYS
        assert await texts(store) == before
        assert size_of(folder) < size / 2


async def test_dropped_messages_take_no_space(folder: Path) -> None:
    async with open_store(f"file://{folder}") as store:
        await fill(store)
        for key in KEYS:
            await store.truncate(key, start=20)
        assert files_with(folder, "secret of turn 3!") == 3
        async for _ in compact_threads(store, TENANT):
            pass
        assert files_with(folder, "secret of turn 3!") == 0
        assert files_with(folder, "secret of turn 25!") == 3


async def test_pruning_frees_what_it_drops(folder: Path) -> None:
    async with open_store(f"file://{folder}") as store:
        await fill(store)
        async for _ in prune(store, PrunePolicy(max_messages=10), TENANT):
            pass
        assert files_with(folder, "secret of turn 3!") == 0
        assert [len(page) for page in await texts(store)] == [10, 10, 10]


async def test_other_tenants_are_left_alone(folder: Path) -> None:
    async with open_store(f"file://{folder}") as store:
        await fill(store)
        assert [thread async for thread in compact_threads(store, "other")] == []


async def test_a_wrapper_compacts_and_a_view_does_not(folder: Path) -> None:
    async with Redacted(open_store(f"file://{folder}"), str) as store:
        await fill(store)
        size = size_of(folder)
        assert len([thread async for thread in compact_threads(store, TENANT)]) == 3
        assert size_of(folder) < size / 2
        assert capability(store.tenant(TENANT), SupportsCompaction) is None


async def test_an_engine_without_small_objects_is_unsupported() -> None:
    async with open_store("memory:") as store:
        with pytest.raises(UnsupportedError, match="object storage"):
            compact_threads(store)


async def test_a_thread_that_is_not_there_is_left_so(folder: Path) -> None:
    async with open_store(f"file://{folder}") as store:
        assert capability(store, SupportsCompaction)
        await store.compact(KEYS[0])
        assert await store.get_thread(KEYS[0]) is None


async def test_the_command_compacts_one_thread_or_all(folder: Path, tmp_path: Path) -> None:
    url = f"file://{folder}"
    async with open_store(url) as store:
        await fill(store)
    program = (PROGRAM, "compact")
    place = ("--store", url, "--tenant", TENANT)
    one = piped("", "thread 1", *place, home=tmp_path, program=program)
    assert (one.returncode, one.stdout) == (0, "Compacted 1 thread.\n")
    every = piped("", *place, "--json", home=tmp_path, program=program)
    assert json.loads(every.stdout) == {"threads": 3, "schema": 1}
    unknown = piped("", "nowhere", *place, home=tmp_path, program=program)
    assert (unknown.returncode, unknown.stdout) == (3, "")
    plain = piped("", "--store", f"sqlite:///{tmp_path}/t.db", home=tmp_path, program=program)
    assert plain.returncode == 1
    assert len(plain.stderr.splitlines()) == 1
