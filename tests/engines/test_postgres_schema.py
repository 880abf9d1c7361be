"""Migrations, rights and row-level security on PostgreSQL."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from everthread import (
    ConfigurationError,
    ConflictError,
    Retention,
    Rewrite,
    SchemaError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.doctor import examine
from everthread.engines.postgres import PostgresStore, SearchingPostgresStore, ddl, row_level_security
from everthread.engines.postgres._schema import newest_version
from everthread.model import Fact
from tests.postgres_server import PostgresServer, fresh_url

TURN = [new_message({"role": "user", "content": "Hello"})]
TOOLS = [
    new_message({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
    new_message({"role": "tool", "tool_call_id": "c", "content": "done"}),
]


def schema_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["schema"][0]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return fresh_url(postgres)


@pytest.fixture
async def admin(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url())
    yield connection
    await connection.close()


async def role_with_rights(admin: asyncpg.Connection, schema: str) -> str:
    """A role that may use tables but not make them."""
    role = f"user_of_{schema}"
    await admin.execute(f"""
        CREATE ROLE {role} LOGIN;
        GRANT USAGE ON SCHEMA {schema} TO {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
    """)
    return role


async def make_version_3(admin: asyncpg.Connection, schema: str) -> None:
    """What an earlier release left: its functions take other arguments than today's."""
    script = (Path(__file__).parent / "postgres_version_3.sql").read_text("utf-8")
    await admin.execute(f"CREATE SCHEMA {schema};" + re.sub(r"(?<![@\w])@(?=[a-z])", f"{schema}.", script))


def _open_and_append(url: str, number: int) -> int:
    async def run() -> int:
        async with open_store(url) as store:
            return (await store.append(ThreadKey("t"), TURN, append_id=str(number))).first_seq

    return asyncio.run(run())


def test_fifty_processes_that_start_at_once_make_one_schema(url: str) -> None:
    context = multiprocessing.get_context("forkserver")
    # Imported once, so that they start at the same time.
    context.set_forkserver_preload([__name__])
    with context.Pool(50) as processes:
        first = processes.starmap(_open_and_append, [(url, number) for number in range(50)])
    assert sorted(first) == list(range(50))


async def test_fifty_stores_that_open_at_once_make_one_schema(url: str, admin: asyncpg.Connection) -> None:
    stores = [open_store(url) for _ in range(50)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.aclose() for store in stores))
    versions = await admin.fetch(f"SELECT version FROM {schema_of(url)}.migrations ORDER BY version")
    assert [row["version"] for row in versions] == [1, newest_version()]


async def test_a_newer_schema_is_refused(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url):
        await admin.execute(f"INSERT INTO {schema_of(url)}.migrations (version, name) VALUES (99, 'future')")
    with pytest.raises(SchemaError, match="newer"):
        await open_store(url).open()


async def test_a_schema_is_not_made_where_that_is_forbidden(url: str, admin: asyncpg.Connection) -> None:
    with pytest.raises(SchemaError, match="ddl"):
        await open_store(url, migrate=False).open()
    assert not await admin.fetchval("SELECT true FROM pg_namespace WHERE nspname = $1", schema_of(url))


async def test_a_role_without_ddl_rights_works_once_migrated(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    async with open_store(url):
        role = await role_with_rights(admin, schema_of(url))
    as_role = postgres.url(user=role, options=f"?schema={schema_of(url)}")
    key = ThreadKey("t")
    async with open_store(as_role, retention=Retention(max_messages=2)) as store:
        for _ in range(3):
            await store.append(key, TURN)
            await store.append(key, TOOLS)
        await store.put_document(key, "d", b"1")
        await store.update_thread(key, title="x")
        await store.truncate(key, stop=1)
        assert await store.delete_thread(key)
        assert isinstance(store, PostgresStore)
        await store.purge()


async def test_a_role_without_ddl_rights_says_what_to_run_where_nothing_is_there(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    role = f"stranger_to_{schema_of(url)}"
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    with pytest.raises(SchemaError, match="ddl"):
        await open_store(postgres.url(user=role, options=f"?schema={schema_of(url)}")).open()


async def test_a_role_without_rights_is_told_which_it_needs(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    role = f"outsider_to_{schema_of(url)}"
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    async with open_store(url):
        with pytest.raises(ConfigurationError, match="USAGE"):
            await open_store(postgres.url(user=role, options=f"?schema={schema_of(url)}")).open()


async def test_the_printed_sql_makes_the_schema(url: str, admin: asyncpg.Connection) -> None:
    await admin.execute(ddl(schema_of(url), "chat_"))
    async with open_store(url, table_prefix="chat_", migrate=False) as store:
        await store.append(ThreadKey("t"), TURN)
    with pytest.raises(ConfigurationError):
        ddl('x"; DROP SCHEMA public; --')


async def test_the_printed_sql_leaves_out_what_is_there(url: str) -> None:
    everything, rest = ddl(schema_of(url)), ddl(schema_of(url), since=1)
    assert "CREATE TABLE" in everything
    assert f"CREATE TABLE {schema_of(url)}.threads" not in rest
    assert "FUNCTION" in rest
    assert "FUNCTION" not in ddl(schema_of(url), since=newest_version())


async def test_a_database_of_an_earlier_version_is_brought_up_to_date(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    await make_version_3(admin, schema)
    await admin.fetchval(
        f"SELECT {schema}.append_one(NULL, '', 't', 'first', 7, NULL, NULL, NULL, NULL, ARRAY['\"first\"'::bytea], "
        "'json', NULL)"
    )
    with pytest.raises(SchemaError, match="of version 3; version 4 is needed"):
        await open_store(url, migrate=False).open()
    async with open_store(url) as store:
        key = ThreadKey("t")
        assert (await store.append(key, TURN, append_id="first")).replayed
        await store.append(key, TURN)
        await asyncio.gather(*(store.append(key, TOOLS) for _ in range(3)))
        assert [message.payload for message in await store.read(key, stop=2)] == [b'"first"', TURN[0].payload]
        assert (await store.update_thread(key, retention=Retention(max_messages=3))).retention is not None
        await store.append(key, TURN)
        assert len(await store.read(key)) == 3
    assert [r["version"] for r in await admin.fetch(f"SELECT version FROM {schema}.migrations ORDER BY 1")] == [
        1,
        2,
        3,
        4,
    ]


async def test_processes_of_the_release_before_go_on_after_a_migration(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    await make_version_3(admin, schema)
    async with open_store(url) as store:
        for number in range(3):
            # What version 3 sends for an append of one turn, of several, and for dropping and deleting.
            one = "NULL, '', 'one', $1, 1, NULL, 2, NULL, NULL, ARRAY['1'::bytea], 'json', NULL"
            await admin.fetchval(f"SELECT {schema}.append_one({one})", str(number))
            two = (
                "NULL, 0, ARRAY['', ''], ARRAY['one', 'two'], ARRAY[$1, $1], ARRAY[1, 1], ARRAY[1, 1], NULL, "
                "ARRAY[2, 2], NULL, NULL, ARRAY[1, 2], ARRAY[0, 0], ARRAY['1', '1']::bytea[], 'json', NULL, NULL, "
                "NULL, NULL, 'simple', NULL, NULL, NULL, NULL, NULL, NULL"
            )
            rows = await admin.fetch(f"SELECT * FROM {schema}.append({two})", f"both {number}")
            assert [row["outcome"] for row in rows] == [0, 0]
        assert [message.seq for message in await store.read(ThreadKey("one"))] == [4, 5]
        assert [message.seq for message in await store.read(ThreadKey("two"))] == [1, 2]
        await admin.fetch(f"SELECT * FROM {schema}.truncate('', 'one', 0, 5, NULL)")
        assert await admin.fetchval(f"SELECT {schema}.delete_thread('', 'two', NULL)")
        assert isinstance(store, PostgresStore)
        assert await store.reconcile() == ()
        assert [(thread.key.thread_id, thread.count) for thread in await store.list_threads()] == [("one", 1)]


async def test_the_printed_sql_brings_an_earlier_version_up_to_date(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    await make_version_3(admin, schema)
    await admin.execute(ddl(schema, since=3))
    async with open_store(url, migrate=False) as store:
        await store.append(ThreadKey("t"), TURN)
        assert len(await store.read(ThreadKey("t"))) == len(TURN)


async def test_prefixes_keep_stores_apart(url: str) -> None:
    async with open_store(url, table_prefix="a_") as one, open_store(url, table_prefix="b_") as other:
        await one.append(ThreadKey("t"), TURN)
        assert await other.get_thread(ThreadKey("t")) is None


@pytest.mark.parametrize("name", ["", "Upper", "a-b", "1a", "a b", 'a"b', "a.b", "x" * 41, "é"])
def test_a_schema_that_would_need_quoting_is_refused(postgres: PostgresServer, name: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(postgres.url(), schema=name)


async def test_a_role_of_one_tenant_cannot_reach_anothers_rows(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    schema = schema_of(url)
    role = f"tenant_a_{schema}"
    secret = ThreadKey("secret", "b")
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    async with open_store(url) as owner:
        await owner.append(secret, TURN)
        await owner.put_document(secret, "d", b'"secret"')
        await admin.execute(row_level_security(role, "a", schema))
        as_role = postgres.url(user=role, options=f"?schema={schema}")
        async with open_store(as_role, retention=Retention(max_messages=3)) as store:
            await store.append(ThreadKey("mine", "a"), TURN)
            await store.append(ThreadKey("mine", "a"), TOOLS)
            assert len(await store.read(ThreadKey("mine", "a"))) == 3
            assert await store.get_thread(secret) is None
            assert len(await store.read(secret)) == 0
            assert len(await store.list_threads("b")) == 0
            assert not await store.delete_thread(secret)
            assert await store.delete_tenant("b") == 0
            with pytest.raises(ConfigurationError, match="row-level"):
                await store.append(secret, TURN)
            await store.append(ThreadKey("gone", "a"), TURN)
            assert await store.delete_thread(ThreadKey("gone", "a"))
        assert len(await owner.read(secret)) == 1
    await _by_hand(as_role.partition("?")[0], schema, admin)


async def test_a_role_of_one_tenant_can_do_all_that_a_store_can(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    schema = schema_of(url)
    role = f"able_{schema}"
    key, secret = ThreadKey("mine", "a"), ThreadKey("secret", "b")
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    async with open_store(url) as owner:
        for again in range(2):  # the script may be run again
            await admin.execute(row_level_security(role, "a", schema))
            await owner.append(ThreadKey(f"old {again}", "a"), TURN)
        await owner.append(secret, TURN)
        await admin.execute(f"UPDATE {schema}.threads SET size = 1 WHERE tenant = 'b' OR thread_id = 'old 0'")
    as_role = postgres.url(user=role, options=f"?schema={schema}&search=true")
    async with open_store(as_role) as store:
        assert isinstance(store, SearchingPostgresStore)
        await store.append(key, TURN)
        own = Retention(max_messages=2, expire_after=timedelta(days=9))
        assert (await store.update_thread(key, title="x", retention=own)).retention == own
        await store.append(key, TOOLS)
        change = Rewrite(2, TOOLS[1].payload, b'{"role":"user","content":"rome"}')
        assert await store.rewrite(key, [change]) == 1
        assert await store.rewrite(secret, [Rewrite(0, TURN[0].payload, b"1")]) == 0
        begun = datetime(2024, 5, 1)
        assert (await store.restore_times(key, created_at=begun, updated_at=datetime.now(UTC))).created_ms > 0
        assert [drift.count for drift in await store.reconcile(mend=True)] == [1, 2]
        assert len(await store.search("a", "hello")) == 2
        assert len(await store.search("b", "hello")) == 0
        with pytest.raises(ConflictError):
            await store.delete_thread(key, expected_seq=99)
        assert await store.delete_thread(key, expected_seq=3)
    assert await admin.fetchval(f"SELECT size FROM {schema}.threads WHERE tenant = 'b'") == 1
    assert await admin.fetchval(f"SELECT count(*) FROM {schema}.messages WHERE search IS NULL") == 1


async def _by_hand(url: str, schema: str, admin: asyncpg.Connection) -> None:
    """What a role of tenant a tries with SQL of its own."""
    row = await admin.fetchrow(f"SELECT id FROM {schema}.threads WHERE tenant = 'b'")
    connection = await asyncpg.connect(url)
    try:
        for table in ("threads", "messages", "appends", "documents"):
            seen = await connection.fetchval(f"SELECT count(*) FROM {schema}.{table}")
            everything = await admin.fetchval(f"SELECT count(*) FROM {schema}.{table}")
            assert seen < everything, f"rows of another tenant are seen in {table}"
        assert {r["tenant"] for r in await connection.fetch(f"SELECT tenant FROM {schema}.threads")} == {"a"}
        for nothing in (
            f"DELETE FROM {schema}.messages WHERE thread = {row['id']}",
            f"UPDATE {schema}.messages SET payload = '0' WHERE thread = {row['id']}",
            f"UPDATE {schema}.threads SET title = 'x' WHERE tenant = 'b'",
            f"DELETE FROM {schema}.documents WHERE thread = {row['id']}",
        ):
            assert (await connection.execute(nothing)).endswith(" 0")
        for refused in (
            f"INSERT INTO {schema}.messages (thread, seq, turn, format, payload, created_ms) "
            f"VALUES ({row['id']}, 9, 9, 'json', '0', 0)",
            f"UPDATE {schema}.messages SET thread = {row['id']}",
            f"UPDATE {schema}.threads SET tenant = 'b'",
            f"UPDATE {schema}.threads SET id = DEFAULT",
            f"INSERT INTO {schema}.threads (id, tenant, thread_id, created_ms, updated_ms) "
            f"OVERRIDING SYSTEM VALUE VALUES (77, 'a', 'x', 0, 0)",
            f"ALTER TABLE {schema}.threads DISABLE ROW LEVEL SECURITY",
            "SET ROLE postgres",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(refused)
        # It may say that a thread is to be purged; the purge does not believe it.
        await connection.execute(f"INSERT INTO {schema}.erased VALUES ({row['id']})")
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.erased") == 0
        await admin.fetchval(f"SELECT {schema}.purge(1000, NULL)")
        assert await admin.fetchval(f"SELECT count(*) FROM {schema}.messages WHERE thread = {row['id']}") == 1
    finally:
        await connection.close()


async def test_an_expired_thread_of_a_tenants_role_is_begun_anew(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    schema = schema_of(url)
    role = f"expiring_{schema}"
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    async with open_store(url):
        await admin.execute(row_level_security(role, "a", schema))
    key = ThreadKey("t", "a")
    now = 1_700_000_000.0
    async with open_store(postgres.url(user=role, options=f"?schema={schema}"), clock=lambda: now) as store:
        await store.append(key, TURN, retention=Retention(expire_after=timedelta(seconds=1)))
        now += 5
        assert (await store.append(key, TURN)).first_seq == 0
        assert len(await store.read(key)) == 1
    assert await admin.fetchval(f"SELECT count(*) FROM {schema}.messages") == 2
    while await admin.fetchval(f"SELECT {schema}.purge(1, NULL)"):
        pass
    assert await admin.fetchval(f"SELECT count(*) FROM {schema}.messages") == 1
    assert await admin.fetchval(f"SELECT count(*) FROM {schema}.erased") == 0


class TestDiagnosis:
    async def facts(self, url: str, **options: str) -> dict[str, Fact]:
        async with open_store(url) as store:
            return {fact.name: fact async for fact in examine(store, **options)}

    async def test_missing_rights_are_named(
        self, url: str, admin: asyncpg.Connection, postgres: PostgresServer
    ) -> None:
        schema = schema_of(url)
        async with open_store(url):
            role = await role_with_rights(admin, schema)
        as_role = postgres.url(user=role, options=f"?schema={schema}")
        assert "rights" not in await self.facts(as_role)
        await admin.execute(f"REVOKE DELETE, UPDATE ON {schema}.messages FROM {role}")
        rights = (await self.facts(as_role))["rights"]
        assert (rights.status, rights.value) == ("warning", "without UPDATE on messages; DELETE on messages")
        assert f"SCHEMA {schema}" in rights.advice

    async def test_a_role_of_one_tenant_is_well_in_that_tenant(
        self, url: str, admin: asyncpg.Connection, postgres: PostgresServer
    ) -> None:
        schema = schema_of(url)
        await admin.execute(f"CREATE ROLE well_{schema} LOGIN")
        async with open_store(url):
            await admin.execute(row_level_security(f"well_{schema}", "a", schema))
        as_role = postgres.url(user=f"well_{schema}", options=f"?schema={schema}")
        elsewhere, at_home = await self.facts(as_role), await self.facts(as_role, tenant="a")
        assert (elsewhere["writing"].status, at_home["writing"].status) == ("error", "ok")
        assert "--tenant" in elsewhere["row security"].advice
        assert "rights" not in at_home
        assert await admin.fetchval(f"SELECT count(*) FROM {schema}.threads") == 0

    async def test_a_database_that_takes_no_writes_is_told(
        self, url: str, admin: asyncpg.Connection, postgres: PostgresServer
    ) -> None:
        async with open_store(url):
            pass
        role = f"reader_{schema_of(url)}"
        await admin.execute(
            f"CREATE ROLE {role} SUPERUSER LOGIN; ALTER ROLE {role} SET default_transaction_read_only = on"
        )
        facts = await self.facts(postgres.url(user=role, options=f"?schema={schema_of(url)}"))
        assert facts["server"].status == "error"
        assert facts["writing"].status == "error"
