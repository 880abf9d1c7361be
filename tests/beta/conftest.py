"""Runs only where one of Agent Framework's betas is installed: `make test` has an environment of its own for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import agent_framework
import pytest

from everthread import Store
from tests.places import adapted_store
from tests.servers import Server

# Not skips: the main environment never has a beta, and `make test` runs these in the one that has.
collect_ignore_glob = [] if hasattr(agent_framework, "AgentThread") else ["test_*.py"]


@pytest.fixture(autouse=True)
def no_place_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "EVERTHREAD_STORE", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def redis_url(plain_redis_server: Server) -> str:
    return f"redis://127.0.0.1:{plain_redis_server.port}/0"


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a place that two processes can share, on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'threads.db'}"
    return request.getfixturevalue("redis_url")


@pytest.fixture(params=["memory", "sqlite", "redis", "encrypted"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store of each engine, one after the other, and an encrypted one."""
    async with adapted_store(request, request.param) as store:
        yield store
