"""Sessions that the released libraries wrote, broken as users break them, are repaired and read by these libraries."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis as redis_py

from everthread.messages.rules.links import NO_RESULT
from everthread.operations import inspect_messages
from everthread.operations.foreign.recognizing import Recognized, findings_at, only_one
from tests.operations.foreign_writer import AGAIN, CALLS, OUTPUTS, QUESTION, REASONING, TURN
from tests.operations.test_foreign import faults, inspected, run_repair, run_undo
from tests.postgres_server import PostgresServer
from tests.servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("openai-agents[sqlalchemy,redis]", "aiosqlite", "asyncpg", "psycopg[binary,pool]"),
    *("agent-framework-redis", "community-agent-framework-postgres"),
    *("langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres"),
)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment with these libraries, which cannot live beside the newest of Agent Framework."""
    uv = str(Path(sys.executable).with_name("uv"))
    folder = tmp_path_factory.mktemp("foreign") / "venv"
    options = ["--quiet", "--python", str(folder / "bin" / "python"), "-c", str(ROOT / "constraints-foreign.txt")]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True, timeout=600)
    subprocess.run([uv, "pip", "install", "--prerelease=allow", *options, *PACKAGES], check=True, timeout=600)
    return str(folder / "bin" / "python")


def run(python: str, job: str, place: object, *, is_killed: bool = False) -> list[Any]:
    """Run a job of ``foreign_writer``, and return the objects that it printed."""
    command = [python, str(Path(__file__).with_name("foreign_writer.py")), job, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False)
    assert done.returncode == (-signal.SIGKILL if is_killed else 0), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def database(postgres: PostgresServer, fresh_prefix: str) -> Iterator[str]:
    """The URL of an empty database."""
    with closing(asyncio.Runner()) as runner:

        async def execute(statement: str) -> None:
            connection = await asyncpg.connect(postgres.url())
            await connection.execute(statement)
            await connection.close()

        runner.run(execute(f"CREATE DATABASE {fresh_prefix}"))
        yield postgres.url(database=fresh_prefix)
        runner.run(execute(f"DROP DATABASE {fresh_prefix} WITH (FORCE)"))


@pytest.fixture(params=["openai-agents", "sqlalchemy", "postgres", "openai-agents-redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server) -> tuple[str, str, str]:
    """The kind of a store, where the doctor finds it, and what the library calls it."""
    path = tmp_path / "sessions.db"
    if request.param == "postgres":
        url = request.getfixturevalue("database")
        return "openai-agents", url, url
    if request.param != "openai-agents-redis":
        return "openai-agents", str(path), f"sqlalchemy:{path}" if request.param == "sqlalchemy" else str(path)
    url = f"redis://127.0.0.1:{plain_redis_server.port}/7"
    with redis_py.Redis(port=plain_redis_server.port, db=7) as client:
        client.flushdb()
    return "openai-agents-redis", url, url


async def test_sessions_of_killed_runs(python: str, place: tuple[str, str, str], tmp_path: Path) -> None:
    kind, source, library = place
    run(python, "healthy", library)
    run(python, "killed_before_the_result", library, is_killed=True)
    run(python, "asked_again", library)
    before = run(python, "items", library)
    assert before == [QUESTION, REASONING, *CALLS, AGAIN]
    assert [found[1] for found in faults(await inspected(kind, source))] == ["unanswered-call"] * 2
    outcomes = await run_repair(kind, source, tmp_path / "backup")
    assert [outcome.is_well for outcome in outcomes] == [True]
    after = run(python, "items", library)
    assert inspect_messages(after, format="openai-responses")[:1] == [] or NO_RESULT in json.dumps(after)
    assert faults(await inspected(kind, source)) == []
    calls, results = ["function_call"] * 2, ["function_call_output"] * 2
    if source == library and kind == "openai-agents" and "://" not in source:
        # There is no room in the table, so the calls go, and the reasoning with them.
        assert after == [QUESTION, AGAIN]
    elif kind == "openai-agents":
        # Rows by time: there is room after the turn. SQLite has it if the later turn came in another second.
        in_order = [None, "reasoning", *calls, *results, None]
        assert [item.get("type") for item in after] == in_order or after == [QUESTION, AGAIN]
    else:
        assert [item.get("type") for item in after] == [
            *(None, "reasoning", calls[0], results[0], calls[1], results[1], None)
        ]
    run(python, "asked_again", library)
    assert await run_undo(kind, source, tmp_path / "backup") == ["undone"]
    assert run(python, "items", library) == [*before, AGAIN]


async def test_sessions_of_a_failed_parallel_call(python: str, place: tuple[str, str, str], tmp_path: Path) -> None:
    kind, source, library = place
    run(python, "failed_parallel_call", library, is_killed=True)
    await run_repair(kind, source, tmp_path / "backup")
    after = run(python, "items", library)
    assert [item for item in after if item in TURN] == [
        item for item in (QUESTION, REASONING, *CALLS, OUTPUTS[1]) if item in after
    ]
    assert {QUESTION["content"]} == {item["content"] for item in after if "content" in item}
    assert OUTPUTS[1] in after
    assert faults(await inspected(kind, source)) == []


async def test_sessions_with_a_replayed_transcript(python: str, place: tuple[str, str, str], tmp_path: Path) -> None:
    kind, source, library = place
    run(python, "replayed", library)
    await run_repair(kind, source, tmp_path / "backup")
    assert run(python, "items", library) == [*TURN, AGAIN]
    assert faults(await inspected(kind, source)) == []


@pytest.mark.parametrize("job", ["trimmed_by_count", "two_writers"])
async def test_lists_of_agent_framework(python: str, job: str, plain_redis_server: Server, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/6"
    with redis_py.Redis(port=plain_redis_server.port, db=6) as client:
        client.flushdb()
        run(python, job, url)
        (key,) = client.keys("*")
        before = client.lrange(key, 0, -1)
        kinds = {found[1] for found in faults(await inspected("agent-framework-redis", url))}
        assert kinds == {"trimmed_by_count": {"orphaned-result"}, "two_writers": {"separated-result"}}[job]
        (outcome,) = await run_repair("agent-framework-redis", url, tmp_path / "backup")
        assert outcome.is_well
        roles = {"trimmed_by_count": ["assistant"], "two_writers": ["user", "assistant", "tool", "user", "assistant"]}
        assert [message["role"] for message in run(python, "history", url)] == roles[job]
        assert set(client.lrange(key, 0, -1)) <= set(before)
        await run_undo("agent-framework-redis", url, tmp_path / "backup")
        assert client.lrange(key, 0, -1) == before


async def test_checkpoints_of_langgraph(python: str, tmp_path: Path) -> None:
    run(python, "graph", tmp_path / "graph.db", is_killed=True)
    (outcome,) = await inspected("langgraph", tmp_path / "graph.db")
    assert [(problem.kind, problem.seq) for problem in outcome.problems] == [("unanswered-call", 1)]
    with closing(sqlite3.connect(tmp_path / "graph.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_histories_in_postgres(python: str, database: str, tmp_path: Path) -> None:
    kind = "agent-framework-postgres"
    run(python, "postgres_killed", database, is_killed=True)
    assert only_one(await findings_at(database)) == Recognized(kind, "af_")
    before = run(python, "postgres_items", database)
    assert before[1:] == [["user", "assistant", "user"], ["user", "assistant"]]
    assert [found[1] for found in faults(await inspected(kind, database))] == ["unanswered-call"] * 2
    outcomes = await run_repair(kind, database, tmp_path / "backup")
    assert [outcome.is_well for outcome in outcomes] == [True] * 2
    # Between rows there is no room, so the call goes.
    assert run(python, "postgres_items", database)[1:] == [["user", "user"], ["user", "assistant", "tool"]]
    assert faults(await inspected(kind, database)) == []
    assert await run_undo(kind, database, tmp_path / "backup") == ["undone"] * 2
    assert run(python, "postgres_items", database) == before


async def test_checkpoints_of_langgraph_in_postgres(python: str, database: str) -> None:
    run(python, "graph_in_postgres", database, is_killed=True)
    assert only_one(await findings_at(database)) == Recognized("langgraph")
    (outcome,) = await inspected("langgraph", database)
    assert [(problem.kind, problem.seq, problem.repair) for problem in outcome.problems] == [("unanswered-call", 1, "")]
