"""The Cosmos DB engine keeps every guarantee, on an emulator; how it is opened, what it tells of itself."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from everthread import open_store
from everthread.contract import Store
from everthread.engines.cosmos import CosmosStore
from everthread.engines.cosmos.health import encryption
from everthread.errors import ConfigurationError, ConflictError, StoreUnavailableError
from everthread.model import HealthCheck, NewMessage, ThreadKey
from everthread.operations.doctor import examine
from everthread.request_charge import Charges, charges
from everthread.testing import (
    Harness,
    ImportSuite,
    ProcessSuite,
    RewriteSuite,
    SecretHarness,
    SecretSuite,
    StoreContractSuite,
    UrlHarness,
)
from everthread.wrappers.traced import Traced
from tests.cosmos_proxy import FaultyProxy, Request
from tests.object_servers import COSMOS_KEY, cosmos_url
from tests.servers import Server, free_port

KEY = ThreadKey("a")
TURN = [NewMessage(b'"private words"')]


@pytest.mark.essential_first
class TestCosmos(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self, cosmos_emulator: Server) -> Harness:
        return UrlHarness(lambda: cosmos_url(cosmos_emulator))


@pytest.mark.essential_first
class TestCosmosAcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, cosmos_emulator: Server) -> UrlHarness:
        return UrlHarness(lambda: cosmos_url(cosmos_emulator))


class CosmosWithKey(UrlHarness, SecretHarness):
    secret = COSMOS_KEY

    def open_unreachable(self) -> Store:
        url = f"cosmos://local/database?endpoint=http://127.0.0.1:{free_port()}/"
        return open_store(url, credential=COSMOS_KEY, retry_seconds=0)


class TestCosmosWithKey(SecretSuite):
    @pytest.fixture
    def harness(self, cosmos_emulator: Server, monkeypatch: pytest.MonkeyPatch) -> SecretHarness:
        monkeypatch.delenv("AZURE_COSMOS_KEY")
        return CosmosWithKey(lambda: cosmos_url(cosmos_emulator), credential=COSMOS_KEY)


# Opening


async def test_opening_a_missing_container_is_an_error(cosmos_emulator: Server) -> None:
    with pytest.raises(ConfigurationError, match="/pk"):
        await open_store(cosmos_url(cosmos_emulator).replace("&create=true", "")).open()


async def test_a_container_of_another_partition_key_is_refused(cosmos_emulator: Server) -> None:
    url = cosmos_url(cosmos_emulator)
    async with open_store(url) as store:
        assert isinstance(store, CosmosStore)
        database = store.storage.client.get_database_client(url.split("/")[3].partition("?")[0])
        await database.create_container("other", {"paths": ["/id"], "kind": "Hash"})
    with pytest.raises(ConfigurationError, match="partition key /pk"):
        await open_store(f"{url}&container=other").open()


async def test_an_unreachable_address_is_an_error() -> None:
    store = open_store(f"cosmos://local/database?endpoint=http://127.0.0.1:{free_port()}/")
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await store.open()


@pytest.mark.parametrize(
    "url", ["cosmos://", "cosmos://account", "cosmos://key@account/db", "cosmos://a/b/c", "cosmos://a/b?nonsense=1"]
)
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


def test_a_shown_store_contains_no_key() -> None:
    store = open_store("cosmos://account/database?container=c", credential="hidden")
    assert store.location == "cosmos://account/database?container=c"
    assert "hidden" not in repr(store)


async def test_a_connection_string_names_account_and_key(
    plain_cosmos_emulator: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{plain_cosmos_emulator.port}/"
    monkeypatch.delenv("AZURE_COSMOS_KEY")
    monkeypatch.setenv("AZURE_COSMOS_CONNECTIONSTRING", f"AccountEndpoint={endpoint};AccountKey={COSMOS_KEY};")
    for url in ("cosmos:///connected?create=true", f"cosmos://mine/connected?endpoint={endpoint}&create=true"):
        async with open_store(f"{url}&discover=false") as store:
            await store.append(KEY, TURN)
            shown = repr(store) + repr(store.__dict__["storage"].account)
            assert COSMOS_KEY not in shown
    assert shown.startswith("<CosmosStore cosmos://mine/connected?container=threads>")


def test_a_connection_string_of_another_account_lends_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_COSMOS_KEY")
    monkeypatch.setenv(
        "AZURE_COSMOS_CONNECTIONSTRING", "AccountEndpoint=https://one.documents.azure.com:443/;AccountKey=hidden;"
    )
    keys = {}
    for url in ("cosmos://one/db", "cosmos://two/db", "cosmos:///db", "cosmos:///db?endpoint=https://elsewhere/"):
        store = open_store(url)
        assert isinstance(store, CosmosStore)
        keys[url] = (store.storage.account.name, store.storage.account.key)
    assert list(keys.values()) == [("one", "hidden"), ("two", None), ("one", "hidden"), ("one", None)]


@pytest.mark.parametrize("text", ["", "AccountKey=hidden", "mongodb://user:hidden@host"], ids=["none", "half", "mongo"])
def test_errors_do_not_contain_the_connection_string(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AZURE_COSMOS_CONNECTIONSTRING", text)
    with pytest.raises(ConfigurationError, match="AZURE_COSMOS_CONNECTIONSTRING") as caught:
        open_store("cosmos:///db")
    assert "hidden" not in str(caught.value)


def test_an_endpoint_with_credentials_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="credentials") as caught:
        open_store("cosmos://account/db?endpoint=https://user:hidden@host/")
    assert "hidden" not in str(caught.value)


# Request units


async def test_request_units_are_counted_and_logged(cosmos_emulator: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "everthread.cosmos")
    store = open_store(cosmos_url(cosmos_emulator))
    assert isinstance(store, CosmosStore)
    async with store:
        await store.append(KEY, TURN)
        assert store.request_units > 0
    assert "request units" in caplog.text
    assert "private" not in caplog.text


def in_the_foreground(request: Request) -> bool:
    """Whether a request belongs to the call: the stale marker of an append is removed later."""
    return request.verb != "delete"


async def test_a_call_is_not_charged_for_background_work(proxy: FaultyProxy) -> None:
    """The emulator takes one unit for each request, also for one that finds nothing."""
    bills: list[tuple[Charges, Charges, int]] = []
    store = open_store(f"{cosmos_url(proxy, 'http')}&discover=false")
    assert isinstance(store, CosmosStore)
    async with store:
        await store.append(KEY, TURN)
        for call in (
            lambda: store.append(KEY, TURN),
            lambda: store.read(KEY),
            lambda: store.list_threads(),
            lambda: store.truncate(KEY, stop=1),
        ):
            before = len(list(filter(in_the_foreground, proxy.requests)))
            with charges() as outer, charges() as used:
                await call()
            bills.append((outer, used, len(list(filter(in_the_foreground, proxy.requests))) - before))
    # Only now, when nothing is under way any more.
    assert [used.total for _, used, _ in bills] == [count for _, _, count in bills]
    assert [outer.total for outer, _, _ in bills] == [used.total for _, used, _ in bills]
    assert all(count for _, _, count in bills)
    assert any(request.verb == "delete" for request in proxy.requests)
    # And what it asked to be opened.
    assert store.request_units >= len(proxy.requests)


async def test_appends_of_one_batch_share_the_charge(proxy: FaultyProxy) -> None:
    async with open_store(f"{cosmos_url(proxy, 'http')}&discover=false") as store:
        await store.append(KEY, TURN)
        proxy.requests.clear()
        costs: list[float] = []

        async def append() -> None:
            with charges() as used:
                await store.append(KEY, TURN)
            costs.append(used.total)

        await asyncio.gather(*(append() for _ in range(10)))
        requests = list(filter(in_the_foreground, proxy.requests))
    assert sum(costs) == pytest.approx(len(requests))
    assert len(requests) < 10
    assert min(costs) > 0


async def test_the_span_of_a_call_has_its_charge(cosmos_emulator: Server) -> None:
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    inner = open_store(cosmos_url(cosmos_emulator))
    async with Traced(inner, tracer_provider=provider, meter_provider=MeterProvider([metrics])) as store:
        await store.append(KEY, TURN)
        await store.get_thread(KEY)
        with pytest.raises(ConflictError):
            await store.append(KEY, TURN, expected_seq=9)
    name = "azure.cosmosdb.operation.request_charge"
    told = [(span.attributes or {}).get(name) for span in spans.get_finished_spans()]
    # A listing, the marker and the entry; a look for what is newer; the same, for the refusal must be certain.
    assert told == [3.0, 1.0, 1.0]
    data = metrics.get_metrics_data()
    assert data is not None
    assert '"azure.cosmosdb.client.operation.request_charge"' in data.to_json()


# Diagnosis


async def test_doctor_describes_the_account(cosmos_emulator: Server) -> None:
    url = cosmos_url(cosmos_emulator)
    async with open_store(url) as store:
        facts = {fact.name: fact async for fact in examine(store)}
    told = {name: (fact.value, fact.status) for name, fact in facts.items()}
    assert told["encryption"] == ("TLS, certificate not checked", "ok")
    assert told["server"] == ("Azure Cosmos DB, account local, South Central US", "ok")
    assert told["consistency"] == ("Session", "ok")
    assert told["credential"] == ("account key", "ok")
    assert told["container"] == ("threads, partition key /pk", "ok")
    assert told["time to live"] == ("on", "ok")
    assert told["indexing"] == ("/pk/?", "ok")
    assert told["throughput"][1] == "ok"
    assert told["writing"][1] in {"ok", "warning"}
    assert COSMOS_KEY not in repr(facts)


async def test_doctor_advises_on_container_settings(cosmos_emulator: Server) -> None:
    url = cosmos_url(cosmos_emulator)
    async with open_store(url) as store:
        assert isinstance(store, CosmosStore)
        database = store.storage.client.get_database_client(url.split("/")[3].partition("?")[0])
        await database.create_container("plain", {"paths": ["/pk"], "kind": "Hash"})
        await database.create_container("short", {"paths": ["/pk"], "kind": "Hash"}, default_ttl=60)
    for container, value, status in (("plain", "off", "warning"), ("short", "on, 60 s by default", "ok")):
        async with open_store(f"{url}&container={container}") as store:
            facts = {fact.name: fact async for fact in examine(store, write=False)}
            assert facts["time to live"].value.startswith(value)
            assert facts["time to live"].status == status


async def test_doctor_advises_on_account_settings(proxy: FaultyProxy) -> None:
    async with open_store(f"{cosmos_url(proxy, 'http')}&discover=false") as store:
        proxy.answers = {
            "/": {
                "userConsistencyPolicy": {"defaultConsistencyLevel": "Eventual"},
                "enableMultipleWriteLocations": True,
                "readableLocations": [{"name": "North Europe"}, {"name": "West Europe"}],
            },
            "/offers": {"Offers": [{"content": {"offerThroughput": 400}}], "_count": 1},
        }
        assert isinstance(store, CosmosStore)
        facts = {fact.name: fact for fact in await store.diagnose()}
    assert facts["server"].value == "Azure Cosmos DB, account local, North Europe, West Europe"
    assert facts["server"].status == "error"
    assert "one ID could have two items" in facts["server"].advice
    assert (facts["consistency"].value, facts["consistency"].status) == ("Eventual", "warning")
    assert facts["throughput"].value == "400 RU/s"
    assert facts["encryption"] == HealthCheck("encryption", "none")


def test_an_unencrypted_remote_connection_is_an_error() -> None:
    store = open_store("cosmos://account/db?endpoint=http://elsewhere/")
    assert isinstance(store, CosmosStore)
    assert encryption(store.storage.account.endpoint, verifies=store.storage.verifies).status == "error"
    other = open_store("cosmos://account/db?verify=false")
    assert isinstance(other, CosmosStore)
    assert encryption(other.storage.account.endpoint, verifies=other.storage.verifies).status == "warning"


async def test_doctor_reports_missing_rights(proxy: FaultyProxy) -> None:
    async with open_store(f"{cosmos_url(proxy, 'http')}&discover=false") as store:
        assert isinstance(store, CosmosStore)
        proxy.forbidden = True
        facts = {fact.name: fact for fact in await store.diagnose()}
    for name in ("server", "container"):
        assert (facts[name].value, facts[name].status) == ("these credentials may not read it", "warning")
    assert facts["throughput"].value == "serverless, or these credentials may not read it"
