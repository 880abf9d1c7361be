"""What PostgreSQL refuses is a typed error, and what cancelled calls leave behind is nothing."""

from __future__ import annotations

import asyncio
import gc

import asyncpg
import pytest

import everthread.engines.postgres.connection as connections
from everthread import (
    ConfigurationError,
    EverthreadError,
    LimitExceededError,
    OutcomeUnknownError,
    SchemaError,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from tests.postgres_server import PostgresServer, schema_of

KEY = ThreadKey("t")
TURN = [new_message({"role": "user", "content": "Hello"})]


# The state that the server gives, the error of an append, and that of another write.
STATES: list[tuple[str, type[EverthreadError], type[EverthreadError]]] = [
    ("40001", StoreUnavailableError, StoreUnavailableError),  # serialization failure
    ("40P01", StoreUnavailableError, StoreUnavailableError),  # deadlock
    ("40003", OutcomeUnknownError, OutcomeUnknownError),  # it is not known whether the statement completed
    ("55P03", StoreUnavailableError, StoreUnavailableError),  # lock_timeout
    ("57014", StoreUnavailableError, StoreUnavailableError),  # statement_timeout, or cancelled by an administrator
    ("57P01", OutcomeUnknownError, OutcomeUnknownError),  # shutdown by an administrator
    ("57P02", OutcomeUnknownError, OutcomeUnknownError),  # crash
    ("57P03", StoreUnavailableError, StoreUnavailableError),  # it starts
    ("25006", StoreUnavailableError, StoreUnavailableError),  # a standby
    ("53100", StoreUnavailableError, StoreUnavailableError),  # disk full
    ("53200", StoreUnavailableError, StoreUnavailableError),  # out of memory
    ("53300", StoreUnavailableError, StoreUnavailableError),  # too many connections
    ("58030", StoreUnavailableError, StoreUnavailableError),  # I/O error
    ("54000", LimitExceededError, LimitExceededError),
    ("42501", ConfigurationError, ConfigurationError),
    ("42P01", SchemaError, SchemaError),
    ("42883", SchemaError, SchemaError),
]


@pytest.mark.parametrize(("state", "of_append", "of_write"), STATES)
async def test_each_state_of_the_server_is_a_typed_error(
    url: str,
    admin: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    of_append: type[EverthreadError],
    of_write: type[EverthreadError],
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.0)
    schema = schema_of(url)
    async with open_store(url) as store:
        await store.append(KEY, TURN)
        await admin.execute(
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN RAISE 'the secret word' USING ERRCODE = '{state}'; END$$; "
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.threads EXECUTE FUNCTION {schema}.refuse()"
        )
        appends = (store.append(KEY, TURN, append_id=str(number)) for number in range(3))
        for error in await asyncio.gather(*appends, return_exceptions=True):
            assert type(error) is of_append
            assert "secret" not in str(error)
        with pytest.raises(of_write) as raised:
            await store.update_thread(KEY, title="x")
        assert type(raised.value) is of_write
        await admin.execute(f"DROP TRIGGER refuse ON {schema}.threads")
        assert (await store.append(KEY, TURN, append_id="0")).first_seq == 1
        assert len(await store.read(KEY)) == 2


async def test_a_deadlock_of_others_is_waited_out(url: str, admin: asyncpg.Connection) -> None:
    schema = schema_of(url)
    async with open_store(url) as store:
        await store.append(KEY, TURN)
        # Fails once in each state, as a server does that chose this session.
        await admin.execute(
            f"CREATE SEQUENCE {schema}.times; "
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
            f"IF nextval('{schema}.times') = 1 THEN RAISE '' USING ERRCODE = '40P01'; END IF; "
            f"IF currval('{schema}.times') = 2 THEN RAISE '' USING ERRCODE = '40001'; END IF; RETURN NULL; END$$; "
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.threads EXECUTE FUNCTION {schema}.refuse()"
        )
        assert (await store.append(KEY, TURN)).first_seq == 1
        assert len(await store.read(KEY)) == 2


async def test_a_server_without_room_for_connections_is_unavailable(
    url: str, admin: asyncpg.Connection, postgres: PostgresServer
) -> None:
    role = f"lonely_{schema_of(url)}"
    await admin.execute(f"CREATE ROLE {role} SUPERUSER LOGIN; CREATE ROLE single_{role} LOGIN CONNECTION LIMIT 0")
    with pytest.raises(StoreUnavailableError, match="53300"):
        await open_store(postgres.url(user=f"single_{role}")).open()


@pytest.mark.parametrize("sslmode", ["prefer", "disable"])
async def test_cancelled_calls_leave_no_exception_unretrieved(url: str, sslmode: str) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context)))
    place = f"{url}&sslmode={sslmode}"
    async with open_store(place) as store:
        await store.append(KEY, TURN)
    for steps in range(0, 40, 4):
        async with open_store(place) as store:
            calls = [asyncio.create_task(store.read(KEY)) for _ in range(6)]
            calls += [asyncio.create_task(store.append(KEY, TURN)) for _ in range(2)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await store.read(KEY)
    gc.collect()
    assert reported == []


# Objects that are missing


@pytest.mark.parametrize(
    ("change", "is_made_anew"),
    [
        ("DROP FUNCTION {schema}.append_one", True),
        ("DROP FUNCTION {schema}.now CASCADE", True),
        ("DROP SCHEMA {schema} CASCADE", True),
        ("ALTER SCHEMA {schema} RENAME TO moved_{schema}", True),
        ("DROP TABLE {schema}.messages", False),
        ("DROP TABLE {schema}.threads CASCADE", False),
        ("DROP TABLE {schema}.migrations", False),
        ("DELETE FROM {schema}.migrations", False),
        ("ALTER TABLE {schema}.threads RENAME TO other", False),
    ],
)
async def test_a_missing_object_of_the_schema_says_what_to_run(
    url: str, admin: asyncpg.Connection, change: str, *, is_made_anew: bool
) -> None:
    async with open_store(url) as store:
        await store.append(KEY, TURN)
        await admin.execute(change.format(schema=schema_of(url)))
        calls = (store.append(KEY, TURN), store.read(KEY), store.get_thread(KEY))
        errors = [done for done in await asyncio.gather(*calls, return_exceptions=True) if isinstance(done, Exception)]
        assert all(type(error) is SchemaError and "ddl" in str(error) for error in errors), errors
    with pytest.raises(SchemaError, match="ddl"):
        await open_store(url, migrate=False).open()
    if is_made_anew:
        async with open_store(url) as store:
            await store.append(KEY, TURN)
            assert await store.read(KEY)
    else:
        with pytest.raises(SchemaError, match="ddl"):
            await open_store(url).open()


async def test_a_missing_column_is_a_schema_error(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url) as store:
        await store.append(KEY, TURN)
        await admin.execute(f"ALTER TABLE {schema_of(url)}.messages RENAME COLUMN payload TO body")
        for call in (store.append(KEY, TURN), store.read(KEY)):
            with pytest.raises(SchemaError, match="ddl"):
                await call
