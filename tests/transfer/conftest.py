"""Two empty places for each test, on each of the engines."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from everthread import Store, open_store

_names = itertools.count()

Places = Callable[[], str]


@pytest.fixture(params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """Gives the URL of another empty store at each call; one that outlives the process."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{next(_names)}.db"
    port = request.getfixturevalue("plain_redis_server").port
    return lambda: f"redis://127.0.0.1:{port}?prefix=transfer{next(_names)}"


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store on each of the engines."""
    if request.param == "memory":
        url = "memory:"
    elif request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/{next(_names)}.db"
    else:
        port = request.getfixturevalue("plain_redis_server").port
        url = f"redis://127.0.0.1:{port}?prefix=transfer{next(_names)}"
    async with open_store(url) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Another empty store on each of the engines, with a retention that must not touch what is moved."""
    if request.param == "memory":
        url = "memory:?max_messages=3"
    elif request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/target{next(_names)}.db?max_messages=3"
    else:
        port = request.getfixturevalue("plain_redis_server").port
        url = f"redis://127.0.0.1:{port}?prefix=transfer{next(_names)}&max_messages=3"
    async with open_store(url) as opened:
        yield opened
