"""Sessions of the OpenAI Agents SDK on every engine, with a server that refuses what OpenAI refuses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from agents import Agent, OpenAIResponsesModel, RunConfig, RunContextWrapper, Runner, Session, function_tool
from agents.memory import OpenAIResponsesCompactionSession, SessionSettings
from agents.memory.session import is_openai_responses_compaction_aware_session
from openai import AsyncOpenAI

from everthread import (
    ConfigurationError,
    InvalidMessageError,
    Retention,
    Store,
    ThreadKey,
    UnsupportedError,
    open_store,
)
from everthread.adapters.openai_agents import EverthreadSession
from everthread.messages.codec import new_message
from everthread.testing import Fault, FaultyStore
from everthread.testing.guarantees.event_loops import LOOPS, run
from tests.openai_server import Call
from tests.places import empty_place
from tests.responses_server import ScriptedResponses, Thought, scripted_responses

KEY = ThreadKey("trip")
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "Sunny"}
WEATHER = Call("weather", {"city": "Rome"})


@pytest.fixture
def server() -> Iterator[ScriptedResponses]:
    with scripted_responses() as running:
        yield running


@pytest.fixture
async def memory() -> AsyncIterator[Store]:
    """A store for tests of what engines do not affect."""
    async with open_store("memory:") as opened:
        yield opened


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


def agent_of(server: ScriptedResponses) -> Agent[Any]:
    client = AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0)
    return Agent(name="Planner", model=OpenAIResponsesModel("scripted", client), tools=[weather])


async def ask(server: ScriptedResponses, session: Any, text: str, **options: Any) -> str:
    config = RunConfig(tracing_disabled=True, **options.pop("config", {}))
    result = await Runner.run(agent_of(server), text, session=session, run_config=config, **options)
    return str(result.final_output)


def said(text: str, role: str = "user") -> Any:
    return {"role": role, "content": text}


def kinds(items: list[Any]) -> list[str]:
    return [item.get("type", item.get("role")) for item in items]


async def test_the_agent_continues_with_only_the_session_id(store: Store, server: ScriptedResponses) -> None:
    server.script.replies = [[Thought(), WEATHER], "It is sunny."]
    assert await ask(server, EverthreadSession("trip", store), "Rome?") == "It is sunny."
    stored = await EverthreadSession("trip", store).get_items()
    assert kinds(stored) == ["user", "reasoning", "function_call", "function_call_output", "message"]
    assert await ask(server, EverthreadSession("trip", store), "And Milan?") == "Done."
    assert server.refused == []
    assert [item.get("type", item.get("role")) for item in server.requests[-1]["input"]][:5] == kinds(stored)
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert (thread.title, thread.count) == ("Rome?", 7)


async def test_a_streamed_run_is_stored(memory: Store, server: ScriptedResponses) -> None:
    server.script.replies = [[WEATHER], "Sunny."]
    config = RunConfig(tracing_disabled=True)
    session = EverthreadSession("trip", memory)
    result = Runner.run_streamed(agent_of(server), "Rome?", session=session, run_config=config)
    async for _ in result.stream_events():
        pass
    assert kinds(await session.get_items()) == ["user", "function_call", "function_call_output", "message"]


async def test_items_come_back_unchanged_in_order(store: Store) -> None:
    session = EverthreadSession("trip", store)
    assert isinstance(session, Session)
    items: list[Any] = [said("Grüße 🌍"), {"type": "compaction", "encrypted_content": "x", "n": 2**60, "f": 1.5}, CALL]
    await session.add_items(items)
    await session.add_items([])
    await session.add_items([OUTPUT, said("yes"), said("yes")])
    assert await session.get_items() == [*items, OUTPUT, said("yes"), said("yes")]
    assert await session.get_items(3) == [OUTPUT, said("yes"), said("yes")]
    assert await session.get_items(limit=0) == []
    assert await session.get_items(2**31 - 1) == await session.get_items(100) == await session.get_items()


async def test_items_that_json_alters_are_refused(memory: Store) -> None:
    session = EverthreadSession("trip", memory)
    for unfit in (float("nan"), b"x", "\ud800"):
        with pytest.raises(InvalidMessageError):
            await session.add_items([said("fine"), {"role": "user", "content": unfit}])
    assert await session.get_items() == []


async def test_pop_deletes_exactly_the_newest_item(store: Store) -> None:
    session = EverthreadSession("trip", store)
    other = CALL | {"call_id": "c2"}
    items: list[Any] = [said("Rome?"), CALL, other, OUTPUT, OUTPUT | {"call_id": "c2"}]
    await session.add_items(items)
    while items:
        assert await session.pop_item() == items.pop()
        assert await session.get_items() == items
    assert await session.pop_item() is None


async def test_pop_finds_a_call_far_from_its_output(store: Store) -> None:
    session = EverthreadSession("trip", store)
    between = [said(str(number)) for number in range(150)]
    await session.add_items([CALL, *between, OUTPUT])
    assert await session.pop_item() == OUTPUT
    assert await session.get_items() == [CALL, *between]


async def test_concurrent_pops_return_each_item_once(store: Store) -> None:
    sessions = [EverthreadSession("trip", store) for _ in range(4)]
    await sessions[0].add_items([said(str(number)) for number in range(8)])
    popped = await asyncio.gather(*(session.pop_item() for session in sessions))
    left = await sessions[0].get_items()
    assert len(left) == 4
    assert sorted(item["content"] for item in [*popped, *left]) == list("01234567")


async def test_a_cleared_session_keeps_its_thread(store: Store) -> None:
    session = EverthreadSession("trip", store)
    await session.clear_session()
    assert await store.get_thread(KEY) is None
    await session.add_items([said("Hello"), CALL, OUTPUT])
    await store.put_document(KEY, "note", b"1")
    await session.clear_session()
    assert await session.get_items() == []
    assert await store.get_document(KEY, "note") is not None
    await session.add_items([said("Again")])
    assert await session.get_items() == [said("Again")]


async def test_two_writers_lose_and_split_nothing(store: Store) -> None:
    async def write(name: str) -> None:
        session = EverthreadSession("trip", store)
        for number in range(5):
            await session.add_items([said(f"{name}{number}"), said(f"{name}{number} too")])

    await asyncio.gather(write("a"), write("b"))
    texts = [item["content"] for item in await EverthreadSession("trip", store).get_items()]
    assert sorted(texts[::2]) == sorted(f"{name}{number}" for name in "ab" for number in range(5))
    assert texts[1::2] == [f"{text} too" for text in texts[::2]]


async def test_a_model_gets_whole_responses_within_the_limit(memory: Store, server: ScriptedResponses) -> None:
    session = EverthreadSession("trip", memory)
    server.script.replies = [[Thought(), WEATHER, Call("weather", {"city": "Milan"})], [Thought(), "Sunny."]]
    await ask(server, session, "Rome?")
    for limit in range(1, 9):
        limited = EverthreadSession("trip", memory, session_settings={"limit": limit})
        assert len(await limited.get_items()) <= limit
        await ask(server, limited, "And now?")
        assert server.refused == []
        while (await session.get_items(1))[0].get("content") != "And now?":
            await session.pop_item()
        await session.pop_item()


async def test_retention_leaves_a_valid_conversation(memory: Store, server: ScriptedResponses) -> None:
    for most in range(1, 8):
        session = EverthreadSession(f"trip{most}", memory, retention=Retention(max_messages=most))
        server.script.replies = [[Thought(), WEATHER], [Thought(), "Sunny."]]
        await ask(server, session, "Rome?")
        await ask(server, session, "And now?")
        assert server.refused == []


async def test_settings_and_limits_follow_the_sdk(memory: Store, server: ScriptedResponses) -> None:
    session = EverthreadSession("trip", memory, session_settings=SessionSettings(limit=2))
    assert session.session_settings == SessionSettings(limit=2)
    assert EverthreadSession("trip", memory).session_settings == SessionSettings()
    await session.add_items([said(str(number)) for number in range(5)])
    assert await session.get_items() == [said("3"), said("4")]
    assert len(await session.get_items(4)) == 4
    await ask(server, session, "5", config={"session_settings": SessionSettings(limit=3)})
    assert [item["content"] for item in server.requests[-1]["input"]] == ["2", "3", "4", "5"]
    with pytest.raises(ConfigurationError, match="limit"):
        await session.get_items(-1)


async def test_the_run_context_names_the_tenant(memory: Store, server: ScriptedResponses) -> None:
    session = EverthreadSession("trip", memory, tenant=lambda wrapper: wrapper.context)
    for tenant in ("ada", "bob"):
        await ask(server, session, f"I am {tenant}", context=tenant)
    assert [len(request["input"]) for request in server.requests] == [1, 1]
    items = await session.get_items(wrapper=RunContextWrapper("ada"))
    assert items[0] == said("I am ada")
    with pytest.raises(ConfigurationError, match="wrapper"):
        await session.get_items()


async def test_the_sdk_compacts_the_session(memory: Store, server: ScriptedResponses) -> None:
    session = EverthreadSession("trip", memory)
    wrapped = OpenAIResponsesCompactionSession("trip", session, client=AsyncOpenAI(base_url=server.url, api_key="none"))
    assert is_openai_responses_compaction_aware_session(wrapped)
    await ask(server, wrapped, "Rome?")
    await ask(server, wrapped, "And Milan?")
    assert kinds(await session.get_items()) == ["user", "message"] * 2
    summary: Any = {"type": "compaction", "encrypted_content": "sealed"}
    await wrapped.clear_session()
    await wrapped.add_items([summary])
    assert await wrapped.get_items() == await session.get_items() == [summary]


COMPACTION: Any = {"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"}


class Compactor:
    """A client with the one call of the service that compacts."""

    def __init__(self, during: Callable[[], Awaitable[None]] | None = None) -> None:
        self.responses = self
        self._during = during

    async def compact(self, **_: Any) -> Any:
        if self._during is not None:
            await self._during()
        return SimpleNamespace(output=[COMPACTION], usage=None)


def compacting(session: EverthreadSession, **options: Any) -> OpenAIResponsesCompactionSession:
    client: Any = Compactor(**options)
    return OpenAIResponsesCompactionSession("trip", session, client=client, should_trigger_compaction=lambda _: True)


async def test_a_compaction_replaces_all_items_in_one_append(store: Store, server: ScriptedResponses) -> None:
    # Every other change fails, as if the process were killed before it.
    plan = [Fault.FAIL_BEFORE] * 20
    faulty = FaultyStore(store, plan, calls=["truncate", "delete_thread", "update_thread"])
    expires = Retention(expire_after=timedelta(days=1))
    session = EverthreadSession("trip", faulty, retention=expires)
    await ask(server, session, "Rome?")
    await ask(server, compacting(session), "And Milan?")
    assert await session.get_items() == [COMPACTION]
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert (thread.count, thread.next_seq) == (1, 5)
    assert thread.expires_ms == thread.updated_ms + 86_400_000
    await session.add_items([said("More"), CALL, OUTPUT])
    plain = compacting(EverthreadSession("trip", faulty))
    await plain.run_compaction({"force": True, "compaction_mode": "input"})
    assert await session.get_items() == [COMPACTION]
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert thread.expires_ms == thread.updated_ms + 86_400_000


async def test_a_compaction_drops_no_item_of_another_writer(memory: Store, server: ScriptedResponses) -> None:
    session = EverthreadSession("trip", memory)

    async def append() -> None:
        await EverthreadSession("trip", memory).add_items([said("Theirs")])

    await ask(server, compacting(session, during=append), "Rome?")
    assert kinds(await session.get_items()) == ["user", "message", "user"]


async def test_an_output_without_its_call_is_replaced_too(memory: Store) -> None:
    session = EverthreadSession("trip", memory)
    await session.add_items([said("Rome?"), CALL])
    client: Any = Compactor()
    wrapped = OpenAIResponsesCompactionSession("trip", session, client=client)
    await wrapped._replace_underlying_session_items(output_items=[OUTPUT, said("x")], previous_items=[])  # type: ignore[list-item]
    assert await session.get_items(10) == [OUTPUT, said("x")]


async def test_messages_of_other_formats_become_items(memory: Store) -> None:
    asked = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]}
    asked["tool_calls"][0]["function"] = {"name": "weather", "arguments": "{}"}  # type: ignore[index]
    chat: list[Any] = [said("Rome?"), asked, {"role": "tool", "tool_call_id": "c1", "content": "Sunny"}]
    await memory.append(KEY, [new_message(each, format="chat-completions") for each in chat])
    session = EverthreadSession("trip", memory)
    assert await session.get_items() == [said("Rome?"), CALL, OUTPUT]
    assert await session.get_items(1) == [OUTPUT]


async def test_reasoning_alone_becomes_no_item(memory: Store) -> None:
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}]}
    await memory.append(KEY, [new_message(thought, format="anthropic")])
    assert await EverthreadSession("trip", memory).get_items() == []


async def test_contents_without_a_form_are_refused(memory: Store) -> None:
    unknown = {"role": "user", "content": [{"type": "hologram", "depth": 3}]}
    await memory.append(KEY, [new_message(unknown, format="chat-completions")])
    with pytest.raises(UnsupportedError, match="position 0"):
        await EverthreadSession("trip", memory).get_items()


KILLED = """
import asyncio, os, signal, sys
from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI
from everthread.adapters.openai_agents import EverthreadSession

@function_tool
def weather(city: str) -> str:
    '''The weather of a city.'''
    os.kill(os.getpid(), signal.SIGKILL)
    return ""

model = OpenAIResponsesModel("scripted", AsyncOpenAI(base_url=sys.argv[1], api_key="none"))
agent = Agent(name="Planner", model=model, tools=[weather])
session = EverthreadSession("trip", sys.argv[2])
asyncio.run(Runner.run(agent, "Rome?", session=session, run_config=RunConfig(tracing_disabled=True)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_a_run_killed_in_a_tool_is_continued(
    engine: str, server: ScriptedResponses, request: pytest.FixtureRequest
) -> None:
    url = empty_place(request, engine)
    server.script.replies = [[Thought(), WEATHER]]
    command = [sys.executable, "-c", KILLED, server.url, url]
    assert (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == -9
    session = EverthreadSession("trip", url)
    assert (await session.get_items())[0] == said("Rome?")
    assert await ask(server, session, "Well?") == "Done."
    assert server.refused == []
    await session.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "redis", "postgres", "objects"])
async def test_each_engine_stores_a_run(engine: str, server: ScriptedResponses, request: pytest.FixtureRequest) -> None:
    async with open_store(empty_place(request, engine)) as store:
        session = EverthreadSession("trip", store)
        server.script.replies = [[Thought(), WEATHER], "Sunny."]
        await ask(server, session, "Rome?")
        assert await session.pop_item() is not None
        assert await session.pop_item() == {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": "Sunny in Rome.",
        }
        assert kinds(await session.get_items()) == ["user", "reasoning", "function_call"]
        await ask(server, session, "Again?")
        await session.clear_session()
        assert await session.get_items() == []
        assert server.refused == []


@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
def test_a_session_by_url_works_in_every_loop(engine: str, loop: str, request: pytest.FixtureRequest) -> None:
    url = empty_place(request, engine)
    session = EverthreadSession("trip", url)

    async def talk(number: int) -> int:
        await session.add_items([said(str(number))])
        return len(await session.get_items())

    assert [run(talk(number), LOOPS[loop]) for number in range(3)] == [1, 2, 3]


async def test_sessions_with_one_url_share_a_store(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    one, two = EverthreadSession("a", url), EverthreadSession("b", url)
    assert one.store is two.store
    await one.add_items([said("Hello")])
    await one.aclose()
    assert await two.get_items() == []
    await two.aclose()
    with pytest.raises(ConfigurationError, match="Store or the URL"):
        EverthreadSession("a", 7)  # type: ignore[arg-type]


def test_the_package_needs_no_framework_until_used() -> None:
    code = "import sys, everthread.adapters.openai_agents as a; assert 'agents' not in sys.modules; print(a.__all__)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
