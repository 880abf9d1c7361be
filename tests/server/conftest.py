"""The stores that the thread API is tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from everthread import Store, open_store
from tests.places import empty_place


@pytest_asyncio.fixture(params=["sqlite", "redis", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An open, empty store of each kind, one after the other."""
    async with open_store(empty_place(request, request.param)) as opened:
        yield opened


@pytest_asyncio.fixture
async def quick_store() -> AsyncIterator[Store]:
    """An open, empty store, for tests in which the engine does not matter."""
    async with open_store("memory:") as opened:
        yield opened
