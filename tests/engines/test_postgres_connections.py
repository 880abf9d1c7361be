"""What happens between the PostgreSQL engine and a server that is slow, restarts, or is reached through PgBouncer."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from everthread import (
    Appended,
    ConfigurationError,
    OutcomeUnknownError,
    Retention,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
    read_all,
)
from everthread.engines.postgres import PostgresStore, entra_password
from everthread.testing import StoreContractSuite, UrlHarness
from tests.postgres_server import PostgresServer, fresh_url, has_pgbouncer, pgbouncer, postgres_server, readable_folder
from tests.servers import free_port

KEY = ThreadKey("t")
TURN = [new_message({"role": "user", "content": "Hello"}), new_message({"role": "assistant", "content": "Hi"})]
SECRET = "correct-horse"

needs_pgbouncer = pytest.mark.skipif(not has_pgbouncer(), reason="pgbouncer is not installed (apt install pgbouncer)")


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return fresh_url(postgres)


@pytest.fixture
async def admin(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url())
    yield connection
    await connection.close()


def schema_of(url: str) -> str:
    return url.partition("schema=")[2].partition("&")[0]


async def until_blocked(admin: asyncpg.Connection, count: int = 1) -> None:
    """Returns when so many sessions wait for a lock."""
    deadline = time.monotonic() + 20
    while await admin.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") < count:
        assert time.monotonic() < deadline, "nobody waits for the lock"
        await asyncio.sleep(0.01)


async def test_a_borrowed_pool_is_used_and_never_closed(url: str, postgres: PostgresServer) -> None:
    async with asyncpg.create_pool(postgres.url(), min_size=1, max_size=2) as pool:
        async with PostgresStore.from_pool(pool, schema=schema_of(url)) as store:
            await asyncio.gather(*(store.append(KEY, TURN) for _ in range(20)))
            await asyncio.gather(*(store.read_last(KEY, 3) for _ in range(20)))
            assert SECRET not in repr(store)
        assert await pool.fetchval(f"SELECT count(*) FROM {schema_of(url)}.messages") == 40


async def test_a_store_closes_its_connections(url: str, admin: asyncpg.Connection) -> None:
    name = f"closing_{schema_of(url)}"
    async with open_store(f"{url}&application_name={name}") as store:
        await asyncio.gather(*(store.read(KEY) for _ in range(10)))
    deadline = time.monotonic() + 10
    while await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name):
        assert time.monotonic() < deadline, "a connection stayed open"
        await asyncio.sleep(0.01)


async def test_more_callers_than_connections_all_get_their_answer(url: str) -> None:
    async with open_store(url, pool_size=2) as store:
        await store.append(KEY, TURN)
        pages = await asyncio.gather(*(store.read(KEY) for _ in range(100)))
        assert {len(page) for page in pages} == {2}


async def test_cancelled_calls_leave_no_broken_connection(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url, pool_size=3) as store:
        await store.append(KEY, TURN)
        async with admin.transaction():
            await admin.execute(f"LOCK TABLE {schema_of(url)}.threads IN ACCESS EXCLUSIVE MODE")
            tasks = [asyncio.create_task(call) for call in (store.read(KEY), store.update_thread(KEY, title="x"))]
            await until_blocked(admin, 2)
            for task in tasks:
                task.cancel()
            for task in tasks:
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert [len(await store.read(KEY)) for _ in range(5)] == [2] * 5
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert thread.title is None


async def test_a_locked_thread_does_not_fail_the_appends_sent_with_it(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url, timeout=0.9) as store:
        keys = [ThreadKey(str(number)) for number in range(5)]
        for key in keys:
            await store.append(key, TURN)
        async with admin.transaction():
            await admin.execute(f"SELECT FROM {schema_of(url)}.threads WHERE thread_id = '2' FOR UPDATE")
            answers = await asyncio.gather(*(store.append(key, TURN) for key in keys), return_exceptions=True)
        assert [isinstance(answer, Appended) for answer in answers] == [True, True, False, True, True]
        assert isinstance(answers[2], StoreUnavailableError)
        assert not isinstance(answers[2], OutcomeUnknownError)
        assert len(await store.read(keys[2])) == 2


async def test_a_statement_timeout_is_a_typed_error(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url, timeout=0.3) as store:
        await store.append(KEY, TURN)
        async with admin.transaction():
            await admin.execute(f"LOCK TABLE {schema_of(url)}.messages IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreUnavailableError, match="timeout"):
                await store.read(KEY)
        assert len(await store.read(KEY)) == 2


async def test_writers_of_many_threads_in_any_order_do_not_lock_each_other_out(url: str) -> None:
    keys = [ThreadKey(str(number)) for number in range(12)]
    stores = [open_store(url, timeout=60) for _ in range(4)]

    async def write(number: int) -> None:
        order = keys[number:] + keys[:number] if number % 2 else keys[::-1]
        for _ in range(10):
            await asyncio.gather(*(stores[number].append(key, TURN) for key in order))

    await asyncio.gather(*(write(number) for number in range(4)))
    for key in keys:
        assert (await stores[0].read_last(key, 0)).next_seq == 4 * 10 * 2
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_a_server_that_restarts_in_mid_load_loses_and_doubles_nothing() -> None:
    with postgres_server() as server:
        async with open_store(fresh_url(server)) as store, open_store(fresh_url(server)) as other:
            stop = asyncio.Event()

            async def write(writer: int) -> int:
                turns = 0
                while not stop.is_set():
                    await (store, other)[writer % 2].append(ThreadKey(str(writer)), TURN)
                    turns += 1
                return turns

            async def read() -> None:
                while not stop.is_set():
                    await store.read_last(ThreadKey("0"), 5)

            writers = [asyncio.create_task(write(number)) for number in range(6)]
            reader = asyncio.create_task(read())
            for end in (server.stop, server.kill):
                await _until_written(store)
                await asyncio.to_thread(end)
                await asyncio.to_thread(server.start)
                await _until_written(store)
            stop.set()
            turns = await asyncio.gather(*writers)
            await reader
            for writer, count in enumerate(turns):
                kept = [m.seq async for m in read_all((store, other)[writer % 2], ThreadKey(str(writer)))]
                assert kept == list(range(count * len(TURN)))


async def _until_written(store: object) -> None:
    assert isinstance(store, PostgresStore)
    before = (await store.read_last(ThreadKey("0"), 0)).next_seq
    deadline = time.monotonic() + 30
    while (await store.read_last(ThreadKey("0"), 0)).next_seq <= before + 20:
        assert time.monotonic() < deadline, "nothing is written"
        await asyncio.sleep(0.01)


async def test_a_server_that_is_not_there_gives_one_clear_error_without_secrets() -> None:
    store = open_store(f"postgresql://ana:{SECRET}@127.0.0.1:{free_port()}/db?sslmode=disable")
    with pytest.raises(StoreUnavailableError, match="host and port") as caught:
        await store.read(KEY)
    for shown in (str(caught.value), repr(caught.value), repr(store), store.location):
        assert SECRET not in shown
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "pool_size=1", "pool_size=x", "timeout=0", "timeout=nan", "connect_timeout=-1", "pgbouncer=maybe", "auth=magic",
        "schema=A", "search=true&search_language=a'b", "schema=a&schema=b",
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(f"postgresql://ana:{SECRET}@localhost/db?{option}")


async def test_an_option_that_the_driver_does_not_take_is_a_typed_error(postgres: PostgresServer) -> None:
    for wrong in ("?sslmode=perhaps", "?no_such_setting=1"):
        with pytest.raises((ConfigurationError, StoreUnavailableError)) as caught:
            await open_store(postgres.url(password=SECRET, options=wrong)).open()
        assert SECRET not in str(caught.value)


async def test_a_database_that_does_not_exist_is_a_typed_error(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match="database"):
        await open_store(postgres.url(database="nowhere")).open()


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


class TestAuthentication:
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


@pytest.fixture(scope="module")
def bouncer(postgres: PostgresServer) -> Iterator[PostgresServer]:
    with pgbouncer(postgres) as bouncer:
        yield bouncer


@needs_pgbouncer
@pytest.mark.campaign
class TestPgBouncer(StoreContractSuite):
    """The whole kit through PgBouncer in transaction mode, where no two statements need share a connection."""

    @pytest.fixture
    def harness(self, bouncer: PostgresServer) -> UrlHarness:
        return UrlHarness(lambda: fresh_url(bouncer, pgbouncer="true"))

    async def test_more_clients_than_connections_are_served(self, harness: UrlHarness) -> None:
        stores = [harness.open() for _ in range(8)]
        for _ in range(5):
            await asyncio.gather(*(store.append(KEY, TURN) for store in stores for _ in range(8)))
            await asyncio.gather(*(store.read_last(KEY, 4) for store in stores for _ in range(8)))
        assert (await stores[0].read_last(KEY, 0)).next_seq == 5 * 8 * 8 * len(TURN)
        await asyncio.gather(*(store.aclose() for store in stores))

    async def test_a_borrowed_pool_without_prepared_statements_works(self, bouncer: PostgresServer) -> None:
        url = fresh_url(bouncer)
        async with (
            asyncpg.create_pool(bouncer.url(), statement_cache_size=0, min_size=1, max_size=5) as pool,
            PostgresStore.from_pool(pool, schema=schema_of(url)) as store,
        ):
            await asyncio.gather(*(store.append(KEY, TURN) for _ in range(20)))
            assert len(await store.read(KEY)) == 40


@needs_pgbouncer
class TestPgBouncerUnannounced:
    async def test_refused_settings_say_what_to_add_to_the_url(self, bouncer: PostgresServer) -> None:
        with pytest.raises(ConfigurationError, match="pgbouncer=true"):
            await open_store(fresh_url(bouncer)).open()

    async def test_lost_statements_say_what_to_add_to_the_url(self, postgres: PostgresServer) -> None:
        ignored = "jit,plan_cache_mode,enable_seqscan,statement_timeout,lock_timeout"

        async def read_in_many_sessions(url: str) -> None:
            for _ in range(5):
                async with open_store(url) as store:
                    await asyncio.gather(*(store.get_thread(KEY) for _ in range(20)))

        with (
            pgbouncer(postgres, {"ignore_startup_parameters": ignored}) as lenient,
            pytest.raises(ConfigurationError, match="pgbouncer=true"),
        ):
            await read_in_many_sessions(fresh_url(lenient))

    async def test_a_database_that_it_does_not_know_is_no_matter_of_host_and_port(
        self, bouncer: PostgresServer
    ) -> None:
        with pytest.raises((ConfigurationError, StoreUnavailableError)) as caught:
            await open_store(bouncer.url(database="nowhere", options="?pgbouncer=true")).open()
        assert "database" in str(caught.value)
        assert "host and port" not in str(caught.value)


def _certificate(folder: Path, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / f"{name}.key").write_bytes(private)
    return certificate, key


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    with readable_folder() as folder:
        authority = _certificate(folder, "authority")
        _certificate(folder, "server", authority)
        _certificate(folder, "stranger")
        for key in folder.glob("*.key"):
            # Keys of a test, read by a server that runs as another user.
            key.chmod(0o644)
        yield folder


@pytest.fixture(scope="module")
def tls_bouncer(postgres: PostgresServer, certificates: Path) -> Iterator[PostgresServer]:
    tls = {
        "client_tls_sslmode": "require",
        "client_tls_key_file": str(certificates / "server.key"),
        "client_tls_cert_file": str(certificates / "server.crt"),
    }
    with pgbouncer(postgres, tls) as bouncer:
        yield bouncer


@needs_pgbouncer
class TestTls:
    """PgBouncer is the server here: the PostgreSQL of the tests is built without TLS."""

    async def test_sslmode_verify_full_accepts_the_right_authority(
        self, tls_bouncer: PostgresServer, certificates: Path
    ) -> None:
        right = {"sslmode": "verify-full", "sslrootcert": certificates / "authority.crt", "pgbouncer": "true"}
        async with open_store(fresh_url(tls_bouncer, **right)) as store:
            await store.append(KEY, TURN, retention=Retention(max_messages=1))
            assert len(await store.read(KEY)) == 1

    async def test_sslmode_verify_full_refuses_another_authority(
        self, tls_bouncer: PostgresServer, certificates: Path
    ) -> None:
        wrong = {"sslmode": "verify-full", "sslrootcert": certificates / "stranger.crt", "pgbouncer": "true"}
        with pytest.raises(StoreUnavailableError, match="sslmode"):
            await open_store(fresh_url(tls_bouncer, **wrong)).open()

    async def test_a_server_that_wants_tls_refuses_a_plain_connection(self, tls_bouncer: PostgresServer) -> None:
        with pytest.raises((StoreUnavailableError, ConfigurationError)):
            await open_store(fresh_url(tls_bouncer, sslmode="disable", pgbouncer="true")).open()
