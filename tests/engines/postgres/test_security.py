"""What other roles of a PostgreSQL server cannot do to a store, and databases that still use row-level security."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from everthread import ConfigurationError, Retention, Rewrite, Store, ThreadKey, new_message, open_store
from everthread.engines.postgres import PostgresStore, SearchingPostgresStore
from everthread.engines.postgres.schema import functions, queries
from everthread.model import HealthCheck
from everthread.operations.doctor import examine
from tests.postgres_server import PostgresServer, schema_of

TURN = [new_message({"role": "user", "content": "Hello"})]
TOOLS = [
    new_message({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
    new_message({"role": "tool", "tool_call_id": "c", "content": "done"}),
]
DOCS = Path(__file__).parents[3] / "docs"
BRIEFLY = Retention(expire_after=timedelta(milliseconds=1))


async def facts_of(store: Store, **options: str) -> dict[str, HealthCheck]:
    return {fact.name: fact async for fact in examine(store, **options)}


# Planted functions and operators

_TYPES = ("int4", "int8", "numeric", "text", "name", "bytea", "float8", "oid", "_int8", "_text")


@pytest.fixture
async def planted(postgres: PostgresServer, admin: asyncpg.Connection) -> AsyncIterator[str]:
    """A database in which everyone's path holds a function for each call, and an operator for each pair of types."""
    await admin.execute("CREATE DATABASE planted")
    connection = await asyncpg.connect(postgres.url(database="planted"))
    text = " ".join([*queries("s", "").values(), functions("s", "")])
    called = sorted(set(re.findall(r"(?:pg_catalog\.|(?<![\w.@]))([a-z_0-9]+)\(", text)))
    exists = await connection.fetch("SELECT DISTINCT proname FROM pg_proc WHERE proname = ANY ($1)", called)
    names = [row["proname"] for row in exists]
    assert len(names) > 20
    types = [*(f"{one}" for one in _TYPES), *(f"{one}, {other}" for one in _TYPES for other in _TYPES)]
    statements = ["CREATE FUNCTION public.planted() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''planted''; END'"]
    statements += [
        f"CREATE FUNCTION public.{name}({args}) RETURNS text LANGUAGE sql AS 'SELECT public.planted()::text'"
        for name in names
        for args in types
    ]
    statements += [
        f"CREATE FUNCTION public.bad({one}, {other}) RETURNS bool LANGUAGE sql AS 'SELECT public.planted() = 1'; "
        + "; ".join(
            f"CREATE OPERATOR public.{operator} (FUNCTION = public.bad, LEFTARG = {one}, RIGHTARG = {other})"
            for operator in ("=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "%", "||", "&&", "@@")
        )
        for one in _TYPES
        for other in _TYPES
    ]
    await connection.execute("; ".join(statements))
    with pytest.raises(asyncpg.RaiseError, match="planted"):
        await connection.fetchval("SELECT array_position(ARRAY[1::int8], 1::int4)")
    await connection.close()
    yield postgres.url(database="planted")
    await admin.execute("DROP DATABASE planted WITH (FORCE)")


async def test_planted_functions_and_operators_are_never_called(planted: str) -> None:
    key, other = ThreadKey("t", "a"), ThreadKey("u", "a")
    # Behind a pooler the path is not everthread's to set.
    async with open_store(f"{planted}?pgbouncer=true") as store:
        await store.append(ThreadKey("unindexed"), TURN)
        await store.append(key, TURN, retention=BRIEFLY)
    async with open_store(f"{planted}?pgbouncer=true&search=true&max_messages=6") as store:
        assert isinstance(store, SearchingPostgresStore)
        await store.append(key, TURN)
        await asyncio.gather(*(store.append(key, TOOLS) for _ in range(3)), store.append(other, TURN))
        assert len(await store.read(key)) == 6
        assert len(await store.read_last(key, 2)) == 2
        assert len(await store.search("a", "hello")) == 1
        assert await store.list_tenants() == ("a",)
        page = await store.list_threads("a", limit=1)
        assert len(await store.list_threads("a", limit=1, cursor=page.cursor)) == 1
        change = Rewrite(5, TOOLS[0].payload, TOOLS[1].payload)
        assert await store.rewrite(key, [change]) == 1
        await store.update_thread(key, title="x")
        await store.put_document(key, "d", b"1")
        assert await store.get_document(key, "d")
        await store.list_documents(key)
        await store.delete_document(key, "d")
        await store.truncate(key, start=4, stop=6)
        await store.append(other, TURN, retention=BRIEFLY)
        assert await store.index() >= 1
        await store.reconcile(repair=True)
        await store.purge()
        assert (await facts_of(store))["writing"].status != "error"
        await store.delete_thread(key)
        await store.delete_tenant("a")


async def test_all_functions_but_the_inlined_one_pin_the_path(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url):
        rows = await admin.fetch(
            "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = $1::text::regnamespace", schema_of(url)
        )
    bare = [row["proname"] for row in rows if "search_path=pg_catalog, pg_temp" not in (row["proconfig"] or ())]
    assert bare == ["now"]


async def test_functions_of_an_earlier_version_are_pinned_too(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    script = (Path(__file__).parent / "version_3.sql").read_text("utf-8")
    await admin.execute(f"CREATE SCHEMA {schema};" + re.sub(r"(?<![@\w])@(?=[a-z])", f"{schema}.", script))
    async with open_store(url):
        rows = await admin.fetch(
            "SELECT proname FROM pg_proc WHERE proconfig IS NULL AND pronamespace = $1::text::regnamespace", schema
        )
    assert [row["proname"] for row in rows] == ["now"]


async def test_search_finds_its_language_in_public(url: str, admin: asyncpg.Connection) -> None:
    name = f"own_{schema_of(url)}"
    await admin.execute(f"CREATE TEXT SEARCH CONFIGURATION public.{name} (COPY = pg_catalog.english)")
    async with open_store(f"{url}&search=true&search_language={name}") as store:
        assert isinstance(store, SearchingPostgresStore)
        await store.append(ThreadKey("t"), [new_message({"role": "user", "content": "two flights"})])
        assert len(await store.search("", "flight")) == 1
    with pytest.raises(ConfigurationError, match="text search configuration"):
        async with open_store(f"{url}&search=true&search_language=none_such") as store:
            await store.append(ThreadKey("t"), TURN)


async def test_the_doctor_names_who_may_create_objects(url: str, admin: asyncpg.Connection) -> None:
    role = f"maker_in_{schema_of(url)}"
    async with open_store(url) as store:
        assert "schema rights" not in await facts_of(store)
        await admin.execute(f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA {schema_of(url)} TO {role}")
        await admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        fact = (await facts_of(store))["schema rights"]
        await admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert fact.status == "warning"
    assert f"{role} in {schema_of(url)}" in fact.value
    assert "anyone in public" in fact.value


# The purge


async def test_the_purge_keeps_rows_of_a_thread_begun_meanwhile(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    async with open_store(url) as store:
        # Closing waits for the purge that the first append of a store starts.
        await store.append(ThreadKey("old"), TURN)
    async with open_store(url) as store:
        old = await admin.fetchval(f"SELECT id FROM {schema}.threads")
        # Somebody noted the old thread's number, and the one that the next thread gets, as purged.
        await admin.execute(f"DELETE FROM {schema}.threads; INSERT INTO {schema}.erased VALUES ({old}), ({old + 1})")
        locked = admin.transaction()
        await locked.start()
        await admin.execute(f"SELECT FROM {schema}.messages WHERE thread = {old} FOR UPDATE")
        assert isinstance(store, PostgresStore)
        purge = asyncio.create_task(store.purge())
        await _waits_for_a_lock(admin)
        await store.append(ThreadKey("new"), TURN)
        await locked.rollback()
        await purge
        assert await admin.fetchval(f"SELECT id FROM {schema}.threads") == old + 1
        assert len(await store.read(ThreadKey("new"))) == 1


async def _waits_for_a_lock(connection: asyncpg.Connection) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    while not await connection.fetchval(waiting):
        await asyncio.sleep(0.01)


async def test_a_number_noted_early_stops_no_purge(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    now = 1_700_000_000.0
    async with open_store(url, clock=lambda: now) as store:
        assert isinstance(store, PostgresStore)
        for name in ("again", "gone"):
            await store.append(ThreadKey(name), TURN, retention=BRIEFLY)
        await admin.execute(f"INSERT INTO {schema}.erased SELECT id FROM {schema}.threads")
        now += 5
        await store.append(ThreadKey("again"), TURN)
        while await store.purge():
            pass
        assert len(await store.read(ThreadKey("again"))) == 1
    assert await admin.fetchval(f"SELECT count(*) FROM {schema}.messages") == 1


# A database for each tenant


async def test_the_documented_database_of_a_tenant_is_closed_to_others(
    postgres: PostgresServer, admin: asyncpg.Connection
) -> None:
    (script,) = re.findall(r"```sql\n(CREATE ROLE acme.*?)```", (DOCS / "how-to" / "tenants.md").read_text(), re.DOTALL)
    for tenant in ("acme", "other"):
        for statement in script.replace("acme", tenant).strip().split("\n"):
            await admin.execute(statement)
    try:
        async with open_store(postgres.url(user="acme", database="acme")) as store:
            await store.append(ThreadKey("t"), TURN)
            # Whoever owns another database may lock all there is in it, and stops nobody here.
            hostile = await asyncpg.connect(postgres.url(user="other", database="other"))
            await hostile.execute("SELECT pg_advisory_lock(number) FROM generate_series(1, 100) AS number")
            await store.append(ThreadKey("t"), TURN)
            await hostile.close()
        with pytest.raises(ConfigurationError, match="42501"):
            await open_store(postgres.url(user="other", database="acme")).open()
    finally:
        await admin.execute("DROP DATABASE acme WITH (FORCE)")
        await admin.execute("DROP DATABASE other WITH (FORCE)")


# Databases that used row-level security


async def bind(admin: asyncpg.Connection, role: str, tenant: str, schema: str) -> None:
    """What an earlier release ran for each role of a tenant."""
    values = {":role": role, ":tenant": f"'{tenant}'", ":schema": schema}
    script = (Path(__file__).parent / "row_level_security.sql").read_text("utf-8")
    script = re.sub(r"(?<![@\w])@(?=[a-z])", f"{schema}.", script)
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await admin.execute(f"CREATE ROLE {role} LOGIN")
    await admin.execute(re.sub(":role|:tenant|:schema", lambda found: values[found[0]], script))


async def test_a_role_that_row_level_security_binds_keeps_working(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    role, secret = f"bound_{schema_of(url)}", ThreadKey("secret", "b")
    now = 1_700_000_000.0
    async with open_store(url) as owner:
        await owner.append(secret, TURN)
        await bind(admin, role, "a", schema_of(url))
        async with open_store(postgres.url(user=role, options=f"?schema={schema_of(url)}"), clock=lambda: now) as store:
            key = ThreadKey("mine", "a")
            await store.append(key, TURN, retention=BRIEFLY)
            now += 5
            assert (await store.append(key, TOOLS)).first_seq == 0
            assert len(await store.read(key)) == len(TOOLS)
            assert await store.get_thread(secret) is None
            assert await store.delete_thread(key)
            facts = await facts_of(store, tenant="a")
        assert facts["writing"].status != "error"
        assert (facts["row security"].value, facts["row security"].status) == ("binds this role", "warning")
        fact = (await facts_of(owner))["row security"]
        assert (fact.value, fact.status) == ("binds 1 roles", "warning")
        assert len(await owner.read(secret)) == 1


async def test_the_documented_script_ends_row_level_security(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    schema = schema_of(url)
    role = f"ended_{schema}"
    text = (DOCS / "reference" / "storage-format.md").read_text()
    (script,) = re.findall(r"```sql\n(DO \$\$.*?pg_policies.*?)```", text, re.DOTALL)
    async with open_store(url) as owner:
        await owner.append(ThreadKey("secret", "b"), TURN)
        await bind(admin, role, "a", schema)
        await admin.execute(script.replace("everthread", schema))
        assert "row security" not in await facts_of(owner)
    bound = await asyncpg.connect(postgres.url(user=role))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await bound.fetch(f"SELECT * FROM {schema}.threads")
    await bound.close()
