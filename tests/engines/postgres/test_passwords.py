"""Passwords and tokens: used for each connection, and in no error."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import asyncpg
import pytest

from everthread import (
    ConfigurationError,
    EverthreadError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.contract import Store
from everthread.engines.postgres import entra_password
from everthread.testing import SecretHarness, SecretSuite, UrlHarness
from tests.postgres_server import PostgresServer, fresh_url, postgres_server
from tests.servers import free_port

KEY = ThreadKey("t")
TURN = [new_message({"role": "user", "content": "Hello"}), new_message({"role": "assistant", "content": "Hi"})]
SECRET = "correct-horse"


@pytest.fixture(scope="module")
def strict_server() -> Iterator[PostgresServer]:
    """A server that lets nobody in without a password."""

    async def execute(statement: str, password: str = "") -> None:
        connection = await asyncpg.connect(server.url(password=password))
        await connection.execute(statement)
        await connection.close()

    with postgres_server() as server:
        asyncio.run(execute(f"ALTER ROLE postgres PASSWORD '{SECRET}'"))
        (server.folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        asyncio.run(execute("SELECT pg_reload_conf()"))
        yield server


class PostgresWithPassword(UrlHarness, SecretHarness):
    secret = SECRET

    def open_unreachable(self) -> Store:
        return open_store(f"postgresql://postgres:{SECRET}@127.0.0.1:{free_port()}/postgres")


class TestPostgresWithPassword(SecretSuite):
    @pytest.fixture
    def harness(self, strict_server: PostgresServer) -> SecretHarness:
        return PostgresWithPassword(lambda: fresh_url(strict_server).replace("postgres@", f"postgres:{SECRET}@"))


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Every exception behind one, also those that ``raise … from None`` hides from tracebacks."""
    if error is not None:
        yield error
        yield from chain_of(error.__cause__)
        yield from chain_of(error.__context__)


FAILURES: dict[str, str] = {
    "nothing listens": "postgresql://postgres:{secret}@127.0.0.1:{free}/postgres",
    "several hosts": "postgresql://postgres:{secret}@127.0.0.1:{free},127.0.0.1:{free}/postgres",
    "unknown host": "postgresql://postgres:{secret}@nowhere.invalid/postgres",
    "no socket": "postgresql://postgres:{secret}@/postgres?host=/nowhere",
    "wrong password": "postgresql://postgres:{secret}@127.0.0.1:{port}/postgres",
    "unknown role": "postgresql://nobody:{secret}@127.0.0.1:{port}/postgres",
    "unknown database": "postgresql://postgres:{right}@127.0.0.1:{port}/nowhere",
    "no TLS": "postgresql://postgres:{secret}@127.0.0.1:{port}/postgres?sslmode=require",
    "no root certificate": "postgresql://postgres:{secret}@127.0.0.1/db?sslmode=verify-ca&sslrootcert=/nowhere",
    "bad client key": "postgresql://127.0.0.1/db?sslmode=require&sslcert={file}&sslkey={file}&sslpassword={secret}",
    "bad server option": "postgresql://postgres:{right}@127.0.0.1:{port}/postgres?options=-c%20nowhere%3D{secret}",
    "bad port": "postgresql://postgres:{secret}@127.0.0.1/postgres?port=x",
    "bad host": "postgresql://postgres:{secret}@127.0.0.1/postgres?host=a%2Fb",
    "bad driver option": "postgresql://postgres:{secret}@127.0.0.1/postgres?target_session_attrs=x",
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_no_error_in_the_chain_of_a_failed_connection_holds_a_secret(
    strict_server: PostgresServer, tmp_path: Path, failure: str
) -> None:
    (tmp_path / "key").write_text("no key")
    wrong = "wrong-" + SECRET
    values = {
        "secret": wrong,
        "right": SECRET,
        "free": free_port(),
        "port": strict_server.port,
        "file": tmp_path / "key",
    }
    with pytest.raises(EverthreadError) as caught:
        await open_store(FAILURES[failure].format(**values)).open()
    for error in chain_of(caught.value):
        for shown in (str(error), repr(error), repr(error.args), *traceback.format_exception(error)):
            assert SECRET not in shown, type(error)


async def test_no_error_of_a_broken_connection_holds_a_secret() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no PostgreSQL\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(EverthreadError) as caught:
            await open_store(f"postgresql://ana:{SECRET}@127.0.0.1:{port}/db?sslmode=disable").open()
    for error in chain_of(caught.value):
        assert SECRET not in "".join(traceback.format_exception(error)) + repr(error.args)


class TestAuthentication:
    async def test_a_password_of_special_characters_is_taken_as_it_stands(self, strict_server: PostgresServer) -> None:
        odd = "p@s:s[w]+;é"
        admin = await asyncpg.connect(strict_server.url(password=SECRET))
        await admin.execute(f"CREATE ROLE odd SUPERUSER LOGIN PASSWORD '{odd}'")
        await admin.close()
        for password in (odd, quote(odd, safe="")):
            async with open_store(strict_server.url(user="odd", password=password)) as store:
                await store.append(KEY, TURN)

    async def test_a_wrong_password_is_a_typed_error_that_does_not_show_it(self, strict_server: PostgresServer) -> None:
        with pytest.raises(ConfigurationError, match="pg_hba") as caught:
            await open_store(strict_server.url(password="wrong-horse")).open()
        assert "wrong-horse" not in str(caught.value)

    async def test_a_password_function_is_asked_for_each_new_connection(self, strict_server: PostgresServer) -> None:
        asked: list[int] = []

        async def password() -> str:
            asked.append(1)
            return SECRET

        async with open_store(fresh_url(strict_server), password=password, pool_size=4) as store:
            await asyncio.gather(*(store.read(KEY) for _ in range(30)))
        assert len(asked) == 4

    async def test_a_token_of_entra_is_the_password(self, strict_server: PostgresServer) -> None:
        scopes: list[str] = []

        def get_token(scope: str) -> SimpleNamespace:
            scopes.append(scope)
            return SimpleNamespace(token=SECRET)

        async def get_token_async(scope: str) -> SimpleNamespace:
            return get_token(scope)

        for credential in (SimpleNamespace(get_token=get_token), SimpleNamespace(get_token=get_token_async)):
            async with open_store(fresh_url(strict_server), password=entra_password(credential)) as store:
                await store.append(KEY, TURN)
        assert set(scopes) == {"https://ossrdbms-aad.database.windows.net/.default"}
