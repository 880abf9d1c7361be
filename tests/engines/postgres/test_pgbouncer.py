"""PgBouncer in transaction mode, also over TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from everthread import (
    ConfigurationError,
    Retention,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.engines.postgres import PostgresStore
from everthread.testing import StoreContractSuite, UrlHarness
from tests.postgres_server import (
    PostgresServer,
    fresh_url,
    has_pgbouncer,
    pgbouncer,
    readable_folder,
    schema_of,
)

KEY = ThreadKey("t")
TURN = [new_message({"role": "user", "content": "Hello"}), new_message({"role": "assistant", "content": "Hi"})]
SECRET = "correct-horse"


needs_pgbouncer = pytest.mark.skipif(not has_pgbouncer(), reason="pgbouncer is not installed (apt install pgbouncer)")


@pytest.fixture(scope="module")
def bouncer(postgres: PostgresServer) -> Iterator[PostgresServer]:
    with pgbouncer(postgres) as bouncer:
        yield bouncer


@needs_pgbouncer
@pytest.mark.front
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

    async def test_an_unknown_database_is_not_blamed_on_the_host(self, bouncer: PostgresServer) -> None:
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
        with pytest.raises(ConfigurationError, match="sslrootcert"):
            await open_store(fresh_url(tls_bouncer, **wrong)).open()

    async def test_a_server_that_wants_tls_refuses_a_plain_connection(self, tls_bouncer: PostgresServer) -> None:
        with pytest.raises((StoreUnavailableError, ConfigurationError)):
            await open_store(fresh_url(tls_bouncer, sslmode="disable", pgbouncer="true")).open()
