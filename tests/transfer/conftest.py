"""Empty places on each of the engines."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from everthread import Store, open_store
from tests.postgres_server import fresh_url

_names = itertools.count()
PAIRS = [("memory", "sqlite"), ("sqlite", "redis"), ("redis", "memory"), ("sqlite", "sqlite")]
"""Each engine is read and written; what is moved goes through the contract alone, so not every pair is needed."""

Places = Callable[[], str]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"store", "target"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("store", "target"), PAIRS, indirect=True)
    elif "store" in metafunc.fixturenames:
        metafunc.parametrize("store", ["memory", "sqlite", "redis"], indirect=True)
    elif "target" in metafunc.fixturenames:
        metafunc.parametrize("target", ["memory", "sqlite", "redis"], indirect=True)


def empty_place(request: pytest.FixtureRequest, engine: str, options: str = "") -> str:
    """The URL of an empty store."""
    if engine == "memory":
        return "memory:" + (f"?{options}" if options else "")
    if engine == "postgres":
        return fresh_url(request.getfixturevalue("postgres"))
    if engine == "redis":
        port = request.getfixturevalue("plain_redis_server").port
        return f"redis://127.0.0.1:{port}?prefix=transfer{next(_names)}&{options}".rstrip("&")
    folder: Path = request.getfixturevalue("tmp_path")
    if engine == "objects":
        return f"file://{folder}/objects{next(_names)}"
    return f"sqlite:///{folder}/{next(_names)}.db?{options}".rstrip("?")


@pytest.fixture(params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest) -> Places:
    """Gives the URL of another empty store at each call; one that outlives the process."""
    return lambda: empty_place(request, request.param)


@pytest.fixture
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store."""
    async with open_store(empty_place(request, request.param)) as opened:
        yield opened


@pytest.fixture
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Another empty store, with a retention that must not touch what is moved."""
    async with open_store(empty_place(request, request.param, "max_messages=3")) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres", "objects"])
async def any_store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store on every engine that can be had here."""
    async with open_store(empty_place(request, request.param)) as opened:
        yield opened
