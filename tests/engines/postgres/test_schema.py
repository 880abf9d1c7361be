"""Migrations and rights on PostgreSQL."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from pathlib import Path
from zlib import crc32

import asyncpg
import pytest

from everthread import (
    ConfigurationError,
    Retention,
    SchemaError,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.engines.postgres import PostgresStore, ddl
from everthread.engines.postgres.schema import migrations, newest_version
from everthread.model import HealthCheck
from everthread.operations.doctor import examine
from tests.postgres_server import PostgresServer, schema_of

TURN = [new_message({"role": "user", "content": "Hello"})]
TOOLS = [
    new_message({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
    new_message({"role": "tool", "tool_call_id": "c", "content": "done"}),
]


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
    script = (Path(__file__).parent / "version_3.sql").read_text("utf-8")
    await admin.execute(f"CREATE SCHEMA {schema};" + re.sub(r"(?<![@\w])@(?=[a-z])", f"{schema}.", script))


def _open_and_append(url: str, number: int) -> int:
    async def run() -> int:
        async with open_store(url) as store:
            return (await store.append(ThreadKey("t"), TURN, append_id=str(number))).first_seq

    return asyncio.run(run())


async def test_a_migration_reports_the_session_that_locks_a_table(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    await make_version_3(admin, schema)
    pid = await admin.fetchval("SELECT pg_backend_pid()")
    async with admin.transaction():
        await admin.fetch(f"SELECT * FROM {schema}.threads")
        blocked = rf"process {pid} .*idle in transaction.*nothing was changed.*pg_terminate_backend\({pid}\)"
        with pytest.raises(StoreUnavailableError, match=blocked):
            await open_store(url, timeout=1).open()
        # Readers are not held up by a migration that gave up.
        await asyncio.wait_for(admin.fetch(f"SELECT * FROM {schema}.threads"), 60)
    assert await admin.fetchval(f"SELECT max(version) FROM {schema}.migrations") == 3
    async with open_store(url) as store:
        await store.append(ThreadKey("t"), TURN)


async def test_a_migration_reports_another_migration(url: str, admin: asyncpg.Connection) -> None:
    pid = await admin.fetchval("SELECT pg_backend_pid()")
    async with admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock($1)", crc32(f"everthread {schema_of(url)}.".encode()))
        with pytest.raises(StoreUnavailableError, match=f"process {pid} "):
            await open_store(url, timeout=1).open()
    async with open_store(url):
        pass


@pytest.mark.slow
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
    assert [row["version"] for row in versions] == [step.version for step in migrations("", "")]


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


async def test_a_role_without_ddl_rights_reports_what_to_run(
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
    again = ddl(schema_of(url), since=newest_version())
    assert "FUNCTION" in again
    assert "ALTER TABLE" not in again


async def test_a_database_of_an_earlier_version_is_brought_up_to_date(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    await make_version_3(admin, schema)
    await admin.fetchval(
        f"SELECT {schema}.append_one(NULL, '', 't', 'first', 7, NULL, NULL, NULL, NULL, ARRAY['\"first\"'::bytea], "
        "'json', NULL)"
    )
    with pytest.raises(SchemaError, match=f"of version 3; version {newest_version()} is needed"):
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
    versions = await admin.fetch(f"SELECT version FROM {schema}.migrations ORDER BY 1")
    assert [row["version"] for row in versions] == [
        1,
        2,
        3,
        *(step.version for step in migrations("", "") if step.version > 3),
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


class TestDiagnosis:
    async def facts(self, url: str, **options: str) -> dict[str, HealthCheck]:
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

    @pytest.mark.slow
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
