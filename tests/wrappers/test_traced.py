"""A traced store keeps every guarantee, and tells of each call what the conventions name, but no content."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from everthread import ConflictError, NewMessage, OutcomeUnknownError, ThreadKey, open_store
from everthread.capabilities import SupportsRewrite, SupportsSearch, capability
from everthread.contract import Store
from everthread.engines.memory import MemoryStore
from everthread.engines.sqlite import SqliteStore
from everthread.model import Rewrite
from everthread.testing import Fault, FaultyStore, Harness, ImportSuite, RewriteSuite, SearchSuite, StoreContractSuite
from everthread.wrappers.traced import Traced
from tests.servers import Server
from tests.wrappers.harnesses import WrappedHarness, memory_place, sqlite_places

KEY = ThreadKey("private-thread", "private-tenant")
PRIVATE = "private words"
SAID = NewMessage(f'"{PRIVATE}"'.encode())


class Told:
    """What an application's exporters were told."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._metrics])

    def around(self, store: Store) -> Traced:
        return Traced(store, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def points(self, name: str) -> list[Any]:
        data = self._metrics.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        found = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return [point for metric in found for point in metric.data.data_points]

    def everything(self) -> str:
        data = self._metrics.get_metrics_data()
        return "".join(span.to_json() for span in self.spans) + (data.to_json() if data else "")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.mark.essential_first
class TestOverMemory(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return WrappedHarness(memory_place, Told().around)


@pytest.mark.front
class TestOverSqlite(StoreContractSuite, RewriteSuite, ImportSuite, SearchSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return WrappedHarness(sqlite_places(tmp_path), Told().around)


async def test_each_call_is_a_client_span_with_its_engine_and_sizes(told: Told) -> None:
    async with told.around(MemoryStore()) as store:
        await store.append(KEY, [SAID, SAID])
        await store.read(KEY)
    append, read = told.spans
    assert (append.name, append.kind, append.status.status_code) == ("append memory", SpanKind.CLIENT, StatusCode.UNSET)
    size = 2 * len(SAID.payload)
    assert append.attributes == {
        "db.system.name": "memory",
        "db.operation.name": "append",
        "everthread.messages.sent": 2,
        "everthread.bytes.sent": size,
    }
    assert read.attributes is not None
    assert (read.attributes["everthread.messages.received"], read.attributes["everthread.bytes.received"]) == (2, size)


async def test_a_server_is_named_by_its_address(told: Told, plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/0"
    async with told.around(open_store(url, prefix=fresh_prefix)) as store:
        await store.append(KEY, [SAID])
    span = told.spans[0]
    assert span.name == f"append 127.0.0.1:{plain_redis_server.port}"
    assert span.attributes is not None
    named = [span.attributes[name] for name in ("db.system.name", "server.address", "server.port")]
    assert named == ["redis", "127.0.0.1", plain_redis_server.port]


async def test_conflicts_and_retries_are_counted(told: Told) -> None:
    async with told.around(FaultyStore(MemoryStore(), [Fault.FAIL_AFTER])) as store:
        with pytest.raises(OutcomeUnknownError):
            await store.append(KEY, [SAID], append_id="1")
        assert (await store.append(KEY, [SAID], append_id="1")).replayed
        with pytest.raises(ConflictError):
            await store.append(KEY, [SAID], expected_seq=9)
    failed, _, conflicting = told.spans
    assert failed.attributes is not None
    assert (failed.attributes["error.type"], failed.status.status_code) == ("OutcomeUnknownError", StatusCode.ERROR)
    assert conflicting.status.status_code is StatusCode.ERROR
    assert [point.value for point in told.points("everthread.retries")] == [1]
    assert [point.value for point in told.points("everthread.conflicts")] == [1]
    durations = {
        point.attributes.get("error.type"): point.count for point in told.points("db.client.operation.duration")
    }
    assert durations == {None: 1, "OutcomeUnknownError": 1, "ConflictError": 1}


async def test_bytes_are_measured_by_call_and_direction(told: Told) -> None:
    async with told.around(MemoryStore()) as store:
        await store.put_document(KEY, "d", b'"12345"')
        await store.get_document(KEY, "d")
        await store.list_threads(KEY.tenant)
    sums = {
        (point.attributes["db.operation.name"], point.attributes["everthread.direction"]): point.sum
        for point in told.points("everthread.bytes")
    }
    assert sums == {("put_document", "sent"): 7, ("get_document", "received"): 7}
    listing = told.spans[2].attributes
    assert listing is not None
    assert listing["db.response.returned_rows"] == 1


async def test_neither_content_nor_ids_are_told(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with told.around(MemoryStore()) as store:
            await store.append(KEY, [SAID], default_title=PRIVATE)
            await store.update_thread(KEY, metadata={PRIVATE: PRIVATE})
            await store.read(KEY)
            with pytest.raises(ConflictError):
                await store.append(KEY, [SAID], expected_seq=9)
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert len(caplog.records) == 4
    for shown in (told.everything(), logged):
        assert "private" not in shown


async def test_log_lines_have_fields_and_a_level_that_fits(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "everthread.calls"):
        async with told.around(FaultyStore(MemoryStore(), [None, Fault.FAIL_BEFORE, Fault.CANCEL_BEFORE])) as store:
            for expected in (0, 1, 1):
                await asyncio.gather(
                    asyncio.ensure_future(store.append(KEY, [SAID], expected_seq=expected)), return_exceptions=True
                )
            with pytest.raises(ConflictError):
                await store.append(KEY, [SAID], expected_seq=9)
    levels = [(record.levelname, record.getMessage().split(" in ")[0]) for record in caplog.records]
    assert levels == [
        ("DEBUG", "append: done"),
        ("WARNING", "append: StoreUnavailableError"),
        ("INFO", "append: CancelledError"),
        ("INFO", "append: ConflictError"),
    ]
    assert vars(caplog.records[0])["everthread.messages.sent"] == 1
    assert vars(caplog.records[0])["everthread.seconds"] >= 0


async def test_what_goes_beyond_the_contract_is_traced_too(told: Told, tmp_path: Path) -> None:
    async with told.around(SqliteStore(tmp_path / "t.db")) as store:
        await store.append(KEY, [SAID, SAID])
        assert capability(store, SupportsSearch)
        assert capability(store, SupportsRewrite)
        assert len(await store.search(KEY.tenant, PRIVATE)) == 2
        assert await store.rewrite(KEY, [Rewrite(0, SAID.payload, b'"other private words"')]) == 1
    spans = {span.name.split()[0]: dict(span.attributes or {}) for span in told.spans}
    assert spans["search"]["db.response.returned_rows"] == 2
    sent = [spans["rewrite"][f"everthread.{what}.sent"] for what in ("messages", "bytes")]
    assert sent == [1, len(b'"other private words"')]
    assert "private" not in told.everything()


async def test_spans_of_the_application_are_the_parents(told: Told) -> None:
    async with told.around(MemoryStore()) as store:
        with told.tracer_provider.get_tracer("app").start_as_current_span("turn") as turn:
            await store.append(KEY, [SAID])
    assert told.spans[0].parent == turn.get_span_context()


async def test_without_an_sdk_everything_works() -> None:
    async with Traced(MemoryStore()) as store:
        assert (await store.append(KEY, [SAID])).next_seq == 1
