"""Threads of other programs are inspected and repaired in place; messages without a fault stay byte for byte."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from agent_framework import Content, FileHistoryProvider, Message

from everthread import ConfigurationError, StoreUnavailableError, ThreadKey, new_message, open_store
from everthread.messages.rules.links import NO_RESULT
from everthread.operations.foreign import foreign_store, recognized_kind, repair_foreign, undo_foreign
from everthread.operations.foreign.recognizing import Recognized, findings_at, only_one
from everthread.operations.repair import Outcome
from tests.cli.driving import PROGRAM, piped
from tests.operations.foreign_writer import AGAIN, CALLS, QUESTION
from tests.redis_topologies import cluster_of_one
from tests.servers import Server

RECORDED = Path(__file__).parents[1] / "transfer" / "recorded"
UNIQUE = "call_0123456789"


async def all_of(outcomes: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in outcomes]


async def inspected(kind: str, place: object, **options: Any) -> list[Outcome]:
    async with foreign_store(kind, str(place), is_stopped=True, **options) as store:
        return await all_of(repair_foreign(store))


async def run_repair(kind: str, place: object, backup: Path, **options: Any) -> list[Outcome]:
    async with foreign_store(kind, str(place), is_stopped=True, **options) as store:
        return await all_of(repair_foreign(store, backup=backup))


async def run_undo(kind: str, place: object, backup: Path, **options: Any) -> list[str]:
    async with foreign_store(kind, str(place), is_stopped=True, **options) as store:
        return [outcome.status async for outcome in undo_foreign(store, backup)]


def faults(outcomes: list[Outcome]) -> list[tuple[str, str, int | str | None]]:
    return [(o.thread, p.kind, p.seq) for o in outcomes for p in o.problems if not p.is_harmless]


# The OpenAI Agents SDK on SQLite


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """A file that openai-agents 0.24.0 wrote."""
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
        database.executescript((RECORDED / "openai-agents-0.24.0.sql").read_text())
    return tmp_path / "sessions.db"


def execute(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, values)


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT id, session_id, message_data, created_at FROM agent_messages").fetchall()


async def test_healthy_sessions_stay_byte_for_byte(sessions: Path, tmp_path: Path) -> None:
    before = sessions.read_bytes()
    assert faults(await run_repair("openai-agents", sessions, tmp_path / "backup")) == []
    assert sessions.read_bytes() == before
    assert not (tmp_path / "backup").exists()


async def test_a_call_without_a_result_gets_the_free_row(sessions: Path, tmp_path: Path) -> None:
    execute(sessions, "DELETE FROM agent_messages WHERE id = 4")
    before = rows_of(sessions)
    assert faults(await inspected("openai-agents", sessions)) == [("plain", "unanswered-call", 3)]
    (outcome,) = await run_repair("openai-agents", sessions, tmp_path / "backup")
    assert outcome.is_well
    after = rows_of(sessions)
    (added,) = [row for row in after if row not in before]
    assert (added[0], NO_RESULT in added[2]) == (4, True)
    assert [row for row in after if row != added] == before
    for _ in range(2):
        assert await run_undo("openai-agents", sessions, tmp_path / "backup") == ["undone"]
        assert rows_of(sessions) == before


async def test_a_call_without_room_for_a_result_is_removed(sessions: Path, tmp_path: Path) -> None:
    later = json.dumps({"role": "user", "content": "still there?"})
    execute(sessions, "UPDATE agent_messages SET message_data = ? WHERE id = 4", later)
    before = rows_of(sessions)
    await run_repair("openai-agents", sessions, tmp_path / "backup")
    # The reasoning that led to the call alone goes with it.
    assert [row[0] for row in before if row not in rows_of(sessions)] == [2, 3]
    assert faults(await inspected("openai-agents", sessions)) == []
    await run_undo("openai-agents", sessions, tmp_path / "backup")
    assert rows_of(sessions) == before


async def test_sessions_broken_as_users_break_them(sessions: Path, tmp_path: Path) -> None:
    # Trimmed by count, an undecodable row, and the items of a failed run written again.
    execute(sessions, "DELETE FROM agent_messages WHERE id <= 3")
    execute(sessions, "UPDATE agent_messages SET message_data = '{\"half' WHERE id = 9")
    execute(
        sessions,
        "INSERT INTO agent_messages (session_id, message_data) SELECT session_id, message_data FROM agent_messages"
        " WHERE session_id = '~odd' ORDER BY id",
    )
    found = faults(await inspected("openai-agents", sessions))
    assert ("plain", "orphaned-result", 4) in found
    assert ("A|b: é/💾", "undecodable", 9) in found
    assert {kind for thread, kind, _ in found if thread == "~odd"} == {"duplicate"}
    before = rows_of(sessions)
    outcomes = await run_repair("openai-agents", sessions, tmp_path / "backup")
    assert all(outcome.is_well for outcome in outcomes)
    assert faults(await inspected("openai-agents", sessions)) == []
    assert set(rows_of(sessions)) - set(before) == {row for row in rows_of(sessions) if NO_RESULT in row[2]}
    assert set(await run_undo("openai-agents", sessions, tmp_path / "backup")) == {"undone"}
    assert rows_of(sessions) == before


async def test_a_session_changed_by_its_program_fails_and_is_repaired_later(sessions: Path, tmp_path: Path) -> None:
    execute(sessions, "DELETE FROM agent_messages WHERE id = 4")
    async with foreign_store("openai-agents", str(sessions), is_stopped=True) as store:
        target = await store.target("plain")
        assert target is not None
        from everthread.operations._planning import plan

        _, changes = plan(target)
        execute(sessions, "INSERT INTO agent_messages (session_id, message_data) VALUES ('plain', '{}')")
        before = rows_of(sessions)
        with pytest.raises(Exception, match="Another program changed"):
            await target.apply(changes)
    assert rows_of(sessions) == before
    await run_repair("openai-agents", sessions, tmp_path / "backup")
    assert faults(await inspected("openai-agents", sessions)) == []


async def test_calls_of_a_session_in_use_wait(sessions: Path) -> None:
    execute(sessions, "DELETE FROM agent_messages WHERE id IN (4, 5)")
    for now, found in ((1000.0, []), (4_000_000_000.0, [("plain", "unanswered-call", 3)])):
        execute(sessions, "UPDATE agent_sessions SET updated_at = '1970-01-01 00:16:00'")
        async with foreign_store("openai-agents", str(sessions), clock=lambda now=now: now) as store:
            assert faults(await all_of(repair_foreign(store))) == found


async def test_rows_of_sqlalchemy_sessions_are_ordered_by_time(sessions: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(sessions)) as database:
        database.executescript(
            "DROP TABLE agent_messages; CREATE TABLE agent_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, "
            "session_id VARCHAR, message_data TEXT NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)"
        )
    rows = [(QUESTION, "10:00:00"), (CALLS[0], "10:00:00"), (CALLS[1], "10:00:00"), (AGAIN, "10:00:01")]
    for item, at in rows:
        values = ("s", json.dumps(item), f"2026-01-01 {at}")
        execute(sessions, "INSERT INTO agent_messages (session_id, message_data, created_at) VALUES (?, ?, ?)", *values)
    before = rows_of(sessions)
    await run_repair("openai-agents", sessions, tmp_path / "backup")
    after = rows_of(sessions)
    assert after[:4] == before
    # Their numbers are the highest, and their time is that of the calls.
    assert [(row[0], row[3], NO_RESULT in row[2]) for row in after[4:]] == [
        (number, "2026-01-01 10:00:00", True) for number in (5, 6)
    ]
    assert faults(await inspected("openai-agents", sessions)) == []
    assert await run_undo("openai-agents", sessions, tmp_path / "backup") == ["undone"]
    assert rows_of(sessions) == before


# Redis lists


@pytest.fixture
def client(plain_redis_server: Server) -> Iterator[redis_py.Redis]:
    """A client of a database of its own."""
    with redis_py.Redis(port=plain_redis_server.port, db=8) as opened:
        opened.flushdb()
        yield opened


@pytest.fixture
def url(plain_redis_server: Server) -> str:
    return f"redis://127.0.0.1:{plain_redis_server.port}/8"


LISTS = [
    ("agent-framework-redis-1.0.0b261022.json", "agent-framework-redis", "|v2|"),
    ("agent-framework-redis-1.0.0b251120.json", "redis-lists", ":"),
]


@pytest.mark.parametrize(("file", "kind", "mark"), LISTS, ids=["scoped", "beta"])
async def test_lists_of_agent_framework(
    client: redis_py.Redis, url: str, tmp_path: Path, file: str, kind: str, mark: str
) -> None:
    recorded = {key: rows for key, rows in json.loads((RECORDED / file).read_text()).items() if mark in key}
    for key, rows in recorded.items():
        client.rpush(key, *rows)
    assert faults(await run_repair(kind, url, tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()
    first, second = sorted(recorded)[:2]
    # Trimmed by count; killed between the call and the result; a bad record by another program.
    client.ltrim(first, 2, -1)
    client.lset(second, 2, "not JSON")
    client.expire(second, 1000)
    before = {key: client.lrange(key, 0, -1) for key in recorded}
    found = faults(await inspected(kind, url))
    assert found == [(first, "orphaned-result", 0), (second, "unanswered-call", 1), (second, "undecodable", 2)]
    outcomes = await run_repair(kind, url, tmp_path / "backup")
    assert all(outcome.is_well for outcome in outcomes)
    assert faults(await inspected(kind, url)) == []
    assert client.lrange(first, 0, -1) == before[first][1:]
    after = client.lrange(second, 0, -1)
    assert [after[0], after[1], after[3]] == [before[second][at] for at in (0, 1, 3)]
    assert NO_RESULT.encode() in after[2]
    assert client.ttl(second) > 0
    assert all(client.lrange(key, 0, -1) == before[key] for key in recorded if key not in {first, second})
    client.rpush(first, "appended since")
    assert set(await run_undo(kind, url, tmp_path / "backup")) == {"undone"}
    assert client.lrange(first, 0, -1) == [*before[first], b"appended since"]
    assert client.lrange(second, 0, -1) == before[second]


async def test_a_list_changed_at_the_same_time_stays(client: redis_py.Redis, url: str) -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    user = {"role": "user", "content": "q"}
    client.rpush("agents:session:s:messages", *map(json.dumps, (user, call, user)))
    async with foreign_store("openai-agents-redis", url, is_stopped=True) as store:
        target = await store.target("agents:session:s:messages")
        assert target is not None
        from everthread.operations._planning import plan

        _, changes = plan(target)
        client.rpush("agents:session:s:messages", json.dumps(user))
        with pytest.raises(Exception, match="Another program changed"):
            await target.apply(changes)
    assert client.llen("agents:session:s:messages") == 4
    assert faults(await inspected("openai-agents-redis", url)) == [("agents:session:s:messages", "unanswered-call", 1)]


@pytest.mark.parametrize("count", [10, 500])
async def test_many_changes_of_a_list(client: redis_py.Redis, url: str, tmp_path: Path, count: int) -> None:
    results = [{"type": "function_call_output", "call_id": f"c{n}", "output": "x"} for n in range(count)]
    calls = [{"type": "function_call", "call_id": f"d{n}", "name": "f", "arguments": "{}"} for n in range(count)]
    key = "agents:session:s:messages"
    mixed = [item for result, call in zip(results, calls, strict=True) for item in (result, QUESTION, call)]
    client.rpush(key, *map(json.dumps, mixed))
    client.expire(key, 1000)
    before = client.lrange(key, 0, -1)
    (outcome,) = await run_repair("openai-agents-redis", url, tmp_path / "backup")
    assert outcome.is_well
    after = client.lrange(key, 0, -1)
    assert len(after) == 3 * count
    assert [row for row in after if NO_RESULT.encode() not in row] == [
        json.dumps(item).encode() for item in mixed if item.get("type") != "function_call_output"
    ]
    assert client.ttl(key) > 0
    assert await run_undo("openai-agents-redis", url, tmp_path / "backup") == ["undone"]
    assert client.lrange(key, 0, -1) == before


async def test_keys_and_elements_tell_the_program(client: redis_py.Redis, url: str) -> None:
    assert only_one(await findings_at(url)) is None
    client.rpush("a list of nobody", "1", "{}")
    client.set("chat_messages:text", "{}")
    assert only_one(await findings_at(url)) is None
    for file, kind, mark in [*LISTS, ("langchain-community-0.4.2.json", "langchain-redis", "")]:
        recorded = json.loads((RECORDED / file).read_text())
        for prefix in ("", "other_"):
            names = [prefix + key for key in recorded if (mark == "|v2|") == ("|v2|" in key)]
            for key in names:
                client.rpush(key, *recorded[key.removeprefix(prefix)])
            found = only_one(await findings_at(url))
            assert found is not None
            assert found.kind == kind
            assert (found.prefix is None) == (not prefix)
            assert faults(await inspected(kind, url, prefix=found.prefix)) == []
            client.delete(*names)
    client.rpush("agents:session:s:messages", json.dumps(QUESTION))
    assert only_one(await findings_at(url)) == Recognized("openai-agents-redis")
    client.rpush("chat_messages:s", json.dumps({"type": "chat_message", "role": "user", "contents": []}))
    with pytest.raises(ConfigurationError, match=r"Choose one: .*--as (openai-agents-redis|redis-lists), --as"):
        only_one(await findings_at(url))
    async with open_store(url) as store:
        await store.append(ThreadKey("t"), [new_message({"role": "user", "content": "q"})])
    assert only_one(await findings_at(url)) is None


def test_the_command_finds_the_program_by_its_keys(client: redis_py.Redis, url: str, tmp_path: Path) -> None:
    client.rpush("agents:session:s:messages", *map(json.dumps, (QUESTION, CALLS[0], AGAIN)))
    done = piped("", "--stopped", home=tmp_path, program=(PROGRAM, "doctor", url))
    assert (done.returncode, done.stdout.split("\t")[1:4]) == (1, ["agents:session:s:messages", "1", "unanswered-call"])


async def test_lists_on_a_cluster(tmp_path: Path) -> None:
    with cluster_of_one() as server, redis_py.RedisCluster(host="127.0.0.1", port=server.port) as client:
        names = [f"agents:session:{n}:messages" for n in range(20)]
        for name in names:
            client.rpush(name, *map(json.dumps, (QUESTION, CALLS[0], AGAIN)))
        before = [client.lrange(name, 0, -1) for name in names]
        url = f"redis+cluster://127.0.0.1:{server.port}"
        assert only_one(await findings_at(url)) == Recognized("openai-agents-redis")
        outcomes = await run_repair("openai-agents-redis", url, tmp_path / "backup")
        assert [outcome.status for outcome in outcomes] == ["repaired"] * 20
        assert faults(await inspected("openai-agents-redis", url)) == []
        assert await run_undo("openai-agents-redis", url, tmp_path / "backup") == ["undone"] * 20
        assert [client.lrange(name, 0, -1) for name in names] == before


async def test_lists_of_langchain_are_reported_only(client: redis_py.Redis, url: str, tmp_path: Path) -> None:
    for key, rows in json.loads((RECORDED / "langchain-community-0.4.2.json").read_text()).items():
        client.rpush(key, *rows)
    client.lrem("message_store:plain", 1, client.lindex("message_store:plain", 1))
    before = client.lrange("message_store:plain", 0, -1)
    (outcome,) = [each for each in await run_repair("langchain-redis", url, tmp_path / "b") if not each.is_well]
    assert [(problem.kind, problem.repair) for problem in outcome.problems] == [("unanswered-call", "")]
    assert client.lrange("message_store:plain", 0, -1) == before


async def test_a_server_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        await inspected("redis-lists", "redis://127.0.0.1:1/0")
    program = (PROGRAM, "doctor", "redis://127.0.0.1:1/0", "--as", "redis-lists")
    assert piped("", home=tmp_path, program=program).returncode == 4


# Agent Framework's file history


def conversation() -> list[Message]:
    return [
        Message("user", ["weather in Rome? — é💾"]),
        Message("assistant", [Content.from_function_call(UNIQUE, "weather", arguments={"city": "Rome"})]),
        Message("tool", [Content.from_function_result(UNIQUE, result="22 °C")]),
        Message("assistant", ["It is 22 °C."]),
    ]


async def test_file_histories(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    provider = FileHistoryProvider(folder)
    await provider.save_messages("healthy", conversation())
    await provider.save_messages("killed", conversation()[:2])
    await provider.save_messages("killed", [Message("user", ["again"])])
    (killed,) = folder.glob("killed*")
    # Half a record, as a crash leaves it.
    with killed.open("ab") as file:
        file.write(b'{"type":"mess')
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert recognized_kind(folder) == "agent-framework-files"
    found = faults(await inspected("agent-framework-files", folder))
    assert found == [(killed.name, "unanswered-call", 1), (killed.name, "undecodable", 3)]
    async with foreign_store("agent-framework-files", str(folder)) as store:
        (refused,) = [each async for each in repair_foreign(store, backup=tmp_path / "b") if each.status == "failed"]
    assert "--stopped" in refused.reason
    outcomes = await run_repair("agent-framework-files", folder, tmp_path / "backup")
    assert all(outcome.is_well for outcome in outcomes)
    lines = killed.read_bytes().splitlines()
    assert [lines[0], lines[1], lines[3]] == before[killed.name].splitlines()[:3]
    messages = await provider.get_messages("killed")
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user"]
    assert set(await run_undo("agent-framework-files", folder, tmp_path / "backup")) == {"undone"}
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after[killed.name].rstrip(b"\n") == before[killed.name].rstrip(b"\n")
    del before[killed.name], after[killed.name]
    assert after == before


async def test_packed_file_histories(tmp_path: Path) -> None:
    provider = FileHistoryProvider(tmp_path / "history", serialization_format="msgpack")
    await provider.save_messages("s", [*conversation()[:2], Message("user", ["again"])])
    (path,) = (tmp_path / "history").iterdir()
    before = path.read_bytes()
    assert faults(await inspected("agent-framework-files", path)) == [(path.name, "unanswered-call", 1)]
    await run_repair("agent-framework-files", path, tmp_path / "backup")
    messages = await provider.get_messages("s")
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user"]
    await run_undo("agent-framework-files", path, tmp_path / "backup")
    assert path.read_bytes() == before


# LangGraph


async def test_checkpoints_of_langgraph_are_reported_only(tmp_path: Path) -> None:
    path = tmp_path / "graph.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((RECORDED / "langgraph-checkpoint-sqlite-3.1.2.sql").read_text())
    before = path.read_bytes()
    assert recognized_kind(path) == "langgraph"
    (outcome,) = await run_repair("langgraph", path, tmp_path / "backup")
    assert [(p.kind, p.seq, p.repair) for p in outcome.problems] == [("unanswered-call", 1, "")]
    assert path.read_bytes() == before


# The command


def test_the_command_reports_plans_repairs_and_undoes(sessions: Path, tmp_path: Path) -> None:
    execute(sessions, "DELETE FROM agent_messages WHERE id = 4")
    before, backup = rows_of(sessions), str(tmp_path / "backup")
    doctor = (PROGRAM, "doctor", str(sessions), "--stopped")
    report = piped("", home=tmp_path, program=doctor)
    assert (report.returncode, report.stdout.split("\t")[:4]) == (1, ["found", "plain", "3", "unanswered-call"])
    assert "400 No tool output found" in report.stdout
    dry = piped("", "--repair", "--dry-run", "--json", home=tmp_path, program=doctor)
    found, change = map(json.loads, dry.stdout.splitlines())
    assert (dry.returncode, found["answer"][:16], change["old"]) == (1, "openai-responses", None)
    assert json.loads(change["new"])["type"] == "function_call_output"
    assert rows_of(sessions) == before
    done = piped("", "--repair", "--yes", "--backup", backup, home=tmp_path, program=doctor)
    assert done.returncode == 0, done.stderr
    assert piped("", home=tmp_path, program=doctor).returncode == 0
    assert piped("", "--undo", backup, "--yes", home=tmp_path, program=doctor).returncode == 0
    assert rows_of(sessions) == before


def test_the_command_names_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for source in ("notes.txt", "nothing", "notes.db"):
        done = piped("", home=tmp_path, program=(PROGRAM, "doctor", str(tmp_path / source)))
        assert done.returncode in {1, 2}
        assert "Traceback" not in done.stderr


async def test_a_backup_of_another_kind_is_refused(sessions: Path, tmp_path: Path) -> None:
    execute(sessions, "DELETE FROM agent_messages WHERE id = 4")
    await run_repair("openai-agents", sessions, tmp_path / "backup")
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "s.jsonl").write_text("")
    with pytest.raises(ConfigurationError, match="of openai-agents"):
        await run_undo("agent-framework-files", tmp_path / "h", tmp_path / "backup")
