"""What the doctor is told of object storage: what it is, whether it keeps the rules; and what it puts right there."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import obstore.exceptions
import obstore.store
import pytest

from everthread import open_store
from everthread.engines._segments.health import PROBES
from everthread.engines._segments.names import name_of, recency_folder
from everthread.engines._segments.reconcile import UNLISTED
from everthread.engines._segments.storage import Found, Listed
from everthread.engines.objects import ObjectStore, ServiceStorage
from everthread.model import HealthCheck, NewMessage, ThreadKey
from everthread.operations.doctor import examine
from tests.cli.driving import PROGRAM, piped
from tests.engines.storages import MemoryStorage
from tests.object_servers import CREDENTIALS, LOOKING_KEY_ID, azurite_url, s3_url, versioned_s3_url
from tests.servers import Server


async def told_of(url: str, *, write: bool = True) -> dict[str, HealthCheck]:
    async with open_store(url) as store:
        return {fact.name: fact async for fact in examine(store, write=write)}


async def probed(storage: MemoryStorage) -> dict[str, HealthCheck]:
    async with ObjectStore(storage) as store:
        return {fact.name: fact for fact in await store.probe()}


def troubles(facts: dict[str, HealthCheck]) -> set[str]:
    # How long things take says something of this machine, not of the storage.
    return {name for name, fact in facts.items() if fact.status != "ok" and name not in {"reading", "writing"}}


class Storages:
    """The URL of an empty place on each kind of storage."""

    @pytest.fixture(params=["directory", "azurite", "s3"])
    def url(self, request: pytest.FixtureRequest, tmp_path: Path, credentials: None) -> str:
        if request.param == "directory":
            return f"file://{tmp_path}/new"
        if request.param == "azurite":
            return azurite_url(request.getfixturevalue("azurite_server"))
        return s3_url(request.getfixturevalue("object_server"))


class TestHealthy(Storages):
    async def test_a_probe_of_a_good_storage_leaves_nothing(self, url: str) -> None:
        facts = await told_of(url)
        assert troubles(facts) == set()
        assert {"server", "rights", "conditional create", "conditional replace", "storage clock"} <= set(facts)
        async with open_store(url) as store:
            assert isinstance(store, ObjectStore)
            assert [chunk async for chunk in store.storage.list(PROBES)] == []

    async def test_who_only_looks_writes_nothing(self, url: str) -> None:
        facts = await told_of(url, write=False)
        assert "server" in facts
        assert {"rights", "conditional create"}.isdisjoint(facts)

    async def test_no_fact_holds_a_secret(self, url: str) -> None:
        shown = repr(await told_of(url))
        for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"):
            assert CREDENTIALS[name] not in shown


class TestRepairing(Storages):
    async def test_threads_that_no_listing_shows_are_found_and_listed_again(self, url: str, tmp_path: Path) -> None:
        async with open_store(url) as store:
            assert isinstance(store, ObjectStore)
            for number in range(3):
                await store.append(ThreadKey(f"trip {number}"), [NewMessage(b'"hello"')])
            assert await store.reconcile() == ()
            threads = await store.list_threads()
            folder = recency_folder(name_of(""))
            markers = [listed.name async for chunk in store.storage.list(folder) for listed in chunk]
            await store.storage.delete(folder, markers[:2])
        doctor = (PROGRAM, "doctor", "--store", url, "--repair")
        dry = await asyncio.to_thread(piped, "", "--dry-run", home=tmp_path, program=doctor, **CREDENTIALS)
        assert (dry.returncode, dry.stdout) == (1, f"found 2 {UNLISTED}\n"), dry.stderr
        done = await asyncio.to_thread(piped, "", "--yes", home=tmp_path, program=doctor, **CREDENTIALS)
        assert done.returncode == 0, done.stderr
        async with open_store(url) as store:
            assert await store.list_threads() == threads


@pytest.mark.usefixtures("credentials")
async def test_kept_versions_are_reported(object_server: Server) -> None:
    facts = await told_of(versioned_s3_url(object_server))
    assert facts["versions"].status == "warning"
    assert "lifecycle" in facts["versions"].advice


@pytest.mark.usefixtures("credentials")
async def test_missing_rights_are_reported(object_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LOOKING_KEY_ID)
    facts = await told_of(s3_url(object_server))
    assert facts["rights"].status == "error"
    assert facts["rights"].value.startswith("may not write")
    assert facts["reading"].status != "error"


async def test_a_directory_reports_risks_for_its_threads(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    facts = await told_of(f"file://{folder}?sync=false")
    assert facts["directory"].status == "warning"
    assert "lost with the power" in facts["durability"].value
    facts = await told_of(f"file://{tmp_path}/new")
    assert facts["directory"].status == "ok"
    assert "survives" in facts["durability"].value
    with tempfile.TemporaryDirectory(dir="/dev/shm") as in_memory:
        assert (await told_of(f"file://{in_memory}"))["durability"].status == "warning"


class Forgetful(MemoryStorage):
    """Takes no notice of conditions, as servers do that do not know them."""

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        await self.put(folder, name, data)
        return True


class Overwriting(MemoryStorage):
    """Replaces whatever is there."""

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        await self.put(folder, name, data)
        return True


class Changed(MemoryStorage):
    """Shows another time of writing, or nothing."""

    ahead = 0.0
    shows = True

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        async for chunk in super().list(folder, after=after):
            if self.shows:
                yield [msgspec.structs.replace(each, modified_s=each.modified_s + self.ahead) for each in chunk]


class Racing(MemoryStorage):
    """Looks first and writes then, so that of two at the same time both are told that they were first."""

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        found: Found | None = await self.get(folder, name)
        await asyncio.sleep(0)
        if found is None:
            await self.put(folder, name, data)
        return found is None


@pytest.mark.parametrize(
    ("storage", "trouble"),
    [
        (Forgetful, "conditional create"),
        (Racing, "conditional create"),
        (Overwriting, "conditional replace"),
    ],
)
async def test_a_probe_finds_a_broken_rule(storage: type[MemoryStorage], trouble: str) -> None:
    facts = await probed(storage())
    assert troubles(facts) == {trouble}
    assert facts[trouble].status == "error"


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(0, "ok"), (-30, "ok"), (300, "warning"), (-300, "warning"), (3100, "error"), (-9000, "error")],
)
async def test_different_clocks_are_reported(ahead: int, status: str) -> None:
    storage = Changed()
    storage.ahead = ahead
    assert (await probed(storage))["storage clock"].status == status


async def test_a_late_listing_is_reported() -> None:
    storage = Changed()
    storage.shows = False
    assert troubles(await probed(storage)) == {"listing"}


async def test_a_probe_deletes_objects_of_killed_probes() -> None:
    storage = MemoryStorage()
    for name, age in (("old", 4000), ("new", 0)):
        storage.objects[PROBES, name] = (b"1", name, time.time() - age)
    await probed(storage)
    assert list(storage.objects) == [(PROBES, "new")]


async def test_missing_credentials_are_not_called_refused() -> None:
    said = "Error performing PUT http://169.254.169.254/latest/api/token: status code: 403 Forbidden"
    store = obstore.store.S3Store("bucket", region="x")
    storage = ServiceStorage(store, "s3://bucket/x")
    assert "has no credentials" in str(storage.typed(obstore.exceptions.GenericError(said)))
