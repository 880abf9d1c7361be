"""Fixtures for all tests: one server of each kind a session, an empty database for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.servers import Server, redis_server

_prefixes = itertools.count()


@pytest.fixture(scope="session", params=["redis", "valkey"])
def any_redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Redis 8 and Valkey 9, one after the other; for tests that do not restart or stop it."""
    with redis_server(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def plain_redis_server() -> Iterator[Server]:
    """One Redis 8, for tests in which the server's make does not matter and that do not restart it."""
    with redis_server("redis") as server:
        yield server


@pytest.fixture
def fresh_prefix() -> str:
    """A key prefix that no other test of this session uses."""
    return f"test{next(_prefixes)}"
