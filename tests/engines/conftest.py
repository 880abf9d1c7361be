"""Servers that several modules of engine tests share; one of each a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.object_servers import CREDENTIALS, azurite, cosmos_server, s3_server
from tests.servers import Server


@pytest.fixture(scope="session")
def cosmos_emulator() -> Iterator[Server]:
    with cosmos_server() as server:
        yield server


@pytest.fixture(scope="session")
def plain_cosmos_emulator() -> Iterator[Server]:
    """Without TLS, so that a proxy can stand before it."""
    with cosmos_server("--no-ssl") as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Server]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="session")
def object_server() -> Iterator[Server]:
    """An S3 server, for tests that do not restart it."""
    with s3_server() as server:
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the object storage servers want to find in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
