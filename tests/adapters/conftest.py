"""The stores that adapters are tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from everthread import Store
from tests.places import adapted_store


@pytest.fixture(params=["memory", "sqlite", "redis", "encrypted"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store of each engine, one after the other, and an encrypted one."""
    async with adapted_store(request, request.param) as store:
        yield store
