"""The framework's own OpenAI client on a server that refuses what OpenAI refuses, with the thread kept elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework.openai import OpenAIChatClient

from everthread import NewMessage, Retention, Store, ThreadKey, new_message
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore
from everthread.engines.memory import MemoryStore
from tests.beta import betas
from tests.beta.test_threads import STREAM, weather
from tests.openai_server import Call, ScriptedOpenAI, scripted_openai


def sent(server: ScriptedOpenAI) -> list[tuple[str, str]]:
    """Role and text of each message of the last request, without instructions."""
    found: list[tuple[str, str]] = []
    for message in server.requests[-1]["messages"]:
        content = message.get("content") or ""
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        found.append((message["role"], text))
    return [pair for pair in found if pair[0] not in {"system", "developer"}]


async def talk(server: ScriptedOpenAI, store: Store, said: str, *, stream: bool, **options: Any) -> str:
    """One run as a process of its own would make it: client, agent and thread are new."""
    client = OpenAIChatClient(model_id="scripted", api_key="none", base_url=server.url)
    who = betas.agent(client, lambda: EverthreadChatMessageStore(store, "trip", **options), tools=[betas.tool(weather)])
    return await betas.run(who, said, who.get_new_thread(), stream=stream)


@STREAM
async def test_a_conversation_with_tools_goes_on(store: Store, stream: bool) -> None:
    if stream and not betas.HAS_ROLES:
        pytest.skip("b260210 takes a streamed response's id for a thread of the service, and refuses any message store")
    calls = [Call("weather", {"city": "Rome"}), Call("weather", {"city": "Oslo"})]
    with scripted_openai(calls, "Both sunny.", "Ana.") as server:
        assert (await talk(server, store, "I am Ana", stream=stream)).endswith("Both sunny.")
        assert await talk(server, store, "Who am I?", stream=stream) == "Ana."
        assert server.refused == []
        assert [pair for pair in sent(server) if pair[1]] == [
            ("user", "I am Ana"),
            ("tool", "Sunny in Rome."),
            ("tool", "Sunny in Oslo."),
            ("assistant", "Both sunny."),
            ("user", "Who am I?"),
        ]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
async def test_a_trimmed_thread_is_accepted_by_the_service(store: Store, most: int) -> None:
    replies = [[Call("weather", {"city": "Rome"})], "Sunny."] * 4
    with scripted_openai(*replies) as server:
        for number in range(4):
            await talk(server, store, f"weather {number}?", stream=False, retention=Retention(max_messages=most))
        assert server.refused == []


def row(role: str, *contents: dict[str, Any]) -> NewMessage:
    return new_message({"type": "message", "role": role, "contents": list(contents)}, format="agent-framework")


CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_result", "call_id": "c1", "result": "Sunny."}
HELLO = {"type": "text", "text": "Hello."}
REQUEST = {"type": "function_approval_request", "id": "c1", "function_call": CALL}
REFUSED = {
    "a result at the head": [row("tool", RESULT), row("assistant", HELLO)],
    "a call at the end": [row("user", HELLO), row("assistant", CALL)],
    "a call that another turn follows": [row("user", HELLO), row("assistant", CALL), row("user", HELLO)],
    "a late result": [row("assistant", CALL), row("user", HELLO), row("tool", RESULT)],
    "an approval that nobody gave": [row("user", HELLO), row("assistant", CALL, REQUEST)],
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_service_accepts_the_history_of_a_trimmed_list(kind: str) -> None:
    store = MemoryStore()
    await store.append(ThreadKey("trip"), REFUSED[kind])
    with scripted_openai("Fine.") as server:
        assert await talk(server, store, "Next", stream=False) == "Fine."
        assert server.refused == []
    assert len(await EverthreadChatMessageStore(store, "trip").list_messages()) == len(REFUSED[kind]) + 2
