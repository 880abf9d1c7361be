"""Engines that are given a password show it nowhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from everthread.contract import Store
from everthread.opening import open_store
from everthread.testing import SecretHarness, SecretSuite, UrlHarness
from tests.servers import free_port, redis_server

PASSWORD = "correct-horse-battery-staple"


class RedisWithPassword(UrlHarness, SecretHarness):
    secret = PASSWORD

    def open_unreachable(self) -> Store:
        return open_store(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server("redis", "--requirepass", PASSWORD) as server:
        yield server.port


class TestRedisWithPassword(SecretSuite):
    @pytest.fixture
    def harness(self, port: int) -> SecretHarness:
        numbers = itertools.count()
        return RedisWithPassword(lambda: f"redis://:{PASSWORD}@127.0.0.1:{port}/0?prefix=kit{next(numbers)}")
