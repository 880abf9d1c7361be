"""Every kind of storage does what the segment log relies on: conditions hold also in a race, listings are complete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from everthread import open_store
from everthread.engines._segments.storage import Storage
from everthread.engines.cosmos import CosmosStore
from everthread.engines.objects import ObjectStore
from tests.engines.storages import MemoryStorage
from tests.object_servers import COSMOS_KEY, azurite_url, cosmos_url, s3_url

pytestmark = pytest.mark.slow

FOLDER = "t/~/plain.name_1~-x"


@pytest.fixture(params=["memory", "directory", "azurite", "s3", "cosmos"])
async def storages(
    request: pytest.FixtureRequest, tmp_path: Path, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Storage, Storage]]:
    """Two of the same place, as two processes have."""
    if request.param == "memory":
        storage = MemoryStorage()
        yield storage, storage
        return
    if request.param == "directory":
        url = f"file://{tmp_path}/new"
    elif request.param == "azurite":
        url = azurite_url(request.getfixturevalue("azurite_server"))
    elif request.param == "cosmos":
        monkeypatch.setenv("AZURE_COSMOS_KEY", COSMOS_KEY)
        url = cosmos_url(request.getfixturevalue("cosmos_emulator"))
    else:
        url = s3_url(request.getfixturevalue("object_server"))
    opened = [cast(ObjectStore | CosmosStore, open_store(url)).storage for _ in range(2)]
    for storage in opened:
        await storage.open()
    yield opened[0], opened[1]
    for storage in opened:
        await storage.close()


async def names(storage: Storage, folder: str = FOLDER, *, after: str = "") -> list[str]:
    return [listed.name async for chunk in storage.list(folder, after=after) for listed in chunk]


async def test_a_created_object_is_whole_and_its_name_taken(storages: tuple[Storage, Storage]) -> None:
    one, other = storages
    for name, data in (("a", b""), ("b", b"\n"), ("c", bytes(range(256)) * 20_000)):
        # Cosmos DB keeps text only, and what the log writes is text.
        data = data.decode("latin-1").encode()
        assert await one.create(FOLDER, name, data)
        assert not await other.create(FOLDER, name, b"other")
        found = await other.get(FOLDER, name)
        assert found is not None
        assert found.data == data
    assert await one.get(FOLDER, "d") is None
    assert await one.get("t/~/none", "a") is None


async def test_of_many_that_create_one_name_one_is_first(storages: tuple[Storage, Storage]) -> None:
    # Few rounds: SeaweedFS lets those who meet at a name wait for a second each.
    for number in range(5):
        made = await asyncio.gather(*(storages[at % 2].create(FOLDER, f"{number}", b"%d" % at) for at in range(6)))
        found = await storages[0].get(FOLDER, f"{number}")
        assert found is not None
        assert sum(made) == 1
        assert found.data == b"%d" % made.index(True)


async def test_of_many_that_replace_one_object_one_does(storages: tuple[Storage, Storage]) -> None:
    await storages[0].create("d/a", "x", b"0")
    for number in range(5):
        before = await storages[1].get("d/a", "x")
        assert before is not None
        new = [b"%d in round %d" % (at, number) for at in range(6)]
        done = await asyncio.gather(
            *(storages[at % 2].replace("d/a", "x", data, before.tag) for at, data in enumerate(new))
        )
        found = await storages[0].get("d/a", "x")
        assert found is not None
        assert sum(done) == 1
        assert found.data == new[done.index(True)]
        assert found.tag != before.tag


async def test_a_missing_object_is_not_replaced(storages: tuple[Storage, Storage]) -> None:
    one, other = storages
    await one.create("d/a", "x", b"0")
    found = await other.get("d/a", "x")
    assert found is not None
    await one.delete("d/a", ["x"])
    assert not await other.replace("d/a", "x", b"1", found.tag)
    assert await one.get("d/a", "x") is None


async def test_put_writes_whatever_is_there(storages: tuple[Storage, Storage]) -> None:
    for data in (b"long before", b"", b"1"):
        await storages[0].put(FOLDER, "x", data)
        found = await storages[1].get(FOLDER, "x")
        assert found is not None
        assert found.data == data


async def test_deleting_accepts_any_number_and_missing_names(storages: tuple[Storage, Storage]) -> None:
    one, other = storages
    for name in "abc":
        await one.create(FOLDER, name, b"1")
    await other.delete(FOLDER, ["a", "nothing", "c"])
    assert await names(one) == ["b"]
    await other.delete(FOLDER, ["a"])
    await other.delete("t/~/none", ["a"])
    await other.delete(FOLDER, [])
    assert await one.create(FOLDER, "a", b"2")


async def test_a_listing_is_complete_in_order_and_of_one_folder(storages: tuple[Storage, Storage]) -> None:
    one, other = storages
    wanted = sorted(f"{number:04x}~{'x' * (number % 3)}" for number in range(1100))
    limit = asyncio.Semaphore(32)

    async def create(name: str) -> None:
        async with limit:
            await one.create(FOLDER, name, b"")

    await asyncio.gather(*map(create, wanted))
    await one.create(FOLDER + "-other", "a", b"")
    assert await names(other) == wanted
    assert await names(other, after=wanted[700]) == wanted[701:]
    assert await names(other, after="0001") == [name for name in wanted if name > "0001"]
    assert await names(other, "t/~/none") == []


async def test_a_listing_has_sizes_and_times(storages: tuple[Storage, Storage]) -> None:
    before = time.time()
    await storages[0].create(FOLDER, "a", b"12345")
    ((listed,),) = [list(chunk) async for chunk in storages[1].list(FOLDER)]
    assert (listed.name, listed.size) == ("a", 5)
    assert before - 2 < listed.modified_s < time.time() + 2


async def test_folders_of_a_folder_are_listed(storages: tuple[Storage, Storage]) -> None:
    one, other = storages
    wanted = {"a", "a-b", "a.b", "ab", "z~y"}
    for folder in wanted:
        for name in "12":
            await one.create(f"t/tenant/{folder}", name, b"")
    await one.create("t/tenant-2/elsewhere", "1", b"")
    assert {name async for chunk in other.folders("t/tenant") for name in chunk} == wanted
    assert [chunk async for chunk in other.folders("t/none")] == []
