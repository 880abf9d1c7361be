"""A conversation that one framework recorded is continued by another, on a server that refuses what OpenAI refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from agent_framework import Agent as FrameworkAgent
from agent_framework import AgentSession, Content, Message
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from agents import Agent, ModelSettings, OpenAIResponsesModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI

from everthread import Store, ThreadKey
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.openai_agents import EverthreadSession
from everthread.engines.memory import MemoryStore
from everthread.operations.fork import fork, plan
from tests.adapters.agents import weather
from tests.openai_server import Call, scripted_openai
from tests.responses_server import ScriptedResponses, Thought, scripted_responses

KEY, COPY = ThreadKey("trip"), ThreadKey("copy")
ROME = Call("weather", {"city": "Rome"})
PICTURE = b"\x89PNG"
INLINE = "data:image/png;base64,iVBORw=="


@pytest.fixture
def server() -> Iterator[ScriptedResponses]:
    with scripted_responses([Thought(), ROME], "It is sunny.", "Take a hat.") as running:
        yield running


@pytest.fixture(name="weather_tool")
def _weather_tool() -> Any:
    @function_tool(name_override="weather")
    def found(city: str) -> str:
        """The weather of a city."""
        return f"Sunny in {city}."

    return found


async def ask_framework(server: ScriptedResponses, store: Store, session_id: str, *contents: Any) -> str:
    client = OpenAIChatClient(model="scripted", api_key="none", base_url=server.url)
    agent = FrameworkAgent(
        client=client,
        name="planner",
        tools=[weather],
        context_providers=[EverthreadHistoryProvider(store)],
        default_options={"store": False},
    )
    result = await agent.run(Message("user", list(contents)), session=AgentSession(session_id=session_id))
    return result.text


async def ask_agents(server: ScriptedResponses, store: Store, session_id: str, said: Any, tool: Any) -> str:
    client = AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0)
    settings = ModelSettings(store=False, response_include=["reasoning.encrypted_content"])
    agent = Agent(name="Planner", model=OpenAIResponsesModel("scripted", client), tools=[tool], model_settings=settings)
    session = EverthreadSession(session_id, store)
    result = await Runner.run(agent, said, session=session, run_config=RunConfig(tracing_disabled=True))
    return str(result.final_output)


def outline(items: list[dict[str, Any]]) -> list[str]:
    """The kinds of the items of a request, and the texts and images of messages."""
    found: list[str] = []
    for item in items:
        content = item.get("content")
        if item.get("type", "message") != "message":
            found.append(item["type"])
        elif isinstance(content, str):
            found.append(content)
        else:
            found += [part.get("text") or part["image_url"] for part in content]
    return found


CONTINUED = ["Weather?", INLINE, "reasoning", "function_call", "function_call_output", "It is sunny.", "And now?"]


@pytest.mark.parametrize("is_forked", [True, False])
async def test_the_agents_sdk_continues_a_conversation_of_agent_framework(
    server: ScriptedResponses, weather_tool: Any, is_forked: bool
) -> None:
    async with MemoryStore() as store:
        image = Content.from_data(PICTURE, media_type="image/png")
        assert await ask_framework(server, store, "trip", "Weather?", image) == "It is sunny."
        if is_forked:
            done = await fork(store, KEY, COPY, format="openai-responses")
            assert {lost.aspect for lost in done.lost} <= {"author", "message-id", "metadata", "facts"}
            assert {message.format for message in await store.read(COPY)} == {"openai-responses"}
        assert (
            await ask_agents(server, store, "copy" if is_forked else "trip", "And now?", weather_tool) == "Take a hat."
        )
    assert server.refused == []
    assert outline(server.requests[-1]["input"]) == CONTINUED
    thought = server.requests[-1]["input"][-5]
    assert (thought["id"][:3], thought["encrypted_content"], thought["summary"][0]["text"]) == ("rs_", "sealed", "hm")


@pytest.mark.parametrize("is_forked", [True, False])
async def test_agent_framework_continues_a_conversation_of_the_agents_sdk(
    server: ScriptedResponses, weather_tool: Any, is_forked: bool
) -> None:
    async with MemoryStore() as store:
        image = {"type": "input_image", "image_url": INLINE, "detail": "auto"}
        said = [{"role": "user", "content": [{"type": "input_text", "text": "Weather?"}, image]}]
        assert await ask_agents(server, store, "trip", said, weather_tool) == "It is sunny."
        if is_forked:
            await fork(store, KEY, COPY, format="agent-framework")
        assert await ask_framework(server, store, "copy" if is_forked else "trip", "And now?") == "Take a hat."
    assert server.refused == []
    assert outline(server.requests[-1]["input"]) == CONTINUED
    assert server.requests[-1]["input"][-5]["encrypted_content"] == "sealed"


async def test_a_client_of_chat_completions_continues_a_conversation(
    server: ScriptedResponses, weather_tool: Any
) -> None:
    async with MemoryStore() as store:
        await ask_agents(server, store, "trip", "Weather?", weather_tool)
        planned = await plan(store, KEY, COPY, format="chat-completions")
        done = await fork(store, KEY, COPY, format="chat-completions")
        assert done == planned
        assert "sealed-openai" in {lost.aspect for lost in done.lost}
        with scripted_openai("Take a hat.") as chat:
            client = OpenAIChatCompletionClient(model="scripted", api_key="none", base_url=f"{chat.url}")
            agent = FrameworkAgent(client=client, context_providers=[EverthreadHistoryProvider(store)])
            assert (await agent.run("And now?", session=AgentSession(session_id="copy"))).text == "Take a hat."
        roles = [message["role"] for message in chat.requests[-1]["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant", "user"]
