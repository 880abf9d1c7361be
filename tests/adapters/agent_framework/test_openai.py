"""The history provider behind Agent Framework's own OpenAI client, on a server that refuses what OpenAI refuses."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from agent_framework import Agent, AgentResponse, AgentSession, Content, Message
from agent_framework.openai import OpenAIChatCompletionClient

from everthread import Retention
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.engines.memory import MemoryStore
from tests.adapters.agents import book, weather
from tests.adapters.scripted import Call, ScriptedOpenAI, scripted_openai


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


OPTIONS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
PERSISTENCE = pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])


@cache
def client_of(url: str) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(model="scripted", api_key="none", base_url=url)


async def talk(
    server: ScriptedOpenAI, provider: EverthreadHistoryProvider, said: Any, *, stream: bool = False, **options: Any
) -> AgentResponse:
    """One run as a process of its own would make it: agent and session are new (the client keeps no state)."""
    client = client_of(server.url)
    session = options.pop("session", None) or AgentSession(session_id="trip")
    agent = Agent(client=client, tools=[weather, book], context_providers=[provider], **options)
    if stream:
        return await agent.run(said, session=session, stream=True).get_final_response()
    return await agent.run(said, session=session)


def sent(server: ScriptedOpenAI, request: int = -1) -> list[tuple[str, str]]:
    """Role and text of each message of a request.

    Early releases of 1.x send the tool calls of a message after its text, in a message of their own: it is left out.
    """
    found: list[tuple[str, str]] = []
    for message in server.requests[request]["messages"]:
        content = message.get("content") or ""
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        if text or message["role"] != "assistant":
            found.append((message["role"], text))
    return found


@OPTIONS
@PERSISTENCE
async def test_a_conversation_with_tools_continues_in_another_process(store, stream, per_call) -> None:
    options: dict[str, Any] = {"stream": stream, "require_per_service_call_history_persistence": per_call}
    with scripted_openai(
        ["Looking. ", Call("weather", {"city": "Rome"}), Call("weather", {"city": "Oslo"})], "Both sunny.", "Ana."
    ) as server:
        assert (await talk(server, EverthreadHistoryProvider(store), "I am Ana", **options)).text.endswith("sunny.")
        assert (await talk(server, EverthreadHistoryProvider(store), "Who am I?", **options)).text == "Ana."
        assert server.refused == []
        assert sent(server) == [
            ("user", "I am Ana"),
            ("assistant", "Looking. "),
            ("tool", "Sunny in Rome."),
            ("tool", "Sunny in Oslo."),
            ("assistant", "Both sunny."),
            ("user", "Who am I?"),
        ]
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    calls = [content for message in kept for content in message.contents if content.type == "function_call"]
    assert [call.arguments for call in calls] == ['{"city": "Rome"}', '{"city": "Oslo"}']
    assert (kept[-2].text, kept[-1].text) == ("Who am I?", "Ana.")


@OPTIONS
@PERSISTENCE
async def test_yes_four_times_keeps_eight_messages(memory, stream, per_call) -> None:
    with scripted_openai() as server:
        for _ in range(4):
            provider = EverthreadHistoryProvider(memory)
            await talk(server, provider, "yes", stream=stream, require_per_service_call_history_persistence=per_call)
        assert sent(server) == [("user", "yes"), ("assistant", "Done.")] * 3 + [("user", "yes")]
    kept = await EverthreadHistoryProvider(memory).get_messages("trip")
    assert [message.text for message in kept] == ["yes", "Done."] * 4


@OPTIONS
@PERSISTENCE
@pytest.mark.parametrize("approved", [True, False], ids=["granted", "refused"])
async def test_an_approval_is_asked_in_one_process_and_given_in_another(memory, stream, per_call, approved) -> None:
    options: dict[str, Any] = {"stream": stream, "require_per_service_call_history_persistence": per_call}
    session = AgentSession(session_id="trip")
    with scripted_openai([Call("book", {"city": "Rome"})], "As you say.", "You are welcome.") as server:
        asked = await talk(server, EverthreadHistoryProvider(memory), "Book Rome", session=session, **options)
        answer = asked.user_input_requests[0].to_function_approval_response(approved=approved)
        restored = AgentSession.from_dict(session.to_dict())
        given = Message("user", [answer])
        said = await talk(server, EverthreadHistoryProvider(memory), given, session=restored, **options)
        assert said.text == "As you say."
        assert (await talk(server, EverthreadHistoryProvider(memory), "Thanks", **options)).text == "You are welcome."
        assert server.refused == []
        results = [text for role, text in sent(server) if role == "tool"]
    assert len(results) == 1
    assert (results == ["Booked Rome."]) is approved


@OPTIONS
@PERSISTENCE
async def test_a_session_continues_after_a_run_broke_between_model_calls(memory, stream, per_call) -> None:
    options: dict[str, Any] = {"stream": stream, "require_per_service_call_history_persistence": per_call}
    with scripted_openai([Call("weather", {"city": "Rome"})], RuntimeError("overloaded"), "Here.") as server:
        with pytest.raises(Exception, match="overloaded"):
            await talk(server, EverthreadHistoryProvider(memory), "Weather?", **options)
        assert (await talk(server, EverthreadHistoryProvider(memory), "Hello?", **options)).text == "Here."
        assert server.refused == ["overloaded"]


@OPTIONS
async def test_an_image_reaches_the_model_again_from_the_history(memory, stream: bool) -> None:
    picture = Message("user", ["look", Content.from_data(b"\x89PNG\r\n\x1a\n\x00", media_type="image/png")])
    with scripted_openai("A cat.", "Still a cat.") as server:
        await talk(server, EverthreadHistoryProvider(memory), picture, stream=stream)
        await talk(server, EverthreadHistoryProvider(memory), "And now?", stream=stream)
        assert server.requests[1]["messages"][0] == server.requests[0]["messages"][0]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
async def test_trimming_leaves_a_history_that_services_accept(memory, limit: int) -> None:
    replies: list[Any] = []
    for _ in range(4):
        replies += [[Call("weather", {"city": "Rome"}), Call("weather", {"city": "Oslo"})], "Sunny."]
    with scripted_openai(*replies) as server:
        for _ in range(2):
            await talk(server, EverthreadHistoryProvider(memory, window=limit), "Weather?")
        for _ in range(2):
            await talk(server, EverthreadHistoryProvider(memory, retention=Retention(max_messages=limit)), "Weather?")
        assert server.refused == []
        assert len(server.requests) == 8
