"""The stores that operations are tested on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from everthread import Store, open_store


@pytest_asyncio.fixture
async def store(every_url: str) -> AsyncIterator[Store]:
    """An open, empty store of each kind, one after the other."""
    async with open_store(every_url) as opened:
        yield opened
