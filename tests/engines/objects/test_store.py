"""The object-storage engine keeps every guarantee: in a directory, on Azurite, on an S3 server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from everthread import open_store
from everthread.engines._segments import records
from everthread.engines._segments.directory import DirectoryStorage
from everthread.engines._segments.names import prefix_of
from everthread.engines.objects import ObjectStore
from everthread.errors import ConfigurationError, OutcomeUnknownError, StoreUnavailableError
from everthread.model import NewMessage, ThreadKey
from everthread.testing import (
    CorruptibleHarness,
    CorruptionSuite,
    Harness,
    ImportSuite,
    ProcessSuite,
    RewriteSuite,
    ServerHarness,
    ServerSuite,
    StoreContractSuite,
    UrlHarness,
)
from tests.object_servers import CREDENTIALS, Answering, azurite_url, s3_server, s3_url
from tests.servers import Server, free_port

KEY = ThreadKey("a")
TURN = [NewMessage(b'"private words"')]


class DirectoryHarness(UrlHarness, CorruptibleHarness):
    async def corrupt_metadata(self, key: ThreadKey) -> None:
        loaded = {path: records.decode_block(path.read_bytes(), str(path)) for path in self._entries(key)}
        states = {path: each.block.state for path, each in loaded.items() if each.block.state is not None}
        newest, state = max(states.items(), key=lambda found: found[1].number)
        spoilt = msgspec.structs.replace(state, metadata=msgspec.Raw(b'"text"'))
        block = msgspec.structs.replace(loaded[newest].block, state=spoilt)
        newest.write_bytes(records.encode(block, (message.payload for message in loaded[newest].messages(0, 2**53))))

    def _entries(self, key: ThreadKey) -> list[Path]:
        folder = Path(self.url.removeprefix("file://").partition("?")[0], prefix_of(key).entries)
        return list(folder.iterdir())

    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        for path in self._entries(key):
            loaded = records.decode_block(path.read_bytes(), str(path))
            groups = loaded.block.groups
            if any(group.first <= seq < group.stop for group in groups):
                path.write_bytes(_spoilt(loaded, groups, seq, payload))


def _spoilt(loaded: records.Loaded, groups: list[records.Group], seq: int, payload: bytes) -> bytes:
    held = {message.seq: message.payload for message in loaded.messages(0, 2**53)} | {seq: payload}
    sized = [
        msgspec.structs.replace(group, sizes=tuple(len(held[at]) for at in range(group.first, group.stop)))
        for group in groups
    ]
    return records.encode(msgspec.structs.replace(loaded.block, groups=sized), held.values())


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryHarness:
    names = itertools.count()
    return DirectoryHarness(lambda: f"file://{tmp_path}/{next(names)}?sync=false", cache_bytes=0)


class TestDirectory(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        return UrlHarness(lambda: f"file://{tmp_path}/{next(names)}?sync=false")


@pytest.mark.essential_first
class TestDirectoryAcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, directory: DirectoryHarness) -> DirectoryHarness:
        return directory


class TestDirectoryAfterCorruption(CorruptionSuite):
    @pytest.fixture
    def harness(self, directory: DirectoryHarness) -> DirectoryHarness:
        return directory


@pytest.mark.front
@pytest.mark.usefixtures("credentials")
class TestAzureBlob(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self, azurite_server: Server) -> Harness:
        return UrlHarness(lambda: azurite_url(azurite_server))


@pytest.mark.front
@pytest.mark.usefixtures("credentials")
class TestAzureBlobAcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, azurite_server: Server) -> UrlHarness:
        return UrlHarness(lambda: azurite_url(azurite_server))


@pytest.mark.essential_first
@pytest.mark.usefixtures("credentials")
class TestS3(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self, object_server: Server) -> Harness:
        return UrlHarness(lambda: s3_url(object_server))


@pytest.mark.essential_first
@pytest.mark.usefixtures("credentials")
class TestS3AcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, object_server: Server) -> UrlHarness:
        return UrlHarness(lambda: s3_url(object_server))


class S3Harness(UrlHarness, ServerHarness):
    def __init__(self, server: Server) -> None:
        super().__init__(lambda: s3_url(server), retry_seconds=1)
        self._server = server

    def another(self) -> Self:
        return type(self)(self._server)

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()


@pytest.fixture(scope="session")
def restarted_server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.mark.slow
class TestS3AcrossRestarts(ServerSuite):
    @pytest.fixture
    def harness(self, restarted_server: Server, credentials: None) -> ServerHarness:
        return S3Harness(restarted_server)


# URLs, credentials, errors


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://key:secret@bucket/prefix",
        "s3://bucket?nonsense=1",
        "az://container?nonsense=1",
        "file://host/folder",
        "file:///",
        "file:///tmp/x?nonsense=1",
        "file:///tmp/x?sync=perhaps",
        "file:///tmp/x?timeout=3",
        "file:///tmp/x?cache_bytes=-1",
    ],
)
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("credentials")
def test_a_shown_store_contains_no_option() -> None:
    store = open_store("s3://bucket/my%20prefix?secret_access_key=hidden&region=eu-west-1")
    assert store.location == "s3://bucket/my prefix"
    assert "hidden" not in repr(store)


@pytest.mark.usefixtures("credentials")
def test_azure_is_found_by_its_connection_string(azurite_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url, _, endpoint = azurite_url(azurite_server).partition("?endpoint=")
    name, key = (monkeypatch_pop(monkeypatch, f"AZURE_STORAGE_ACCOUNT_{what}") for what in ("NAME", "KEY"))
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING", f"AccountName={name};AccountKey={key};BlobEndpoint={endpoint};"
    )

    async def use() -> None:
        async with open_store(url, allow_http=True) as store:
            await store.append(KEY, TURN)
            assert len(await store.read(KEY)) == len(TURN)

    asyncio.run(use())


def monkeypatch_pop(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    monkeypatch.delenv(name)
    return CREDENTIALS[name]


@pytest.mark.usefixtures("credentials")
async def test_opening_a_missing_location_is_an_error(azurite_server: Server, object_server: Server) -> None:
    for url, name in ((azurite_url(azurite_server), "container"), (s3_url(object_server), "threads")):
        scheme, _, rest = url.partition("://")
        missing = f"{scheme}://{rest.replace(rest.split('/')[0], f'no-such-{name}', 1)}"
        with pytest.raises(ConfigurationError, match="does not exist"):
            await open_store(missing).open()


@pytest.mark.usefixtures("credentials")
async def test_errors_of_wrong_credentials_do_not_contain_them(
    azurite_server: Server, object_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmcga2V5")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "d3Jvbmcga2V5")
    for url in (azurite_url(azurite_server), s3_url(object_server)):
        with pytest.raises(ConfigurationError, match="credentials") as caught:
            await open_store(url).open()
        assert "d3Jvbmcga2V5" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.usefixtures("credentials")
async def test_an_unreachable_address_is_an_error_in_bounded_time() -> None:
    store = open_store(f"s3://bucket?endpoint=http://127.0.0.1:{free_port()}&retry_seconds=0.3")
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await asyncio.wait_for(store.read(KEY), 60)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_throttling_that_ends_is_waited_for(object_server: Server, status: int) -> None:
    with Answering(object_server.port, status=status, times=2) as proxy:
        url = s3_url(object_server).replace(str(object_server.port), str(proxy.port))
        async with open_store(url) as store:
            await store.append(KEY, TURN)
            await store.append(KEY, TURN)
            assert len(await store.read(KEY)) == 2
        assert proxy.refused > 2


@pytest.mark.slow
@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("status", [429, 503])
async def test_throttling_without_end_is_a_typed_error(object_server: Server, status: int) -> None:
    url = s3_url(object_server)
    with Answering(object_server.port, status=status, times=0) as proxy:
        async with open_store(url.replace(str(object_server.port), str(proxy.port)), retry_seconds=0.5) as store:
            await store.append(KEY, TURN)
            proxy.times = 10**9
            with pytest.raises(StoreUnavailableError):
                await store.read(KEY)
            with pytest.raises(OutcomeUnknownError):
                await store.append(KEY, TURN, append_id="1")
            proxy.times = 0
            await store.append(KEY, TURN, append_id="1")
            assert len(await store.read(KEY)) == 2


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_a_lost_answer_duplicates_nothing(object_server: Server, method: str) -> None:
    url = s3_url(object_server)
    with Answering(object_server.port, status=500, times=1, after=True, method=method) as proxy:
        async with open_store(url.replace(str(object_server.port), str(proxy.port))) as store:
            for number in range(4):
                await store.append(KEY, [NewMessage(b"%d" % number)])
            for number in range(3):
                await store.put_document(KEY, "d", b"%d" % number, expected_revision=number)
            assert [m.payload for m in await store.read(KEY)] == [b"0", b"1", b"2", b"3"]
            document = await store.get_document(KEY, "d")
            assert document is not None
            assert (document.revision, document.value) == (3, b"2")
        assert proxy.refused > 0


@pytest.mark.usefixtures("credentials")
async def test_nothing_that_is_logged_or_raised_holds_content(
    object_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Answering(object_server.port, status=503, times=10**9) as proxy:
        url = s3_url(object_server).replace(str(object_server.port), str(proxy.port))
        store = open_store(url, retry_seconds=0.2)
        with pytest.raises(StoreUnavailableError) as caught:
            await store.append(KEY, TURN)
    assert "private" not in str(caught.value) + caplog.text
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value) + caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("credentials")
async def test_a_process_can_end_right_after_its_last_call(object_server: Server) -> None:
    url = s3_url(object_server)
    program = (
        "import asyncio, sys, everthread\n"
        "async def main():\n"
        "    async with everthread.open_store(sys.argv[1]) as store:\n"
        "        await store.append(everthread.ThreadKey('a'), [everthread.NewMessage(b'1')])\n"
        "asyncio.run(main())\n"
    )
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, url) for _ in range(10)]
    assert [await process.wait() for process in processes] == [0] * 10
    async with open_store(url) as store:
        assert len(await store.read(KEY)) == 10


# Directories


async def test_a_directory_is_made_with_odd_names_and_found_again(tmp_path: Path) -> None:
    for name in ("with space", "per%25cent", "üml", "a#b", "q%3Fq"):
        url = f"file://{tmp_path}/deep/{name}"
        async with open_store(url) as store:
            await store.append(KEY, TURN)
        async with open_store(store.location) as store:
            assert len(await store.read(KEY)) == 1
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"with space", "per%cent", "üml", "a#b", "q?q"}


async def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        await open_store(f"file://{tmp_path}/file").open()


async def test_many_creators_of_one_name_make_one_object(tmp_path: Path) -> None:
    storages = [DirectoryStorage(tmp_path) for _ in range(3)]
    for storage in storages:
        await storage.open()
    for number in range(30):
        made = await asyncio.gather(
            *(storage.create("t/a", str(number), b"%d" % at) for at, storage in enumerate(storages * 3))
        )
        assert sum(made) == 1
        found = await storages[0].get("t/a", str(number))
        assert found is not None
        assert found.data == b"%d" % made.index(True)
    for storage in storages:
        await storage.close()


async def test_of_many_that_replace_one_object_one_wins(tmp_path: Path) -> None:
    storages = [DirectoryStorage(tmp_path) for _ in range(3)]
    for storage in storages:
        await storage.open()
    await storages[0].create("d", "x", b"0")
    for _ in range(20):
        found = await storages[0].get("d", "x")
        assert found is not None
        done = await asyncio.gather(
            *(storage.replace("d", "x", b"%d" % at, found.tag) for at, storage in enumerate(storages * 2))
        )
        assert sum(done) == 1
    for storage in storages:
        await storage.close()


async def test_unfinished_files_are_in_no_listing(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    await storage.open()
    await storage.create("t/a", "1", b"x" * 1000)
    assert not list((tmp_path / ".new").iterdir())
    assert [[listed.name for listed in chunk] async for chunk in storage.list("t/a")] == [["1"]]
    await storage.close()


async def test_a_store_takes_a_storage_and_closes_it(tmp_path: Path) -> None:
    storage: Any = DirectoryStorage(tmp_path)
    async with ObjectStore(storage) as store:
        await store.append(KEY, TURN)
    with pytest.raises(StoreUnavailableError, match="closed"):
        await storage.get("t", "x")
