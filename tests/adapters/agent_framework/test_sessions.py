"""Which messages of which sessions a history provider keeps, and for how long it keeps the store open."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agent_framework import Content, ContextProvider, Message
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from everthread import (
    ConfigurationError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    Retention,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.agent_framework.sessions import SessionKeys
from everthread.engines.memory import MemoryStore
from everthread.testing.strategies import identifiers
from tests.adapters.agents import PIXEL, agent_with, run, texts
from tests.adapters.scripted import ScriptedClient
from tests.servers import Server

# Sources, sessions, tenants


async def test_two_providers_on_one_session_never_mix(store) -> None:
    main = EverthreadHistoryProvider(store)
    audit = EverthreadHistoryProvider(store, source_id="audit", load_messages=False, store_outputs=False)
    await run(agent_with(ScriptedClient(), main, audit), "hello")
    assert texts(await main.get_messages("trip")) == [("user", "hello"), ("assistant", "Done.")]
    assert texts(await audit.get_messages("trip")) == [("user", "hello")]
    assert await audit.clear("trip") == 1
    assert len(await main.get_messages("trip")) == 2
    assert await audit.delete("trip")
    assert not await audit.delete("trip")
    assert [found.session_id for found in await main.list_sessions()] == ["trip"]
    assert (await audit.list_sessions()).items == ()


async def test_tenants_never_see_each_other(store) -> None:
    ours, theirs = (EverthreadHistoryProvider(store, tenant=tenant) for tenant in ("ours", "theirs"))
    await run(agent_with(ScriptedClient(), ours), "hello")
    assert await theirs.get_messages("trip") == []
    assert (await theirs.list_sessions()).items == ()
    assert not await theirs.delete("trip")


SOURCES = st.sampled_from(["everthread", "a", "~", "a~", "~a", "%7E", "a:b", "everthread~"]) | identifiers()
SESSIONS = st.sampled_from(["x", "~x", "~~x", "~a~x", "a~x", "~%7E~x", "~everthread~x"]) | identifiers()


@given(SOURCES, SESSIONS, SOURCES, SESSIONS)
def test_no_two_sessions_share_a_thread(source: str, session: str, other_source: str, other_session: str) -> None:
    try:
        key = SessionKeys(source, "t").key(session)
        other = SessionKeys(other_source, "t").key(other_session)
    except InvalidIdentifierError:
        return  # A prefix may make a very long id too long.
    assert (key == other) == ((source, session) == (other_source, other_session))
    assert SessionKeys(source, "t").session_id(key.thread_id) == session
    if source != other_source:
        assert SessionKeys(other_source, "t").session_id(key.thread_id) is None


def test_a_default_session_is_the_thread_of_its_id() -> None:
    assert SessionKeys("everthread").key("trip:1/{x}") == ThreadKey("trip:1/{x}")
    assert SessionKeys("memory", "ana").key("trip") == ThreadKey("~memory~trip", "ana")


@pytest.mark.parametrize("session_id", [None, "", 5, "x" * 600, "\ud800"])
async def test_a_session_without_a_valid_id_is_refused(session_id: Any) -> None:
    provider = EverthreadHistoryProvider(MemoryStore())
    message = Message("user", ["hello"])
    for call in (
        lambda: provider.get_messages(session_id),
        lambda: provider.save_messages(session_id, [message]),
        lambda: provider.save_messages(session_id, []),
        lambda: provider.clear(session_id),
        lambda: provider.delete(session_id),
    ):
        with pytest.raises(InvalidIdentifierError):
            await call()
    assert (await provider.list_sessions()).items == ()


async def test_sessions_are_listed_newest_first_in_pages_with_title_and_counts(store) -> None:
    provider = EverthreadHistoryProvider(store)
    other = EverthreadHistoryProvider(store, source_id="other")
    for number in range(5):
        await run(agent_with(ScriptedClient(), provider), f"  Trip\nnumber {number} ", f"s{number}")
        await other.save_messages(f"s{number}", [Message("user", ["x"])])
    found, cursor = [], None
    while True:
        page = await provider.list_sessions(limit=2, cursor=cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(session.session_id for session in found) == [f"s{number}" for number in range(5)]
    assert [session.updated_at for session in found] == sorted((s.updated_at for s in found), reverse=True)
    assert {(session.title, session.message_count) for session in found if session.session_id == "s3"} == {
        ("Trip number 3", 2)
    }
    assert "Trip" not in repr(found)


async def test_the_first_user_text_of_the_first_turn_is_the_title(store) -> None:
    provider = EverthreadHistoryProvider(store)
    picture = Message("user", [Content.from_data(PIXEL, media_type="image/png")])
    await provider.save_messages("trip", [Message("system", ["be brief"]), picture, Message("user", ["Rome " * 60])])
    await provider.save_messages("trip", [Message("user", ["Oslo"])])
    title = (await provider.list_sessions()).items[0].title
    assert title is not None
    assert title.startswith("Rome Rome")
    assert len(title) <= 80


async def test_a_later_message_never_titles_an_untitled_session(store) -> None:
    provider = EverthreadHistoryProvider(store)
    await provider.save_messages("trip", [Message("assistant", ["Hello"])])
    await provider.save_messages("trip", [Message("user", ["Oslo"])])
    assert (await provider.list_sessions()).items[0].title is None


async def test_clearing_drops_the_messages_and_keeps_the_session(store) -> None:
    provider = EverthreadHistoryProvider(store)
    agent = agent_with(ScriptedClient(), provider)
    await run(agent, "hello")
    assert await provider.clear("trip") == 2
    assert await provider.clear("trip") == 0
    assert await provider.clear("never seen") == 0
    assert [(found.title, found.message_count) for found in await provider.list_sessions()] == [("hello", 0)]
    await run(agent, "again")
    assert texts(await provider.get_messages("trip")) == [("user", "again"), ("assistant", "Done.")]


# What is stored


async def test_inputs_and_outputs_are_stored_as_asked(store) -> None:
    inputs = EverthreadHistoryProvider(store, source_id="inputs", store_outputs=False)
    outputs = EverthreadHistoryProvider(store, source_id="outputs", store_inputs=False)
    for _ in range(2):
        await run(agent_with(ScriptedClient(), inputs, outputs), "hello")
    assert texts(await inputs.get_messages("trip")) == [("user", "hello")] * 2
    assert texts(await outputs.get_messages("trip")) == [("assistant", "Done.")] * 2


class Notes(ContextProvider):
    async def before_run(self, *, context: Any, **others: Any) -> None:
        context.extend_messages(self, [Message("user", [f"note of {self.source_id}"])])


@pytest.mark.parametrize(("chosen", "kept"), [(None, ["note of a", "note of b"]), ({"b"}, ["note of b"])])
async def test_messages_of_other_providers_are_stored_on_request(store, chosen, kept) -> None:
    provider = EverthreadHistoryProvider(store, store_context_messages=True, store_context_from=chosen)
    await run(agent_with(ScriptedClient(), Notes("a"), Notes("b"), provider), "hello")
    assert [message.text for message in await provider.get_messages("trip")] == [*kept, "hello", "Done."]


async def test_a_turn_with_an_unstorable_message_is_refused_as_a_whole(store) -> None:
    provider = EverthreadHistoryProvider(store)
    with pytest.raises(InvalidMessageError):
        await provider.save_messages("trip", [Message("user", ["fine"]), Message("user", ["lone \ud800"])])
    assert await provider.get_messages("trip") == []


async def test_a_session_continues_after_a_message_over_the_limit() -> None:
    provider = EverthreadHistoryProvider(MemoryStore(max_message_bytes=1000))
    agent = agent_with(ScriptedClient(), provider)
    with pytest.raises(LimitExceededError):
        await run(agent, "x" * 2000)
    await run(agent, "hello")
    assert len(await provider.get_messages("trip")) == 2


async def test_a_row_that_is_no_message_is_logged_by_its_position(store, caplog: pytest.LogCaptureFixture) -> None:
    provider = EverthreadHistoryProvider(store)
    await provider.save_messages("trip", [Message("user", ["hello"])])
    await store.append(ThreadKey("trip"), [new_message({"type": "something else"})])
    assert [message.text for message in await provider.get_messages("trip")] == ["hello"]
    assert "position 1 of thread 'trip'" in caplog.text
    assert "something" not in caplog.text


async def test_a_whole_session_expires_as_its_retention_says() -> None:
    now = [1000.0]
    provider = EverthreadHistoryProvider(
        MemoryStore(clock=lambda: now[0]), retention=Retention(expire_after=timedelta(seconds=60))
    )
    await run(agent_with(ScriptedClient(), provider), "hello")
    now[0] += 61
    assert await provider.get_messages("trip") == []


# Owning the store


async def test_a_store_of_the_caller_stays_open(store) -> None:
    async with EverthreadHistoryProvider(store) as provider:
        await provider.save_messages("trip", [Message("user", ["hello"])])
    await provider.aclose()
    assert (await store.get_thread(ThreadKey("trip"))).count == 1


async def test_a_url_is_opened_at_first_use(tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    provider = EverthreadHistoryProvider(f"sqlite:///{path}")
    assert not path.exists()
    await run(agent_with(ScriptedClient(), provider), "hello")
    assert path.exists()
    log = path.with_name("threads.db-wal")
    assert log.exists()
    for _ in range(2):
        await provider.aclose()
        assert not log.exists()
    assert len(await provider.get_messages("trip")) == 2
    await provider.aclose()
    async with EverthreadHistoryProvider(f"sqlite:///{path}") as again:
        assert len(await again.get_messages("trip")) == 2


async def test_an_agent_that_is_given_only_a_url_needs_no_more(tmp_path: Path) -> None:
    for said in ("one", "two"):
        async with EverthreadHistoryProvider(f"sqlite:///{tmp_path / 'threads.db'}") as provider:
            await run(agent_with(ScriptedClient(), provider), said)
            kept = len(await provider.get_messages("trip"))
    assert kept == 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": -1},
        {"window": 1.5},
        {"window": True},
        {"retention": 5},
        {"source_id": ""},
        {"source_id": None},
        {"tenant": None},
        {"store": None},
        {"store": object()},
        {"store": "nothing://here"},
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, InvalidIdentifierError)):
        EverthreadHistoryProvider(**{"store": "memory:", **arguments})


@pytest.mark.parametrize("limit", [0, -1, None, "5"])
async def test_a_listing_of_nothing_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError):
        await EverthreadHistoryProvider("memory:").list_sessions(limit=limit)


def test_no_password_is_shown() -> None:
    provider = EverthreadHistoryProvider("redis://ana:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in repr(provider)
    assert "hunter2" not in str(vars(provider))


# Rows of others


async def test_rows_of_the_betas_are_read(store) -> None:
    row = {
        "type": "chat_message",
        "role": {"type": "role", "value": "user"},
        "contents": [{"type": "text", "text": "I am Ana"}],
        "additional_properties": {},
    }
    await store.append(ThreadKey("trip"), [new_message(row)])
    client = ScriptedClient()
    await run(agent_with(client, EverthreadHistoryProvider(store)), "Who am I?")
    assert client.requests == [[("user", "I am Ana"), ("user", "Who am I?")]]


async def test_store_and_provider_read_the_same_messages(store) -> None:
    await run(agent_with(ScriptedClient(), EverthreadHistoryProvider(store)), "hello")
    page = await store.read(ThreadKey("trip"))
    assert [message.format for message in page] == ["agent-framework"] * 2
    assert page[0].turn == page[1].turn == 0
    assert open_store("memory:").location == "memory:"


async def test_rows_of_the_frameworks_redis_provider_are_continued(
    plain_redis_server: Server, fresh_prefix: str
) -> None:
    # As agent-framework-redis 1.0.0b261022 writes them with key_format="legacy": RPUSH of json.dumps(to_dict()).
    call = Content.from_function_call("c1", "weather", arguments='{"city": "Rome"}')
    theirs = [
        Message("user", ["Weather?"], additional_properties={"x": "é"}),
        Message("assistant", [call]),
        Message("tool", [Content.from_function_result("c1", result="Sunny.")]),
        Message("assistant", ["Sunny."], author_name="TravelPlanner"),
    ]
    url = f"redis://127.0.0.1:{plain_redis_server.port}/0"
    async with Redis.from_url(url) as client:
        await client.rpush(f"{fresh_prefix}:trip", *(json.dumps(message.to_dict()) for message in theirs))
        async with open_store(url, prefix=fresh_prefix) as store:
            provider = EverthreadHistoryProvider(store)
            scripted = ScriptedClient()
            await run(agent_with(scripted, provider), "And now?")
            assert texts(scripted.seen[0]) == [*texts(theirs), ("user", "And now?")]
            assert [found.message_count for found in await provider.list_sessions()] == [6]
        rows = await client.lrange(f"{fresh_prefix}:trip", 0, -1)
    read_by_them = [Message.from_dict(json.loads(row)) for row in rows]
    assert [message.to_dict() for message in read_by_them[:4]] == [message.to_dict() for message in theirs]
    assert texts(read_by_them[4:]) == [("user", "And now?"), ("assistant", "Done.")]


# Without the framework


def test_each_name_reports_the_install_command() -> None:
    code = """
import sys
sys.modules["agent_framework"] = None
from everthread import ConfigurationError
from everthread.adapters import agent_framework as adapter
for name in ("EverthreadHistoryProvider", "SummaryWindow"):
    try:
        getattr(adapter, name)
    except ConfigurationError as error:
        assert "pip install 'everthread[agent-framework]'" in str(error), error
    else:
        raise AssertionError(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
