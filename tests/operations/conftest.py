"""The stores that operations are tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from everthread import Store, open_store
from tests.places import empty_place


@pytest_asyncio.fixture
async def store(every_url: str) -> AsyncIterator[Store]:
    """An open, empty store of each kind, one after the other."""
    async with open_store(every_url) as opened:
        yield opened


@pytest_asyncio.fixture(params=["memory", "sqlite", "redis"])
async def fast_store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """The same on the engines where a call costs little, for modules of many tests."""
    options = "synchronous=normal" if request.param == "sqlite" else ""
    async with open_store(empty_place(request, request.param, options)) as opened:
        yield opened
