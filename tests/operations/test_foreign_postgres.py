"""Threads of other programs in PostgreSQL are inspected and repaired in place, under the locks of these programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from everthread import ConfigurationError, ConflictError
from everthread.messages.rules.links import NO_RESULT
from everthread.operations._planning import plan
from everthread.operations.foreign import foreign_store, repair_foreign
from everthread.operations.foreign.recognizing import Recognized, findings_at, only_one
from tests.cli.driving import PROGRAM, piped
from tests.operations.foreign_writer import AGAIN, ANSWER, CALLS, OUTPUTS, QUESTION, TURN
from tests.operations.test_foreign import all_of, faults, inspected, run_repair, run_undo
from tests.postgres_server import PostgresServer

# As SQLAlchemySession of openai-agents 0.24 creates them.
SESSIONS = """
CREATE TABLE {schema}.agent_sessions (
    session_id VARCHAR PRIMARY KEY,
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT CURRENT_TIMESTAMP NOT NULL
);
CREATE TABLE {schema}.agent_messages (
    id SERIAL PRIMARY KEY,
    session_id VARCHAR NOT NULL REFERENCES {schema}.agent_sessions (session_id) ON DELETE CASCADE,
    message_data TEXT NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT CURRENT_TIMESTAMP NOT NULL
);
"""
# As community-agent-framework-postgres 0.1.2 creates it.
HISTORY = """
CREATE TABLE {schema}.af_history_messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    application_id text NOT NULL,
    tenant_id text NOT NULL DEFAULT '',
    agent_id text NOT NULL DEFAULT '',
    source_id text NOT NULL,
    session_id text NOT NULL,
    message jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
)
"""
NAMES = ["plain", "A|b: é/💾", 'it\'s "quoted" %7C; DROP TABLE']


class Tables:
    """The tables of a test, in a schema of its own."""

    def __init__(self, server: PostgresServer, connection: Any, schema: str) -> None:
        self.connection = connection
        self.schema = schema
        self.url = server.url(options=f"?schema={schema}")

    async def create(self, statements: str) -> None:
        await self.connection.execute(statements.format(schema=self.schema))

    async def add_turn(self, session: str, *items: object) -> None:
        """Insert items as SQLAlchemySession does: in one transaction, so with one time."""
        async with self.connection.transaction():
            await self.connection.execute(
                f"INSERT INTO {self.schema}.agent_sessions (session_id) VALUES ($1) ON CONFLICT DO NOTHING", session
            )
            for item in items:
                text = item if isinstance(item, str) else json.dumps(item)
                await self.connection.execute(
                    f"INSERT INTO {self.schema}.agent_messages (session_id, message_data) VALUES ($1, $2)",
                    session,
                    text,
                )

    async def items(self) -> list[tuple[Any, ...]]:
        rows = await self.connection.fetch(
            f"SELECT session_id, message_data, created_at, id FROM {self.schema}.agent_messages ORDER BY created_at, id"
        )
        return [tuple(row) for row in rows]

    async def add_history(self, session: str, *messages: object) -> None:
        for message in messages:
            await self.connection.execute(
                f"INSERT INTO {self.schema}.af_history_messages (application_id, source_id, session_id, message) "
                "VALUES ('app|1', 'postgres_history', $1, $2)",
                session,
                json.dumps(message),
            )

    async def history(self) -> list[tuple[Any, ...]]:
        rows = await self.connection.fetch(f"SELECT * FROM {self.schema}.af_history_messages ORDER BY id")
        return [tuple(row) for row in rows]


@pytest.fixture
async def tables(postgres: PostgresServer, fresh_prefix: str) -> AsyncIterator[Tables]:
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE SCHEMA {fresh_prefix}")
    yield Tables(postgres, connection, fresh_prefix)
    await connection.execute(f"DROP SCHEMA {fresh_prefix} CASCADE")
    await connection.close()


def texts(rows: list[tuple[Any, ...]], session: str) -> list[Any]:
    return [json.loads(row[1]) for row in rows if row[0] == session]


@pytest.mark.parametrize("session", NAMES)
async def test_a_call_of_a_killed_run_gets_a_result(tables: Tables, tmp_path: Path, session: str) -> None:
    await tables.create(SESSIONS)
    await tables.add_turn("healthy", *TURN)
    await tables.add_turn(session, QUESTION, *CALLS)
    await tables.add_turn(session, AGAIN)
    before = await tables.items()
    assert [found[:2] for found in faults(await inspected("openai-agents", tables.url))] == [
        (session, "unanswered-call")
    ] * 2
    assert await tables.items() == before
    (outcome,) = await run_repair("openai-agents", tables.url, tmp_path / "backup")
    assert outcome.is_well
    after = await tables.items()
    assert [row for row in after if row in before] == before
    found = texts(after, session)
    assert [item.get("type") for item in found] == [None, *["function_call"] * 2, *["function_call_output"] * 2, None]
    assert all(NO_RESULT in item["output"] for item in found[3:5])
    assert faults(await inspected("openai-agents", tables.url)) == []
    await tables.add_turn(session, ANSWER)
    added = (await tables.items())[-1]
    for _ in range(2):
        assert await run_undo("openai-agents", tables.url, tmp_path / "backup") == ["undone"]
        assert await tables.items() == [*before, added]


async def test_sessions_that_lost_rows_are_repaired_and_restored(tables: Tables, tmp_path: Path) -> None:
    await tables.create(SESSIONS)
    await tables.add_turn("s", OUTPUTS[0], QUESTION, CALLS[1], '{"half', ANSWER)
    before = await tables.items()
    kinds = [found[1] for found in faults(await inspected("openai-agents", tables.url))]
    assert kinds == ["orphaned-result", "unanswered-call", "undecodable"]
    (outcome,) = await run_repair("openai-agents", tables.url, tmp_path / "backup")
    assert outcome.is_well
    assert faults(await inspected("openai-agents", tables.url)) == []
    # The result has the number of the row that could not be decoded.
    after = await tables.items()
    assert [row[3] for row in after] == [row[3] for row in before[1:]]
    assert set(after) - set(before) == {row for row in after if NO_RESULT in row[1]}
    assert await run_undo("openai-agents", tables.url, tmp_path / "backup") == ["undone"]
    assert await tables.items() == before


async def test_a_session_changed_since_it_was_read_stays(tables: Tables) -> None:
    await tables.create(SESSIONS)
    await tables.add_turn("s", QUESTION, CALLS[0])
    async with foreign_store("openai-agents", tables.url, is_stopped=True) as store:
        target = await store.target("s")
        assert target is not None
        _, changes = plan(target)
        await tables.add_turn("s", OUTPUTS[0])
        before = await tables.items()
        with pytest.raises(ConflictError, match="Another program changed"):
            await target.apply(changes)
    assert await tables.items() == before


async def test_a_repair_waits_for_a_writer_of_the_session(tables: Tables, postgres: PostgresServer) -> None:
    await tables.create(SESSIONS)
    await tables.add_turn("s", QUESTION, CALLS[0])
    writer = await asyncpg.connect(postgres.url())
    async with foreign_store("openai-agents", tables.url, is_stopped=True) as store:
        target = await store.target("s")
        assert target is not None
        _, changes = plan(target)
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(f"SELECT 1 FROM {tables.schema}.agent_sessions FOR UPDATE")
        repair = asyncio.create_task(target.apply(changes))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"
        async with asyncio.timeout(60):
            while not await tables.connection.fetchval(waiting, f'%"{tables.schema}".agent_sessions%FOR UPDATE'):
                await asyncio.sleep(0.01)
        await writer.execute(
            f"INSERT INTO {tables.schema}.agent_messages (session_id, message_data) VALUES ('s', $1)",
            json.dumps(OUTPUTS[0]),
        )
        await transaction.commit()
        with pytest.raises(ConflictError, match="Another program changed"):
            await repair
    await writer.close()
    assert texts(await tables.items(), "s") == [QUESTION, CALLS[0], OUTPUTS[0]]


async def test_calls_of_a_session_in_use_wait_an_hour(tables: Tables) -> None:
    await tables.create(SESSIONS)
    await tables.add_turn("s", QUESTION, CALLS[0])
    for age, count in (("0", 0), ("2 hours", 1)):
        await tables.connection.execute(
            f"UPDATE {tables.schema}.agent_sessions SET updated_at = CURRENT_TIMESTAMP - interval '{age}'"
        )
        async with foreign_store("openai-agents", tables.url) as store:
            assert len(faults(await all_of(repair_foreign(store)))) == count


def conversation(call_id: str = "call_1") -> list[dict[str, Any]]:
    def message(role: str, **content: object) -> dict[str, Any]:
        return {"type": "message", "role": role, "contents": [content], "additional_properties": {"n": 1.0, "e": 1e20}}

    return [
        message("user", type="text", text="weather? — é💾"),
        message("assistant", type="function_call", call_id=call_id, name="f", arguments="{}"),
        message("tool", type="function_result", call_id=call_id, result="22 °C"),
        message("assistant", type="text", text="22 °C"),
    ]


@pytest.mark.parametrize("session", NAMES)
async def test_histories_of_agent_framework(tables: Tables, tmp_path: Path, session: str) -> None:
    await tables.create(HISTORY)
    await tables.add_history("healthy", *conversation())
    await tables.add_history(session, *conversation()[2:], *conversation("call_2")[:2])
    before = await tables.history()
    kind = "agent-framework-postgres"
    assert [found[1] for found in faults(await inspected(kind, tables.url))] == ["orphaned-result", "unanswered-call"]
    (outcome,) = await run_repair(kind, tables.url, tmp_path / "backup")
    assert outcome.is_well, outcome
    assert faults(await inspected(kind, tables.url)) == []
    after = await tables.history()
    assert [row for row in after if row in before] == [*before[:4], *before[5:]]
    await tables.add_history(session, conversation()[3])
    added = (await tables.history())[-1]
    for _ in range(2):
        assert await run_undo(kind, tables.url, tmp_path / "backup") == ["undone"]
        assert await tables.history() == [*before, added]


async def test_tables_tell_the_program(tables: Tables) -> None:
    assert only_one(await findings_at(tables.url)) is None
    await tables.create(SESSIONS)
    assert only_one(await findings_at(tables.url)) == Recognized("openai-agents")
    await tables.create(HISTORY)
    with pytest.raises(ConfigurationError, match="--as openai-agents, --as agent-framework-postgres --prefix 'af_'"):
        only_one(await findings_at(tables.url))
    await tables.create(HISTORY.replace("af_", "b_"))
    with pytest.raises(ConfigurationError, match="several tables of agent-framework-postgres"):
        await inspected("agent-framework-postgres", tables.url)
    assert await inspected("agent-framework-postgres", tables.url, prefix="b_") == []


async def test_the_command_finds_the_program_by_its_tables(tables: Tables, tmp_path: Path) -> None:
    await tables.create(SESSIONS)
    await tables.add_turn("s", QUESTION, CALLS[0], AGAIN)
    url = tables.url.replace("postgresql:", "postgresql+asyncpg:")
    done = piped("", "--stopped", home=tmp_path, program=(PROGRAM, "doctor", url))
    assert (done.returncode, done.stdout.split("\t")[:4]) == (1, ["found", "s", "2", "unanswered-call"]), done


async def test_the_doctor_creates_nothing_in_an_empty_database(tables: Tables, tmp_path: Path) -> None:
    done = piped("", home=tmp_path, program=(PROGRAM, "doctor", tables.url))
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done
    assert "nothing is stored here" in done.stdout
    count = "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1"
    assert await tables.connection.fetchval(count, tables.schema) == 0
