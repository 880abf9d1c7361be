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
        thread = "(SELECT id FROM threads WHERE tenant = $1 AND thread_id = $2)"
        # text holds no bytes that are not UTF-8
        text = payload.decode("latin-1")
        await self._execute(f"UPDATE messages SET payload = $3 WHERE seq = $4 AND thread = {thread}", key, text, seq)

    async def corrupt_metadata(self, key: ThreadKey) -> None:
        await self._execute("UPDATE threads SET metadata = '{not JSON' WHERE tenant = $1 AND thread_id = $2", key)

    async def _execute(self, statement: str, key: ThreadKey, *arguments: object) -> None:
        schema = self.url.partition("schema=")[2].partition("&")[0]
        connection = await asyncpg.connect(self.url.partition("?")[0], server_settings={"search_path": schema})
        await connection.execute(statement, key.tenant, key.thread_id, *arguments)
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


@pytest.mark.essential_first
class TestPostgres(StoreContractSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


@pytest.mark.essential_first
class TestPostgresRewrites(RewriteSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


@pytest.mark.essential_first
class TestPostgresImports(ImportSuite):
    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


@pytest.mark.essential_first
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


@pytest.mark.slow
class TestPostgresAcrossRestarts(ServerSuite):
    @pytest.fixture
    def harness(self, own_server: PostgresServer) -> RestartedHarness:
        return RestartedHarness(own_server)
