"""PostgreSQL URLs as libpq and providers write them."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

import everthread.engines.postgres.urls as urls
from everthread import ConfigurationError, ThreadKey, new_message, open_store
from everthread.engines.postgres.urls import certificates, connect_timeout, target_of
from tests.postgres_server import PostgresServer, fresh_url, postgres_server, readable_folder

TURN = [new_message({"role": "user", "content": "Hello"})]

# Of no effect, and yet in the URLs that providers and other drivers' users have.
IGNORED = [
    *("channel_binding=require", "connection_limit=1", "pool_timeout=0", "keepalives=1", "keepalives_idle=30"),
    *(
        "keepalives_interval=10",
        "keepalives_count=5",
        "tcp_user_timeout=100",
        "gssencmode=disable",
        "gssencmode=prefer",
    ),
    *("load_balance_hosts=random", "currentSchema=public", "client_encoding=utf8", "sslsni=1", "sslcompression=0"),
    *("statement_timeout=1000", "lock_timeout=10", "search_path=public", "jit=on", "uselibpqcompat=true"),
    *("statement_cache_size=0", "prepareThreshold=0", "sslcertmode=allow", "socketTimeout=3", "sslaccept=strict"),
]
TAKEN = [
    *("connect_timeout=10", "connect_timeout=0", "application_name=agents", "fallback_application_name=agents"),
    *("options=-c%20work_mem%3D8MB", "options=-cwork_mem=8MB", "target_session_attrs=read-write", "sslmode=disable"),
    *("sslmode=prefer", "ssl=false", "host=127.0.0.1", "hostaddr=127.0.0.1", "user=postgres", "password=", "dbname="),
    *("synchronous_commit=on", "idle_in_transaction_session_timeout=9000", "timezone=UTC", "krbsrvname=postgres"),
    *("ssl_min_protocol_version=TLSv1.2", "pgbouncer=true", "target_session_attrs=any&pool_size=3", "gsslib=gssapi"),
]


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_noted", set())


@pytest.mark.parametrize("option", IGNORED)
def test_options_without_effect_are_named_once(option: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "everthread.postgres")
    for _ in range(2):
        store = open_store(f"postgresql://user:s3cret@h/db?{option}")
    assert [option.partition("=")[0].lower() in record.getMessage() for record in caplog.records] == [True]
    assert "s3cret" not in caplog.text
    assert "?" not in store.location


@pytest.mark.parametrize("option", TAKEN)
async def test_options_of_libpq_are_taken(postgres: PostgresServer, option: str) -> None:
    async with open_store(f"{fresh_url(postgres)}&{option}") as store:
        await store.append(ThreadKey("t"), TURN)


async def test_all_options_at_once_open_a_store(postgres: PostgresServer) -> None:
    options = "&".join([*IGNORED, "connect_timeout=15", "sslmode=prefer", "application_name=agents of me@corp"])
    async with open_store(f"{fresh_url(postgres)}&{options}") as store:
        await store.append(ThreadKey("t"), TURN)
        connection = await asyncpg.connect(postgres.url())
        names = await connection.fetch("SELECT DISTINCT application_name FROM pg_stat_activity")
        await connection.close()
        assert "agents of me@corp" in {row["application_name"] for row in names}


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("color=red", "color"),
        ("sslmod=verify-full", "sslmod"),
        ("sslmode=verify_full", "sslmode"),
        ("sslmode=no-verify", "sslmode"),
        ("target_session_attrs=primery", "target_session_attrs"),
        ("require_auth=scram-sha-256", "require_auth"),
        ("gssencmode=require", "gssencmode"),
        ("replication=database", "replication"),
        ("sslrootcert=system&sslmode=require", "sslrootcert"),
        ("ssl_min_protocol_version=3", "ssl_min_protocol_version"),
        ("port=x", "port"),
        ("host=a/b", "host"),
        ("connect_timeout=soon", "connect_timeout"),
        ("pool_size=1", "pool_size"),
    ],
)
def test_options_that_are_unknown_or_wrong_are_named(option: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        open_store(f"postgresql://user@h/db?{option}")


@pytest.mark.parametrize("option", ["sslrootcert=/none/root.crt", "sslcert=/none/c.crt", "sslcrl=/none/c.crl"])
async def test_a_missing_certificate_file_is_a_configuration_error(postgres: PostgresServer, option: str) -> None:
    with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
        await open_store(f"{fresh_url(postgres)}&sslmode=require&{option}").open()


async def test_a_setting_that_the_server_lacks_is_no_search_language(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match="options in the URL"):
        await open_store(f"{fresh_url(postgres)}&options=-cno_such_setting%3D1").open()


async def test_the_first_of_several_hosts_that_answers_is_used(postgres: PostgresServer) -> None:
    place = fresh_url(postgres).replace("127.0.0.1", "127.0.0.1:1,127.0.0.1")
    async with open_store(place) as store:
        await store.append(ThreadKey("t"), TURN)


async def test_a_socket_is_named_in_the_query_or_as_host() -> None:
    with readable_folder() as folder, postgres_server("-k", str(folder)) as server:
        encoded = quote(str(folder), safe="")
        for place in (
            f"postgresql:///postgres?host={folder}&port={server.port}",
            f"postgresql://{encoded}:{server.port}/postgres",
        ):
            async with open_store(f"{place}{'&' if '?' in place else '?'}user=postgres") as store:
                await store.append(ThreadKey("t"), TURN)


def test_the_systems_certificates_are_used_if_no_others_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "_DEFAULT_ROOT", tmp_path / "root.crt")
    for query in ("sslrootcert=system", "sslmode=verify-full", "sslmode=verify-full&sslrootcert=system"):
        target = target_of(f"postgresql://h/db?{query}")
        context = certificates(target.options, {})
        assert context is not None, query
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
        assert "system" not in target.dsn
    own = tmp_path / "own.crt"
    own.write_text("")
    for query in ("sslmode=require", "sslmode=verify-ca", f"sslmode=verify-full&sslrootcert={own}", ""):
        assert certificates(target_of(f"postgresql://h/db?{query}").options, {}) is None, query
    assert certificates({"sslmode": "verify-full"}, {"PGSSLROOTCERT": str(own)}) is None


def test_a_driver_gets_a_password_as_it_was_meant() -> None:
    for password in ("p@ss", "p[a]ss", "p:ss", "p%20ss", "p+s;s", "é"):
        assert target_of(f"postgresql://u:{password}@h/db").dsn == f"postgresql://u:{quote(password, safe='%;')}@h/db"


def test_nothing_that_holds_a_url_shows_it() -> None:
    store = open_store("postgresql://user:s3cret@h/db?sslpassword=s3cret", password="s3cret")
    assert "s3cret" not in repr(vars(store))


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("0", 86_400), ("2.5", 2.5)])
def test_a_connect_timeout_of_zero_waits_for_long(text: str, seconds: float) -> None:
    assert connect_timeout(text) == seconds
