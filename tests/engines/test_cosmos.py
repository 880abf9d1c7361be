"""The Cosmos DB engine keeps every guarantee, on an emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everthread.testing import Harness, ProcessSuite, StoreContractSuite, UrlHarness
from tests.object_servers import COSMOS_KEY, cosmos_server, cosmos_url
from tests.servers import Server


@pytest.fixture(scope="session")
def emulator() -> Iterator[Server]:
    with cosmos_server() as server:
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
