"""The stores that adapters are tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from everthread import Store, open_store
from everthread.wrappers.encryption.encrypted import Encrypted
from tests.servers import Server
from tests.wrappers.sealed_places import KEYRING


@pytest.fixture(params=["memory", "sqlite", "redis", "encrypted"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, fresh_prefix: str) -> AsyncIterator[Store]:
    """An empty store of each engine, one after the other, and an encrypted one."""
    if request.param == "memory":
        opened = open_store("memory:")
    elif request.param == "encrypted":
        opened = Encrypted(open_store("memory:"), KEYRING)
    elif request.param == "sqlite":
        opened = open_store(f"sqlite:///{tmp_path / 'threads.db'}")
    else:
        server: Server = request.getfixturevalue("plain_redis_server")
        opened = open_store(f"redis://127.0.0.1:{server.port}/0", prefix=fresh_prefix)
    async with opened:
        yield opened
