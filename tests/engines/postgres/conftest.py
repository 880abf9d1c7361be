"""A schema and an administrator's connection for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.postgres_server import PostgresServer, fresh_url


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return fresh_url(postgres)


@pytest.fixture
async def admin(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url())
    yield connection
    await connection.close()
