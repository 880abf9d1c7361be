"""What other programs wrote is read as they would read it."""

from __future__ import annotations

import json
import sqlite3
from base64 import b32encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from everthread import ConfigurationError, NewMessage, Store, StoreUnavailableError, ThreadKey, open_store, view
from everthread.transfer import export_threads, import_threads
from everthread.transfer.foreign import foreign_source
from tests.servers import Server
from tests.transfer.conversations import everything


def current(role: str, text: str) -> str:
    return json.dumps({"type": "message", "role": role, "contents": [{"type": "text", "text": text}]})


def beta(role: str, text: str) -> str:
    shaped = {"type": "role", "value": role}
    return json.dumps({"type": "chat_message", "role": shaped, "contents": [{"type": "text", "text": text}]})


CONVERSATION = [("user", "hello — é"), ("assistant", "hi"), ("user", "yes"), ("assistant", "ok"), ("user", "yes")]


@pytest.fixture
def client(plain_redis_server: Server) -> Iterator[redis_py.Redis]:
    """A client of a database of its own."""
    with redis_py.Redis(port=plain_redis_server.port, db=9) as opened:
        opened.flushdb()
        yield opened


@pytest.fixture
def url(plain_redis_server: Server) -> str:
    return f"redis://127.0.0.1:{plain_redis_server.port}/9"


async def texts(store: Store, thread_id: str, tenant: str = "") -> list[tuple[str, str]]:
    page = await store.read(ThreadKey(thread_id, tenant))
    return [(seen.role, seen.text) for seen in map(view, page)]


async def test_lists_of_the_betas_and_of_legacy_keys(client: redis_py.Redis, url: str, target: Store) -> None:
    client.rpush("lab11:thread_1", *(beta(*each) for each in CONVERSATION))
    client.rpush("lab11:a:b*[x]", *(current(*each) for each in CONVERSATION))
    client.rpush("lab111:other", current("user", "not this one"))
    client.set("lab11:no list", "x")
    report = await import_threads(target, foreign_source("redis-lists", url, prefix="lab11"))
    assert report.threads == {"new": 2}
    assert await texts(target, "thread_1") == await texts(target, "a:b*[x]") == CONVERSATION
    messages = await target.read(ThreadKey("thread_1"))
    assert [message.turn for message in messages] == [0, 0, 2, 2, 4]
    assert [message.payload.decode() for message in messages] == [beta(*each) for each in CONVERSATION]
    assert (await target.list_threads()).items[0].title == "hello — é"


async def test_a_second_import_adds_only_new_messages(client: redis_py.Redis, url: str, target: Store) -> None:
    client.rpush("lab11:t", *(current(*each) for each in CONVERSATION))
    source = {"kind": "redis-lists", "place": url, "prefix": "lab11"}
    await import_threads(target, foreign_source(**source))
    assert (await import_threads(target, foreign_source(**source))).threads == {"unchanged": 1}
    client.rpush("lab11:t", current("assistant", "more"))
    report = await import_threads(target, foreign_source(**source))
    assert (report.threads, report.written, report.present) == ({"extended": 1}, 1, 5)
    assert await texts(target, "t") == [*CONVERSATION, ("assistant", "more")]


async def test_lists_are_adopted_in_place(client: redis_py.Redis, url: str) -> None:
    for number in range(3):
        client.rpush(f"lab11:t{number}", *(current(*each) for each in CONVERSATION))
    async with open_store(f"{url}?prefix=lab11") as store:
        assert not await store.list_threads()
        report = await import_threads(store, foreign_source("redis-lists", url, prefix="lab11"))
        assert report.written == 0
        assert {thread.key.thread_id for thread in await store.list_threads()} == {"t0", "t1", "t2"}
        assert await texts(store, "t1") == CONVERSATION
    assert client.llen("lab11:t1") == 5


def scoped(source: str, session: str, *, tenant: str = "~none", application: str = "app", agent: str = "~none") -> str:
    return "|".join(["chat_messages", "v2", tenant, application, agent, source, session])


def encoded(mark: str, text: str) -> str:
    return mark + b32encode(text.encode()).decode().rstrip("=").lower()


async def test_scoped_keys_of_agent_framework(client: redis_py.Redis, url: str, target: Store) -> None:
    rows = [current(*each) for each in CONVERSATION]
    tenant = encoded("~redis-tenant-", "Acme")
    client.rpush(scoped("redis_memory", "plain", tenant=tenant), *rows)
    client.rpush(scoped("redis_memory", encoded("~redis-session-", "A|b é"), tenant=tenant), *rows)
    client.rpush(scoped("redis_memory", encoded("~redis-session-", "~x"), tenant=tenant), *rows[:2])
    client.rpush(scoped("other", "plain", tenant=tenant), *rows[:1])
    client.rpush("chat_messages:legacy", *rows)
    report = await import_threads(target, foreign_source("agent-framework-redis", url))
    assert report.threads == {"new": 4}
    # As EverthreadHistoryProvider names the sessions of the default source and of another.
    assert set(await everything(target, "Acme")) == {"plain", "A|b é", "~~x", "~other~plain"}
    assert await texts(target, "A|b é", "Acme") == CONVERSATION
    assert await texts(target, "~other~plain", "Acme") == CONVERSATION[:1]


async def test_scopes_never_mix(client: redis_py.Redis, url: str, target: Store) -> None:
    client.rpush(scoped("redis_memory", "s", application="one"), current("user", "of one"))
    client.rpush(scoped("redis_memory", "s", application="two"), current("user", "of one"), current("user", "of two"))
    with pytest.raises(ConfigurationError, match=r"2 scopes .*~none\|one\|~none, ~none\|two\|~none"):
        await import_threads(target, foreign_source("agent-framework-redis", url))
    assert await everything(target) == {}
    await import_threads(target, foreign_source("agent-framework-redis", url, scope="~none|one|~none"))
    assert await texts(target, "s") == [("user", "of one")]
    with pytest.raises(ConfigurationError, match="no sessions"):
        await import_threads(target, foreign_source("agent-framework-redis", url, scope="~none|three|~none"))


async def test_lists_of_langchain_are_turned_round(client: redis_py.Redis, url: str, target: Store) -> None:
    call = {"name": "f", "args": {"x": 1}, "id": "c", "type": "tool_call"}
    rows: list[dict[str, Any]] = [
        {"type": "human", "data": {"content": "hello", "type": "human"}},
        {"type": "ai", "data": {"content": "", "tool_calls": [call]}},
        {"type": "tool", "data": {"content": "1", "tool_call_id": "c"}},
        {"type": "ai", "data": {"content": [{"type": "text", "text": "done"}]}},
    ] * 60
    for row in rows:
        client.lpush("message_store:s", json.dumps(row))
    await import_threads(target, foreign_source("langchain-redis", url))
    messages = await target.read(ThreadKey("s"))
    assert [json.loads(message.payload) for message in messages] == rows
    assert {message.format for message in messages} == {"langchain"}
    seen = [view(message) for message in messages[:4]]
    assert [each.role for each in seen] == ["user", "assistant", "tool", "assistant"]
    assert seen[1].calls[0].arguments == '{"x":1}'
    assert seen[2].results[0].text == "1"


async def test_sessions_of_the_openai_agents_sdk(tmp_path: Path, target: Store) -> None:
    path = tmp_path / "a b#.db"
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "weather?"},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]},
    ] * 100
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY, created_at, updated_at)")
        database.execute("CREATE TABLE agent_messages (id INTEGER PRIMARY KEY, session_id, message_data, created_at)")
        database.execute("INSERT INTO agent_sessions VALUES ('s', '', ''), ('none', '', '')")
        for item in items:
            row = ("s", json.dumps(item), "2024-05-01 12:00:01")
            database.execute("INSERT INTO agent_messages (session_id, message_data, created_at) VALUES (?, ?, ?)", row)
    report = await import_threads(target, foreign_source("openai-agents", str(path)))
    assert report.written == 500
    messages = await target.read(ThreadKey("s"))
    assert [json.loads(message.payload) for message in messages] == items
    assert messages[0].created_ms == 1714564801000
    seen = [view(message) for message in messages[:5]]
    assert [each.role for each in seen] == ["user", "assistant", "assistant", "tool", "assistant"]
    assert [seen[0].text, seen[1].reasoning, seen[4].text] == ["weather?", "hm", "It is sunny."]
    assert (seen[2].calls[0].name, seen[3].results[0].text) == ("f", "sunny")
    assert (await target.truncate(ThreadKey("s"), stop=498)).next_seq == 500
    assert len(await target.read(ThreadKey("s"))) == 497


async def test_the_file_history_of_agent_framework(tmp_path: Path, target: Store) -> None:
    rows = [current(*each) for each in CONVERSATION]
    (tmp_path / "plain.jsonl").write_text("\n".join(rows) + "\n\n")
    (tmp_path / (encoded("~session-", "A/b") + ".jsonl")).write_text("\n".join(rows))
    report = await import_threads(target, foreign_source("agent-framework-files", str(tmp_path)), tenant="acme")
    assert report.threads == {"new": 2}
    assert await texts(target, "plain", "acme") == await texts(target, "A/b", "acme") == CONVERSATION


async def test_a_message_that_is_not_json_is_exported_and_reported(
    client: redis_py.Redis, url: str, target: Store, tmp_path: Path
) -> None:
    client.rpush("lab11:bad", current("user", "hello"), '{"secret":NaN}', current("user", "bye"))
    client.rpush("lab11:good", current("user", "hello"))
    report = await import_threads(target, foreign_source("redis-lists", url, prefix="lab11"))
    assert report.threads == {"failed": 1, "new": 1}
    assert "position 1" in report.problems[0].reason
    assert "secret" not in report.problems[0].reason
    async with open_store(f"{url}?prefix=lab11") as store:
        await export_threads(store, tmp_path / "x", names=["bad"])
    lines = (tmp_path / "x").read_text().splitlines()
    assert json.loads(lines[3])["base64"] == "eyJzZWNyZXQiOk5hTn0="


async def test_a_skipped_message_leaves_the_positions_of_others(
    client: redis_py.Redis, url: str, target: Store
) -> None:
    rows = [current(*each) for each in CONVERSATION]
    client.rpush("lab11:t", "{", *rows[:2], "}", "", *rows[2:], '{"secret":NaN}')
    client.rpush("lab11:nothing", "{", "}")
    source = {"kind": "redis-lists", "place": url, "prefix": "lab11"}
    planned = await import_threads(target, foreign_source(**source), skip_unreadable=True, dry_run=True)
    report = await import_threads(target, foreign_source(**source), skip_unreadable=True)
    assert (report.threads, report.is_complete) == ({"new": 2}, False)
    assert sorted(skipped.place for skipped in report.skipped) == [
        *(f"thread 'nothing', position {seq}" for seq in (0, 1)),
        *(f"thread 't', position {seq}" for seq in (0, 3, 4, 8)),
    ]
    assert (planned.written, len(planned.skipped)) == (report.written, 6)
    assert "secret" not in str(report)
    assert await texts(target, "t") == CONVERSATION
    assert [message.seq for message in await target.read(ThreadKey("t"))] == [1, 2, 5, 6, 7]
    client.rpush("lab11:t", rows[0])
    again = await import_threads(target, foreign_source(**source), skip_unreadable=True)
    assert (again.threads, again.written) == ({"extended": 1, "unchanged": 1}, 1)
    assert len(again.skipped) == 6


async def test_an_adopted_conversation_with_new_messages_is_ahead(
    client: redis_py.Redis, url: str, target: Store
) -> None:
    client.rpush("lab11:t", *(current(*each) for each in CONVERSATION))
    await import_threads(target, foreign_source("redis-lists", url, prefix="lab11"))
    await target.append(ThreadKey("t"), [NewMessage(current("user", "new").encode())])
    report = await import_threads(target, foreign_source("redis-lists", url, prefix="lab11"))
    assert (report.threads, report.written) == ({"ahead": 1}, 0)


async def test_sources_that_are_not_there_are_typed_errors_without_secrets(tmp_path: Path, target: Store) -> None:
    with pytest.raises(StoreUnavailableError) as refused:
        await import_threads(target, foreign_source("redis-lists", "redis://:pa55word@127.0.0.1:1/0"))
    assert "pa55word" not in str(refused.value)
    with pytest.raises(ConfigurationError) as wrong:
        await import_threads(target, foreign_source("langchain-redis", "redis://:pa55word@host:port"))
    assert "pa55word" not in str(wrong.value)
    for kind in ("openai-agents", "agent-framework-files"):
        with pytest.raises(ConfigurationError):
            await import_threads(target, foreign_source(kind, str(tmp_path / "nowhere")))
    (tmp_path / "x.db").write_text("this is no database, but long enough")
    with pytest.raises(ConfigurationError, match="no sessions"):
        await import_threads(target, foreign_source("openai-agents", str(tmp_path / "x.db")))
    with pytest.raises(ConfigurationError, match="Unknown kind"):
        foreign_source("word", "x")
