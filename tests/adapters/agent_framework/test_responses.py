"""The history provider behind Agent Framework's client of OpenAI's responses, on a server that keeps conversations."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import agent_framework
import pytest
from agent_framework import Agent, AgentResponse, AgentSession, Message
from agent_framework.openai import OpenAIChatClient

from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.engines.memory import MemoryStore
from tests.adapters.agents import book, weather
from tests.openai_server import Call
from tests.responses_server import ScriptedResponses, Thought, scripted_responses

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
has_reasoning = pytest.mark.skipif(
    version("agent-framework-openai").startswith("1.0."), reason="agent-framework-openai 1.0 sends no stored reasoning"
)
both_persistences = pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])


@cache
def client_of(url: str) -> OpenAIChatClient:
    return OpenAIChatClient(model="scripted", api_key="none", base_url=url)


async def talk(
    server: ScriptedResponses, store: Any, said: Any, session: AgentSession, *, stream: bool, **options: Any
) -> AgentResponse:
    provider = EverthreadHistoryProvider(store)
    agent = Agent(client=client_of(server.url), tools=[weather, book], context_providers=[provider], **options)
    if stream:
        return await agent.run(said, session=session, stream=True).get_final_response()
    return await agent.run(said, session=session)


def said_in(items: list[dict[str, Any]]) -> list[str]:
    """The texts of a conversation's messages."""
    found: list[str] = []
    for item in items:
        content = item.get("content") or []
        found += [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
    return found


async def texts(store: Any) -> list[str]:
    return [message.text for message in await EverthreadHistoryProvider(store).get_messages("trip") if message.text]


@both_ways
@both_persistences
async def test_a_service_that_keeps_the_conversation_gets_nothing_twice(stream: bool, per_call: bool) -> None:
    store, session = MemoryStore(), AgentSession(session_id="trip")
    if per_call and tuple(map(int, agent_framework.__version__.split(".")[:2])) < (1, 8):
        pytest.skip("before 1.8, per-call persistence is off where the service keeps the conversation")
    options = {"stream": stream, "require_per_service_call_history_persistence": per_call}
    with scripted_responses("a0", [Call("weather", {"city": "Rome"})], "a1", "a2") as server:
        for said in ("q0", "q1", "q2"):
            await talk(server, store, said, session, **options)
        assert server.refused == []
        assert said_in(server.conversations["resp_4"]) == ["q0", "a0", "q1", "a1", "q2", "a2"]
        assert said_in(server.requests[-1]["input"]) == ["q2"]
    assert await texts(store) == ["q0", "a0", "q1", "a1", "q2", "a2"]


@both_ways
async def test_a_process_with_only_the_session_id_sends_the_history_once(stream: bool) -> None:
    store = MemoryStore()
    with scripted_responses([Thought(sealed=None), Call("weather", {"city": "Rome"})], "a0", "a1", "a2") as server:
        await talk(server, store, "q0", AgentSession(session_id="trip"), stream=stream)
        later = AgentSession(session_id="trip")
        await talk(server, store, "q1", later, stream=stream)
        await talk(server, store, "q2", later, stream=stream)
        assert server.refused == []
        assert said_in(server.conversations["resp_4"]) == ["q0", "a0", "q1", "a1", "q2", "a2"]


@has_reasoning
@both_ways
@both_persistences
async def test_reasoning_that_led_to_nothing_is_never_sent(stream: bool, per_call: bool) -> None:
    store = MemoryStore()
    options = {"stream": stream, "require_per_service_call_history_persistence": per_call}
    options |= {"default_options": {"store": False}}
    replies = [[Thought()], [Thought(), "a1"], [Thought(), Call("weather", {"city": "Rome"})], [Thought(), "a2"]]
    with scripted_responses(*replies) as server:
        for number in range(4):
            await talk(server, store, f"q{number}", AgentSession(session_id="trip"), **options)
        assert server.refused == []
        kinds = [item.get("type", "message") for item in server.requests[-1]["input"]]
        assert kinds.count("reasoning") == 3
    assert await texts(store) == ["q0", "q1", "a1", "q2", "a2", "q3", "Done."]


@both_ways
async def test_an_approval_needs_only_the_session_id(stream: bool) -> None:
    store = MemoryStore()
    options = {"stream": stream, "default_options": {"store": False}}
    with scripted_responses([Thought(), Call("book", {"city": "Rome"})], "Booked.") as server:
        asked = await talk(server, store, "Book", AgentSession(session_id="trip"), **options)
        granted = Message("user", [asked.user_input_requests[0].to_function_approval_response(approved=True)])
        said = await talk(server, store, granted, AgentSession(session_id="trip"), **options)
        assert said.text == "Booked."
        await talk(server, store, "Thanks", AgentSession(session_id="trip"), **options)
        assert server.refused == []
