"""Servers and stores of the Redis tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio as redis_py

from everthread import Store, open_store
from tests.redis_topologies import Cluster, Sentinels, redis_cluster, redis_sentinels
from tests.servers import REDIS_LIKE, Server, redis_server


@pytest.fixture(scope="module", params=sorted(REDIS_LIKE))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Redis 8 and Valkey 9, one after the other. A test may kill it: it saves every write at once."""
    with redis_server(request.param, "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def url(server: Server, fresh_prefix: str) -> str:
    return f"redis://127.0.0.1:{server.port}?prefix={fresh_prefix}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        yield store


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[redis_py.Redis]:
    """Another program."""
    async with redis_py.Redis(port=server.port) as client:
        yield client


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with redis_cluster("redis") as found:
        yield found


@pytest.fixture(scope="session")
def sentinels() -> Iterator[Sentinels]:
    with redis_sentinels("redis") as found:
        yield found
