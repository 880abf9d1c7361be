"""A store of each engine, and URLs that several processes can open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from everthread import Store, open_store
from tests.postgres_server import fresh_url
from tests.servers import Server


def _url(request: pytest.FixtureRequest, folder: Path, server: Server, prefix: str) -> str:
    if request.param == "postgres":
        return fresh_url(request.getfixturevalue("postgres"))
    return {
        "memory": "memory:",
        "sqlite": f"sqlite:///{folder / 'threads.db'}",
        "folder": f"file://{folder}/objects",
        "redis": f"redis://127.0.0.1:{server.port}/0?prefix={prefix}",
    }[request.param]


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place that other processes reach too."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place; what is in memory is there for one store only."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest.fixture(params=["sqlite", "redis", "folder", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place of every kind that other processes reach too."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest.fixture(params=["memory", "sqlite", "redis", "folder", "postgres"])
def every_url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place of every kind."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest_asyncio.fixture
async def store(every_url: str) -> AsyncIterator[Store]:
    """An open, empty store."""
    async with open_store(every_url) as opened:
        yield opened
