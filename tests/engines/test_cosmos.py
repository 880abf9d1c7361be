"""The Cosmos DB engine keeps every guarantee, on an emulator; and what is its own: parts, throttling, request units."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from everthread import open_store
from everthread.engines.cosmos import CosmosStorage, CosmosStore
from everthread.errors import ConfigurationError, LimitExceededError, OutcomeUnknownError, StoreUnavailableError
from everthread.model import NewMessage, ThreadKey
from everthread.testing import Harness, ProcessSuite, StoreContractSuite, UrlHarness
from tests.object_servers import COSMOS_KEY, Answering, cosmos_server, cosmos_url
from tests.servers import Server, free_port

KEY = ThreadKey("a")
TURN = [NewMessage(b'"private words"')]


@pytest.fixture(scope="session")
def emulator() -> Iterator[Server]:
    with cosmos_server() as server:
        yield server


@pytest.fixture(scope="session")
def plain_emulator() -> Iterator[Server]:
    """Without TLS, so that a proxy can stand before it."""
    with cosmos_server("--no-ssl") as server:
        yield server


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_COSMOS_KEY", COSMOS_KEY)


class TestCosmos(StoreContractSuite):
    @pytest.fixture
    def harness(self, emulator: Server) -> Harness:
        return UrlHarness(lambda: cosmos_url(emulator))


class TestCosmosAcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, emulator: Server) -> UrlHarness:
        return UrlHarness(lambda: cosmos_url(emulator))


def through(proxy: Answering, server: Server) -> str:
    url = cosmos_url(server).replace(f"https://127.0.0.1:{server.port}", f"http://127.0.0.1:{proxy.port}")
    return f"{url}&discover=false"


@pytest.mark.parametrize("status", [429, 449, 503])
async def test_throttling_that_ends_is_waited_for(plain_emulator: Server, status: int) -> None:
    with Answering(plain_emulator.port, status=status, times=0) as proxy:
        async with open_store(through(proxy, plain_emulator)) as store:
            await store.append(KEY, TURN)
            proxy.times = 1
            await store.append(KEY, TURN)
            assert len(await store.read(KEY)) == 2
        assert proxy.refused > 1


@pytest.mark.parametrize("status", [429, 449, 503])
async def test_throttling_without_end_is_a_typed_error(plain_emulator: Server, status: int) -> None:
    with Answering(plain_emulator.port, status=status, times=0) as proxy:
        async with open_store(through(proxy, plain_emulator)) as store:
            await store.append(KEY, TURN)
            proxy.times = 10**9
            with pytest.raises(StoreUnavailableError):
                await store.read(KEY)
            with pytest.raises(OutcomeUnknownError) as caught:
                await store.append(KEY, TURN, append_id="1")
            assert COSMOS_KEY not in str(caught.value)
            proxy.times = 0
            await store.append(KEY, TURN, append_id="1")
            assert len(await store.read(KEY)) == 2


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_an_answer_that_is_lost_after_the_write_landed_doubles_nothing(
    plain_emulator: Server, method: str
) -> None:
    with Answering(plain_emulator.port, status=503, times=0, after=True, method=method) as proxy:
        async with open_store(through(proxy, plain_emulator)) as store:
            await store.append(KEY, [NewMessage(b"0")])
            for number in range(1, 4):
                proxy.forget(1)
                await store.append(KEY, [NewMessage(b"%d" % number)])
            for number in range(3):
                proxy.forget(1)
                await store.put_document(KEY, "d", b"%d" % number, expected_revision=number)
            proxy.times = 0
            assert [m.payload for m in await store.read(KEY)] == [b"0", b"1", b"2", b"3"]
            document = await store.get_document(KEY, "d")
            assert document is not None
            assert (document.revision, document.value) == (3, b"2")
        assert proxy.refused > 0


async def test_what_does_not_fit_an_item_is_whole_or_absent(emulator: Server) -> None:
    url = cosmos_url(emulator)
    turn = [NewMessage(b'"%s"' % (letter * 3_000_000)) for letter in (b"a", b"\\\\")]
    async with open_store(url) as store:
        await store.append(KEY, turn)
        await store.append(KEY, TURN)
        assert [m.payload for m in await store.read(KEY)] == [message.payload for message in (*turn, *TURN)]
    async with open_store(url) as store:
        assert (await store.read_last(KEY, 3))[1].payload == turn[1].payload


async def test_a_turn_that_is_too_large_is_refused(emulator: Server) -> None:
    async with open_store(cosmos_url(emulator)) as store:
        with pytest.raises(LimitExceededError):
            await store.append(KEY, [NewMessage(b'"%s"' % (b"a" * 15_000_000))] * 5)
        assert await store.get_thread(KEY) is None


async def test_parts_go_with_what_they_belong_to(emulator: Server) -> None:
    store = open_store(cosmos_url(emulator))
    assert isinstance(store, CosmosStore)
    storage = store.storage
    assert isinstance(storage, CosmosStorage)
    async with store:
        large = b"x" * 3_000_000
        assert await storage.create("t/a", "1", large)
        assert not await storage.create("t/a", "1", large)
        await storage.put("t/a", "1", large[1:])
        assert [len(chunk) async for chunk in storage.list("x/t/a")] == [3]
        await storage.put("t/a", "1", b"")
        assert [chunk async for chunk in storage.list("x/t/a")] == []


async def test_request_units_are_counted_and_logged(emulator: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "everthread.cosmos")
    store = open_store(cosmos_url(emulator))
    assert isinstance(store, CosmosStore)
    async with store:
        await store.append(KEY, TURN)
        assert store.request_units > 0
    assert "request units" in caplog.text
    assert "private" not in caplog.text


async def test_a_container_that_does_not_exist_is_told_at_opening(emulator: Server) -> None:
    with pytest.raises(ConfigurationError, match="/pk"):
        await open_store(cosmos_url(emulator).replace("&create=true", "")).open()


async def test_nobody_at_the_address_is_told() -> None:
    store = open_store(f"cosmos://local/database?endpoint=http://127.0.0.1:{free_port()}/")
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await store.open()


@pytest.mark.parametrize(
    "url", ["cosmos://", "cosmos://account", "cosmos://key@account/db", "cosmos://a/b/c", "cosmos://a/b?nonsense=1"]
)
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


def test_what_is_shown_of_a_store_holds_no_key() -> None:
    store = open_store("cosmos://account/database?container=c", credential="hidden")
    assert store.location == "cosmos://account/database?container=c"
    assert "hidden" not in repr(store)
