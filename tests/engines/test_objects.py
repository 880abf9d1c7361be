"""The object-storage engine keeps every guarantee: in a directory, on Azurite, on an S3 server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from everthread.testing import Harness, StoreContractSuite, UrlHarness
from tests.object_servers import CREDENTIALS, azurite, azurite_url, s3_server, s3_url
from tests.servers import Server


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Server]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="session")
def object_server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


class TestDirectory(StoreContractSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        return UrlHarness(lambda: f"file://{tmp_path}/{next(names)}?sync=false")


@pytest.mark.usefixtures("credentials")
class TestAzureBlob(StoreContractSuite):
    @pytest.fixture
    def harness(self, azurite_server: Server) -> Harness:
        return UrlHarness(lambda: azurite_url(azurite_server))


@pytest.mark.usefixtures("credentials")
class TestS3(StoreContractSuite):
    @pytest.fixture
    def harness(self, object_server: Server) -> Harness:
        return UrlHarness(lambda: s3_url(object_server))
