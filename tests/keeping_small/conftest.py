"""The stores that pruning and summaries are tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from everthread import Store, open_store
from tests.places import empty_place


@pytest.fixture(params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives the URL of another empty store at each call; one that outlives the process."""
    return lambda: empty_place(request, request.param)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store."""
    async with open_store(empty_place(request, request.param)) as opened:
        yield opened
