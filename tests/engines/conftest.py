"""Servers that several modules of engine tests share; one of each a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.object_servers import cosmos_server
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
