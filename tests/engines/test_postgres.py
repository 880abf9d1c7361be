"""The PostgreSQL engine keeps every guarantee, on a real server."""

from __future__ import annotations

import asyncpg
import pytest

from everthread.model import ThreadKey
from everthread.testing import CorruptibleHarness, StoreContractSuite, UrlHarness
from tests.postgres_server import PostgresServer, fresh_url


class PostgresHarness(UrlHarness, CorruptibleHarness):
    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        connection = await asyncpg.connect(self.url.partition("?")[0])
        schema = self.url.partition("schema=")[2].partition("&")[0]
        await connection.execute(
            f"UPDATE {schema}.messages SET payload = $1 WHERE seq = $2 AND thread = "
            f"(SELECT id FROM {schema}.threads WHERE tenant = $3 AND thread_id = $4)",
            payload.decode(),
            seq,
            key.tenant,
            key.thread_id,
        )
        await connection.close()


class TestPostgres(StoreContractSuite):
    @pytest.fixture
    def harness(self, postgres: PostgresServer) -> PostgresHarness:
        return PostgresHarness(lambda: fresh_url(postgres))
