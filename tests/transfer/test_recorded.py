"""What real releases of other programs wrote (``recorded``, made by ``record.py``) is read whole and understood."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from everthread import Store, ThreadKey, view
from everthread.model import Message
from everthread.transfer import import_threads
from everthread.transfer.foreign import foreign_source
from tests.servers import Server
from tests.transfer.conversations import everything
from tests.transfer.record import FOLDER, SESSIONS

THREADS = {"~~odd" if name == "~odd" else name for name in SESSIONS}
"""As ``EverthreadHistoryProvider`` finds sessions of Agent Framework 1.x."""


def recorded(name: str) -> dict[str, list[str]]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture
def client(plain_redis_server: Server) -> Iterator[redis_py.Redis]:
    """A client of a database of its own."""
    with redis_py.Redis(port=plain_redis_server.port, db=10) as opened:
        opened.flushdb()
        yield opened


@pytest.fixture
def url(plain_redis_server: Server) -> str:
    return f"redis://127.0.0.1:{plain_redis_server.port}/10"


def put(client: redis_py.Redis, lists: dict[str, list[str]]) -> None:
    for key, elements in lists.items():
        client.rpush(key, *elements)


async def messages(store: Store, thread_id: str, tenant: str = "") -> Sequence[Message]:
    return (await store.read(ThreadKey(thread_id, tenant))).messages


async def is_understood(store: Store, thread_id: str, tenant: str = "") -> None:
    """A question, a call, its result and an answer, of one turn; and the call is not cut from its result."""
    found = await messages(store, thread_id, tenant)
    seen = [view(message) for message in found]
    assert [each.role for each in seen] == ["user", "assistant", "tool", "assistant"]
    assert [seen[0].text, seen[3].text] == ["weather in Rome? — é💾", "It is 22 °C."]
    assert (seen[1].calls[0].name, json.loads(seen[1].calls[0].arguments)) == ("weather", {"city": "Rome"})
    assert (seen[1].calls[0].id, seen[2].results[0].id) == ("call_1", "call_1")
    assert seen[2].results[0].text == "22 °C"
    assert {message.turn for message in found} == {0}
    assert (await store.truncate(ThreadKey(thread_id, tenant), stop=2)).removed == 3


async def test_scoped_keys_of_agent_framework_redis_1_0_0b261022(
    client: redis_py.Redis, url: str, target: Store
) -> None:
    put(client, recorded("agent-framework-redis-1.0.0b261022.json"))
    source = foreign_source("agent-framework-redis", url, scope=scope_of(client, "Acme"))
    assert (await import_threads(target, source)).threads == {"new": 6}
    assert set(await everything(target, "Acme")) == THREADS | {f"~notes~{name}" for name in SESSIONS}
    await is_understood(target, "A|b: é/💾", "Acme")
    await is_understood(target, "~notes~plain", "Acme")
    other = foreign_source("agent-framework-redis", url, scope=scope_of(client, None))
    assert (await import_threads(target, other)).threads == {"new": 3}
    assert set(await everything(target)) == THREADS


def scope_of(client: redis_py.Redis, tenant: str | None) -> str:
    """The scope of that tenant, as it stands in the keys."""
    keys: Any = client.scan_iter("*|v2|*")
    scopes = {"|".join(key.decode().split("|")[2:5]) for key in keys}
    return next(scope for scope in sorted(scopes) if scope.startswith("~none|") == (tenant is None))


async def test_legacy_keys_of_agent_framework_redis_1_0_0b261022(
    client: redis_py.Redis, url: str, target: Store
) -> None:
    lists = recorded("agent-framework-redis-1.0.0b261022.json")
    put(client, lists)
    assert (await import_threads(target, foreign_source("redis-lists", url))).threads == {"new": 3}
    stored = [message.payload.decode() for message in await messages(target, "plain")]
    assert stored == lists["chat_messages:plain"]
    assert set(await everything(target)) == set(SESSIONS)
    await is_understood(target, "A|b: é/💾")


@pytest.mark.parametrize("release", ["1.0.0b251120", "1.0.0b260210"])
async def test_lists_of_the_betas_of_agent_framework_redis(
    client: redis_py.Redis, url: str, target: Store, release: str
) -> None:
    lists = recorded(f"agent-framework-redis-{release}.json")
    put(client, lists)
    assert (await import_threads(target, foreign_source("redis-lists", url))).threads == {"new": 3}
    assert [message.payload.decode() for message in await messages(target, "~odd")] == lists["chat_messages:~odd"]
    await is_understood(target, "plain")
    await is_understood(target, "A|b: é/💾")


async def test_lists_of_langchain_community_0_4_2(client: redis_py.Redis, url: str, target: Store) -> None:
    lists = recorded("langchain-community-0.4.2.json")
    put(client, lists)
    assert (await import_threads(target, foreign_source("langchain-redis", url))).threads == {"new": 3}
    stored = [message.payload.decode() for message in await messages(target, "plain")]
    assert stored == lists["message_store:plain"][::-1]
    await is_understood(target, "plain")
    await is_understood(target, "A|b: é/💾")


async def test_sessions_of_openai_agents_0_24_0(tmp_path: Path, target: Store) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.executescript((FOLDER / "openai-agents-0.24.0.sql").read_text(encoding="utf-8"))
        rows = database.execute("SELECT message_data FROM agent_messages WHERE session_id = 'plain' ORDER BY id")
        wanted = [data for (data,) in rows]
        begun = database.execute("SELECT strftime('%s', created_at) FROM agent_sessions").fetchone()[0]
    report = await import_threads(target, foreign_source("openai-agents", str(tmp_path / "x.db")))
    assert (report.threads, report.written) == ({"new": 3}, 15)
    assert [message.payload.decode() for message in await messages(target, "plain")] == wanted
    for name in SESSIONS:
        seen = [view(message) for message in await messages(target, name)]
        assert [each.role for each in seen] == ["user", "assistant", "assistant", "tool", "assistant"]
        assert [seen[1].reasoning, seen[4].text] == ["I ask the tool.", "It is 22 °C."]
        assert (seen[2].calls[0].id, seen[3].results[0].text) == ("call_1", "22 °C")
        thread = await target.get_thread(ThreadKey(name))
        assert thread is not None
        assert thread.created_ms == int(begun) * 1000
        assert 0 <= thread.updated_ms - thread.created_ms <= 5000


@pytest.mark.filterwarnings("ignore:.*FILE_HISTORY.*")
@pytest.mark.parametrize("packed", [False, True], ids=["JSON Lines", "MessagePack"])
async def test_the_file_history_of_the_installed_agent_framework(tmp_path: Path, target: Store, packed: bool) -> None:
    import agent_framework
    from agent_framework import Content
    from agent_framework import Message as Theirs

    if not hasattr(agent_framework, "FileHistoryProvider"):
        pytest.skip("this release of Agent Framework has no file history")
    provider = agent_framework.FileHistoryProvider(tmp_path, serialization_format="msgpack" if packed else "json")
    said = [
        Theirs("user", ["weather in Rome? — é💾"]),
        Theirs("assistant", [Content.from_function_call("call_1", "weather", arguments={"city": "Rome"})]),
        Theirs("tool", [Content.from_function_result("call_1", result="22 °C")]),
        Theirs("assistant", ["It is 22 °C."]),
    ]
    for name in SESSIONS:
        await provider.save_messages(name, said)
    source = foreign_source("agent-framework-files", str(tmp_path))
    assert (await import_threads(target, source)).threads == {"new": 3}
    assert set(await everything(target)) == THREADS
    stored = [json.loads(message.payload) for message in await messages(target, "plain")]
    assert stored == [json.loads(json.dumps(message.to_dict())) for message in said]
    thread = await target.get_thread(ThreadKey("plain"))
    assert thread is not None
    assert thread.updated_ms == min(path.stat().st_mtime_ns for path in tmp_path.glob("plain.*")) // 1_000_000
    again = await import_threads(target, foreign_source("agent-framework-files", str(tmp_path)))
    assert again.threads == {"unchanged": 3}
    await is_understood(target, "A|b: é/💾")


async def test_a_damaged_packed_history_is_reported(tmp_path: Path, target: Store) -> None:
    import msgspec

    def record(value: object) -> bytes:
        data = msgspec.msgpack.encode(value)
        return len(data).to_bytes(4, "big") + data

    good = record({"type": "message", "role": "user", "contents": []})
    odd = [record({"secret": float("nan")}), b"\x00\x00\x00\x01\xc1"]
    (tmp_path / "a.msgpack").write_bytes(good + b"".join(odd) + good)
    (tmp_path / "b.msgpack").write_bytes(good + good[:-1])
    (tmp_path / "c.msgpack").write_bytes(good + b"\x00")
    (tmp_path / "d.msgpack").write_bytes(b"{this is something else}")
    refused = await import_threads(target, foreign_source("agent-framework-files", str(tmp_path)))
    assert (refused.threads, refused.written) == ({"failed": 4}, 0)
    assert "secret" not in str(refused)
    report = await import_threads(target, foreign_source("agent-framework-files", str(tmp_path)), skip_unreadable=True)
    places = [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
    assert sorted(skipped.place for skipped in report.skipped) == [
        f"thread '{it}', position {seq}" for it, seq in places
    ]
    assert [message.seq for message in await messages(target, "a")] == [0, 3]
    assert [problem.key.thread_id for problem in report.problems] == ["d"]
