"""An encrypted store keeps every guarantee on each engine that is reached by a URL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from everthread import open_store
from everthread.testing import Harness, ImportSuite, ScanSuite, StoreContractSuite
from tests.object_servers import (
    COSMOS_KEY,
    CREDENTIALS,
    azurite,
    azurite_url,
    cosmos_server,
    cosmos_url,
)
from tests.postgres_server import PostgresServer, fresh_url
from tests.servers import Server
from tests.wrappers.sealed_places import EncryptedHarness


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Server]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="session")
def emulator() -> Iterator[Server]:
    with cosmos_server() as server:
        yield server


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CREDENTIALS, "AZURE_COSMOS_KEY": COSMOS_KEY}.items():
        monkeypatch.setenv(name, value)


class Sealed(StoreContractSuite, ImportSuite, ScanSuite):
    """All that is asked of an encrypted store on any engine."""


@pytest.mark.front
class TestPostgres(Sealed):
    @pytest.fixture
    def harness(self, postgres: PostgresServer) -> Harness:
        return EncryptedHarness(lambda: partial(open_store, fresh_url(postgres)), lambda store: store)


@pytest.mark.front
class TestDirectory(Sealed):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        url = f"file://{tmp_path}"
        return EncryptedHarness(lambda: partial(open_store, f"{url}/{next(names)}?sync=false"), lambda store: store)


@pytest.mark.front
class TestAzureBlob(Sealed):
    @pytest.fixture
    def harness(self, azurite_server: Server) -> Harness:
        return EncryptedHarness(lambda: partial(open_store, azurite_url(azurite_server)), lambda store: store)


@pytest.mark.front
class TestCosmos(Sealed):
    @pytest.fixture
    def harness(self, emulator: Server) -> Harness:
        return EncryptedHarness(lambda: partial(open_store, cosmos_url(emulator)), lambda store: store)
