"""A summary window in runs of Agent Framework's own `Agent`, on every engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from agent_framework import AgentSession

from everthread import ConfigurationError, ThreadKey
from everthread.adapters.agent_framework import EverthreadHistoryProvider, SummaryWindow
from everthread.operations.summarize import SUMMARY_DOCUMENT, SummaryPolicy, get_summary
from tests.adapters.agents import agent_with, run, texts, weather
from tests.adapters.scripted import Call, ScriptedClient

KEY = ThreadKey("trip")
SMALL = SummaryPolicy(max_messages=4, keep_turns=1)

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
both_persistences = pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])


def said(client: ScriptedClient) -> list[tuple[str, str]]:
    """What the last request held."""
    return client.requests[-1]


@both_ways
async def test_the_model_gets_the_summary_and_the_recent_turns(store, stream) -> None:
    summaries = ScriptedClient("Ana likes Rome.")
    provider = EverthreadHistoryProvider(store, window=SummaryWindow(SMALL, client=summaries))
    client = ScriptedClient()
    agent = agent_with(client, provider)
    for words in ("I am Ana", "I like Rome", "Thanks", "And now?"):
        await run(agent, words, stream=stream)
    assert said(client) == [
        ("assistant", "Summary of the conversation so far:\nAna likes Rome."),
        ("user", "Thanks"),
        ("assistant", "Done."),
        ("user", "And now?"),
    ]
    assert len(summaries.requests) == 1
    assert "user: I am Ana" in said(summaries)[0][1]
    assert len(await provider.get_messages("trip")) == 8


async def test_without_a_client_of_its_own_it_asks_the_agents(store) -> None:
    client = ScriptedClient("one", "two", "three", "Summary.")
    provider = EverthreadHistoryProvider(store, window=SummaryWindow(SMALL))
    for words in ("a", "b", "c"):
        await run(agent_with(client, provider), words)
    summary = await get_summary(store, KEY)
    assert summary is not None
    assert (summary.text, summary.stop) == ("Summary.", 4)


@both_ways
@both_persistences
async def test_no_model_ever_gets_a_tool_result_without_its_call(store, stream, per_call) -> None:
    # The scripted client refuses what a service would refuse.
    replies: list[Any] = []
    for number in range(6):
        replies += [[Call("weather", {"city": f"c{number}"})], f"Sunny {number}."]
    client = ScriptedClient(*replies)
    window = SummaryWindow(SummaryPolicy(max_messages=5, keep_turns=1), client=ScriptedClient(then="Sunny so far."))
    provider = EverthreadHistoryProvider(store, window=window)
    agent = agent_with(client, provider, tools=[weather], require_per_service_call_history_persistence=per_call)
    for number in range(6):
        assert await run(agent, f"Weather {number}?", stream=stream) == f"Sunny {number}."
    assert any("Sunny so far." in text for _, text in said(client))
    kept = await provider.get_messages("trip")
    assert [text for role, text in texts(kept) if role == "user"] == [f"Weather {number}?" for number in range(6)]
    assert not any("Sunny so far." in message.text for message in kept)


async def test_a_failed_summary_never_fails_the_run(store, caplog) -> None:
    summaries = ScriptedClient(OSError("hush"), "  ", "Ana.")
    provider = EverthreadHistoryProvider(store, window=SummaryWindow(SMALL, client=summaries))
    client = ScriptedClient()
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            assert await run(agent_with(client, provider), f"secret {number}") == "Done."
    assert len(said(client)) == 7
    assert await get_summary(store, KEY) is None
    assert "tries again" in caplog.text
    assert "hush" not in caplog.text
    assert "secret" not in caplog.text
    assert await run(agent_with(client, provider), "e") == "Done."
    summary = await get_summary(store, KEY)
    assert summary is not None
    assert summary.text == "Ana."


async def test_a_summary_that_takes_too_long_does_not_hold_the_run(store) -> None:
    class Hanging(ScriptedClient):
        async def _response(self, messages: Sequence[Any]) -> Any:
            await asyncio.Event().wait()

    provider = EverthreadHistoryProvider(store, window=SummaryWindow(SMALL, client=Hanging(), timeout=0.01))
    for number in range(3):
        assert await run(agent_with(ScriptedClient(), provider), str(number)) == "Done."
    assert len(await provider.get_messages("trip")) == 6


async def test_a_summary_that_cannot_be_read_hands_over_all_messages(store) -> None:
    client = ScriptedClient()
    provider = EverthreadHistoryProvider(store, window=SummaryWindow(SMALL, client=ScriptedClient()))
    await run(agent_with(client, provider), "a")
    await store.put_document(KEY, SUMMARY_DOCUMENT, b"{}")
    await run(agent_with(client, provider), "b")
    assert said(client) == [("user", "a"), ("assistant", "Done."), ("user", "b")]


async def test_a_replayed_transcript_is_not_stored_again(store) -> None:
    provider = EverthreadHistoryProvider(store, window=SummaryWindow(SMALL, client=ScriptedClient("Ana.")))
    agent = agent_with(ScriptedClient(), provider)
    for words in ("a", "b", "c"):
        await run(agent, words)
    await agent.run([*await provider.get_messages("trip"), "d"], session=AgentSession(session_id="trip"))
    kept = texts(await provider.get_messages("trip"))
    assert [text for role, text in kept if role == "user"] == ["a", "b", "c", "d"]


async def test_a_cleared_session_has_no_summary(store) -> None:
    client = ScriptedClient()
    provider = EverthreadHistoryProvider(store, window=SummaryWindow(SMALL, client=ScriptedClient("Ana.")))
    for words in ("a", "b", "c"):
        await run(agent_with(client, provider), words)
    await provider.clear("trip")
    assert await store.list_documents(KEY) == ()
    await run(agent_with(client, provider), "d")
    assert said(client) == [("user", "d")]


@pytest.mark.parametrize("policy", [SummaryPolicy(), SummaryPolicy(keep_turns=2), 20, None])
def test_a_window_without_a_limit_is_refused(policy) -> None:
    with pytest.raises(ConfigurationError, match="max_messages"):
        SummaryWindow(policy)


@pytest.mark.parametrize("window", [-1, 2.5, "20", SMALL])
def test_a_window_of_another_kind_is_refused(window) -> None:
    with pytest.raises(ConfigurationError, match="window"):
        EverthreadHistoryProvider("memory:", window=window)
