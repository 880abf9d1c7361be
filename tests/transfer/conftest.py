"""The stores between which threads are moved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from everthread import Store, open_store
from tests.places import empty_place

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


@pytest.fixture(params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest) -> Places:
    """Gives the URL of another empty store at each call; one that outlives the process."""
    return lambda: empty_place(request, request.param)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store that outlives the process, on the engine of the parameter."""
    return empty_place(request, request.param)


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
