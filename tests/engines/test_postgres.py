"""The PostgreSQL engine keeps every guarantee, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from everthread import Store, open_store
from everthread.model import ThreadKey
from everthread.testing import (
    CorruptibleHarness,
    CorruptionSuite,
    ImportSuite,
    ProcessSuite,
    RewriteSuite,
    SecretHarness,
    SecretSuite,
    ServerHarness,
    ServerSuite,
    StoreContractSuite,
    UrlHarness,
)
from tests.postgres_server import PostgresServer, fresh_url, postgres_server
from tests.servers import free_port


class PostgresHarness(UrlHarness, CorruptibleHarness):
    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        connection = await asyncpg.connect(self.url.partition("?")[0])
        schema = self.url.partition("schema=")[2].partition("&")[0]
        await connection.execute(
            f"UPDATE {schema}.messages SET payload = $1 WHERE seq = $2 AND thread = "
            f"(SELECT id FROM {schema}.threads WHERE tenant = $3 AND thread_id = $4)",
            payload.decode("latin-1"),  # text holds no bytes that are not UTF-8
            seq,
            key.tenant,
            key.thread_id,
        )
        await connection.close()


class RestartedHarness(PostgresHarness, ServerHarness):
    def __init__(self, server: PostgresServer) -> None:
        super().__init__(lambda: fresh_url(server))
        self._server = server

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()


class PasswordHarness(UrlHarness, SecretHarness):
    secret = "correct-horse"

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(lambda: fresh_url(server).replace("postgres@", f"postgres:{self.secret}@"))

    def open_unreachable(self) -> Store:
        return open_store(f"postgresql://ana:{self.secret}@127.0.0.1:{free_port()}/db?password={self.secret}")


@pytest.fixture
def harness(postgres: PostgresServer) -> PostgresHarness:
    return PostgresHarness(lambda: fresh_url(postgres))


class TestPostgres(StoreContractSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresRewrites(RewriteSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresImports(ImportSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresAcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresAfterCorruption(CorruptionSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresSecrets(SecretSuite):
    @pytest.fixture
    def harness(self, postgres: PostgresServer) -> PasswordHarness:
        return PasswordHarness(postgres)


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


class TestPostgresAcrossRestarts(ServerSuite):
    @pytest.fixture
    def harness(self, own_server: PostgresServer) -> RestartedHarness:
        return RestartedHarness(own_server)
