"""The key of the emulator, and a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cosmos_proxy import FaultyProxy
from tests.object_servers import COSMOS_KEY
from tests.servers import Server


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_COSMOS_KEY", COSMOS_KEY)


@pytest.fixture
def proxy(plain_cosmos_emulator: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(plain_cosmos_emulator.port) as proxy:
        yield proxy
