"""A transcript is compared with enough of the stored thread, whatever the window."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentSession, Message

from everthread.adapters.agent_framework import EverthreadHistoryProvider, SummaryWindow
from everthread.engines.memory import MemoryStore
from everthread.operations.summarize import SummaryPolicy
from everthread.testing import FaultyStore
from tests.adapters.agents import agent_with, run, weather
from tests.adapters.scripted import Call, ScriptedClient


@pytest.mark.parametrize("window", [0, 1, 3, "a summary"], ids=str)
@pytest.mark.parametrize("shows_tools", [False, True])
async def test_a_transcript_is_recognized_behind_a_window_shorter_than_a_turn(store, window, shows_tools) -> None:
    def ask(number: int) -> list[Any]:
        return [[Call("weather", {"city": f"{number}-{at}"})] for at in range(12)]

    client = ScriptedClient("a0", *ask(1), "a1", "a2", *ask(3), "a3", "a4")
    if window == "a summary":
        window = SummaryWindow(SummaryPolicy(max_messages=4, keep_turns=1), client=ScriptedClient())
    agent = agent_with(client, EverthreadHistoryProvider(store, window=window), tools=[weather])
    shown: list[Message] = []
    for number in range(5):
        shown.append(Message("user", [f"q{number}"]))
        copies = [Message(message.role, list(message.contents)) for message in shown]
        answer = await agent.run(copies, session=AgentSession(session_id="trip"))
        shown += [message for message in answer.messages if shows_tools or message.text]
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert [message.text for message in kept if message.role != "tool" and message.text] == [
        f"{role}{number}" for number in range(5) for role in "qa"
    ]
    assert [text for role, text in client.requests[-1] if role == "user"] == [f"q{number}" for number in range(5)]


async def test_only_an_unknown_transcript_reads_beyond_the_window() -> None:
    watched = FaultyStore(MemoryStore(), [])
    provider = EverthreadHistoryProvider(watched, window=2)
    agent = agent_with(ScriptedClient(), provider)
    for number in range(4):
        await run(agent, f"question {number}")
    watched.made.clear()
    await run(agent, [*await provider.get_messages("trip"), Message("user", ["more"])])
    assert watched.made.count("read_last") == 1
    watched.made.clear()
    await run(agent, [Message("user", ["x"]), Message("assistant", ["y"]), Message("user", ["z"])])
    assert watched.made.count("read_last") == 2
