"""The Redis engine on Redis 8 and Valkey 9: the conformance kit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import redis as redis_py

from everthread.engines.redis.keys import ThreadNames
from everthread.model import ThreadKey
from everthread.testing import (
    CorruptibleHarness,
    CorruptionSuite,
    CostSuite,
    ImportSuite,
    MeteredHarness,
    ProcessSuite,
    RewriteSuite,
    ServerHarness,
    ServerSuite,
    StoreContractSuite,
    UrlHarness,
)
from tests.servers import REDIS_LIKE, Server, redis_server

_prefixes = itertools.count()


class RedisHarness(UrlHarness, CorruptibleHarness, ServerHarness, MeteredHarness):
    """A prefix of its own on a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.prefix = f"kit{next(_prefixes)}"
        super().__init__(lambda: f"redis://127.0.0.1:{server.port}?{urlencode({'prefix': self.prefix})}")

    def another(self) -> RedisHarness:
        return type(self)(self.server)

    def kill_server(self) -> None:
        self.server.kill()

    def start_server(self) -> None:
        self.server.start()

    async def traffic(self) -> int:
        with redis_py.Redis(port=self.server.port) as client:
            stats: dict[str, int] = client.info("stats")
        return stats["total_net_input_bytes"] + stats["total_net_output_bytes"]

    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        with redis_py.Redis(port=self.server.port) as client:
            client.lset(ThreadNames(self.prefix, key).names[0], seq, payload)

    async def corrupt_metadata(self, key: ThreadKey) -> None:
        with redis_py.Redis(port=self.server.port) as client:
            client.hset(ThreadNames(self.prefix, key).names[1], "metadata", "{not JSON")


@pytest.fixture(scope="module", params=sorted(REDIS_LIKE))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Redis 8 and Valkey 9, one after the other; may be restarted, so nothing is left to a later fsync."""
    with redis_server(request.param, "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def harness(server: Server) -> RedisHarness:
    return RedisHarness(server)


@pytest.mark.essential_first
class TestRedis(StoreContractSuite, ProcessSuite, CorruptionSuite, CostSuite, RewriteSuite, ImportSuite):
    pass


@pytest.mark.slow
class TestRedisRestarted(ServerSuite):
    pass
