"""The model searches the messages of its own session."""

from __future__ import annotations

import agent_framework
import pytest
from agent_framework import Message

from everthread.adapters.agent_framework import EverthreadHistoryProvider, search_tool
from tests.adapters.agents import agent_with, run
from tests.adapters.scripted import Call, ScriptedClient


def answers(client: ScriptedClient) -> list[str]:
    return [str(c.result) for message in client.seen[-1] for c in message.contents if c.type == "function_result"]


if_merged = pytest.mark.skipif(
    not hasattr(agent_framework._sessions.PerServiceCallHistoryPersistingMiddleware, "_merge_provider_context"),
    reason="early releases of 1.x take no tools of providers with a save for each model call",
)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("per_call", [False, pytest.param(True, marks=if_merged)], ids=["per-run", "per-call"])
async def test_the_model_finds_messages_before_its_window(store, stream: bool, per_call: bool) -> None:
    provider = EverthreadHistoryProvider(store, window=2, search_tool=True)
    await provider.save_messages("other", [Message("user", ["The secret train leaves at nine."])])
    await provider.save_messages("trip", [Message("user", ["My train leaves at SEVEN."])])
    for number in range(3):
        await provider.save_messages("trip", [Message("user", [f"Something else {number}"])])
    client = ScriptedClient([Call("search_history", {"query": "seven Train"})], "At seven.")
    options = {"require_per_service_call_history_persistence": per_call}
    assert await run(agent_with(client, provider, **options), "When?", stream=stream) == "At seven."
    (found,) = answers(client)
    assert found.startswith("[0, user")
    assert found.endswith("My train leaves at SEVEN.")


async def test_a_search_is_bounded_and_finds_the_newest_first(store, monkeypatch) -> None:
    monkeypatch.setattr(search_tool, "MOST_MESSAGES", 40)
    monkeypatch.setattr(search_tool, "PAGE", 10)
    provider = EverthreadHistoryProvider(store, window=2, search_tool=True)
    old = Message("user", ["only here"])
    await provider.save_messages("trip", [old, *(Message("user", [f"train {n} " + "x" * 2000]) for n in range(60))])
    queries = ["train", "only here", "", "nothing of this"]
    client = ScriptedClient([Call("search_history", {"query": each}, f"c{n}") for n, each in enumerate(queries)])
    await run(agent_with(client, provider), "When?")
    found, *others = answers(client)
    assert [line.split()[5] for line in found.splitlines()] == [str(number) for number in range(59, 49, -1)]
    assert len(found) < 10 * 600
    assert all(other.startswith("Nothing found") for other in others)
