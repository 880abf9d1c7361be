"""The framework's own `CompactionProvider` over stored sessions: the model gets less, the store keeps everything."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import (
    AgentSession,
    CompactionProvider,
    Message,
    SlidingWindowStrategy,
    SummarizationStrategy,
    ToolResultCompactionStrategy,
)

from everthread import ConfigurationError, ThreadKey
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.agent_framework.compaction import COMPACTION_DOCUMENT
from everthread.engines.memory import MemoryStore
from everthread.testing.faults import FaultyStore
from tests.adapters.agents import agent_with, run, weather
from tests.adapters.scripted import Call, ScriptedClient

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def compacting(strategy: Any) -> CompactionProvider:
    return CompactionProvider(after_strategy=strategy, history_source_id="everthread")


async def texts(store: Any) -> list[str]:
    return [message.text for message in await EverthreadHistoryProvider(store).get_messages("trip")]


@both_ways
async def test_excluded_messages_reach_no_later_model(store, stream: bool) -> None:
    client = ScriptedClient(*(f"a{number}" for number in range(5)))
    for number in range(5):
        strategy = SlidingWindowStrategy(keep_last_groups=2)
        agent = agent_with(client, EverthreadHistoryProvider(store), compacting(strategy))
        await run(agent, f"q{number}", stream=stream)
    # The framework compacts before a run's own turn is stored: two groups of earlier turns, and the turn after them.
    assert [text for _, text in client.requests[-1]] == ["q2", "a2", "q3", "a3", "q4"]
    assert await texts(store) == [f"{who}{number}" for number in range(5) for who in "qa"]


async def test_a_summary_stands_where_its_messages_stood(store) -> None:
    summaries = ScriptedClient("About q0.", "About q0 and q1.", "About all.")
    client = ScriptedClient(*(f"a{number}" for number in range(5)))
    for number in range(5):
        strategy = SummarizationStrategy(client=summaries, target_count=2, threshold=1)
        agent = agent_with(client, EverthreadHistoryProvider(store), compacting(strategy))
        await run(agent, f"q{number}")
    last = [text for _, text in client.requests[-1]]
    assert last[0].startswith("About")
    assert last[-1] == "q4"
    assert len(last) <= 6
    assert await texts(store) == [f"{who}{number}" for number in range(5) for who in "qa"]


async def test_old_tool_results_are_collapsed_and_stay_stored(store) -> None:
    replies: list[Any] = []
    for city in ("Rome", "Oslo", "Bern", "Lima"):
        replies += [[Call("weather", {"city": city})], f"Sunny {city}."]
    client = ScriptedClient(*replies)
    for number in range(4):
        strategy = ToolResultCompactionStrategy(keep_last_tool_call_groups=1)
        agent = agent_with(client, EverthreadHistoryProvider(store), compacting(strategy), tools=[weather])
        await run(agent, f"q{number}")
    last = [text for _, text in client.requests[-1]]
    assert "[Tool results: weather: Sunny in Rome.]" in last
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert sum(content.type == "function_result" for message in kept for content in message.contents) == 4


async def test_another_agent_honors_the_compaction_if_asked(store) -> None:
    for number in range(4):
        strategy = SlidingWindowStrategy(keep_last_groups=2)
        provider = EverthreadHistoryProvider(store)
        await run(agent_with(ScriptedClient(), provider, compacting(strategy)), f"q{number}")
    for skip, count in ((True, 5), (False, 9)):
        client = ScriptedClient()
        agent = agent_with(client, EverthreadHistoryProvider(store, skip_excluded=skip, store_inputs=False))
        await run(agent, "next")
        assert len(client.requests[0]) == count, skip
        await store.truncate(ThreadKey("trip"), stop=8)


async def test_messages_stored_as_excluded_are_left_out(store) -> None:
    provider = EverthreadHistoryProvider(store, skip_excluded=True)
    hidden = Message("user", ["hidden"], additional_properties={"_excluded": True})
    await provider.save_messages("trip", [hidden, Message("user", ["shown"])])
    client = ScriptedClient()
    await run(agent_with(client, provider), "next")
    assert [text for _, text in client.requests[0]] == ["shown", "next"]
    assert len(await provider.get_messages("trip")) == 4


async def test_a_transcript_is_stored_once_and_shown_once(store) -> None:
    client = ScriptedClient(*(f"a{number}" for number in range(5)))
    shown: list[Message] = []
    for number in range(5):
        shown.append(Message("user", [f"q{number}"]))
        strategy = SlidingWindowStrategy(keep_last_groups=2)
        agent = agent_with(client, EverthreadHistoryProvider(store), compacting(strategy))
        shown.append(Message("assistant", [await run(agent, list(shown))]))
    assert await texts(store) == [message.text for message in shown]
    assert [text for _, text in client.requests[-1]] == [message.text for message in shown[:-1]]


async def test_undone_and_cleared_messages_take_their_compaction_along(store) -> None:
    provider = EverthreadHistoryProvider(store)
    client = ScriptedClient()
    agent = agent_with(client, provider, compacting(SlidingWindowStrategy(keep_last_groups=2)))
    for number in range(4):
        await run(agent, f"q{number}")
    await store.truncate(ThreadKey("trip"), stop=2)
    await run(agent, "again")
    assert [text for _, text in client.requests[-1]] == ["q0", "Done.", "again"]
    await provider.clear("trip")
    assert await store.list_documents(ThreadKey("trip")) == ()


async def test_a_run_in_which_nothing_is_excluded_writes_once() -> None:
    watched = FaultyStore(MemoryStore(), [])
    provider = EverthreadHistoryProvider(watched)
    agent = agent_with(ScriptedClient(), provider, compacting(SlidingWindowStrategy(keep_last_groups=20)))
    for number in range(3):
        await run(agent, f"q{number}")
    assert [call for call in watched.made if call not in {"read", "get_document"}] == ["append"] * 3
    assert await watched.get_document(ThreadKey("trip"), COMPACTION_DOCUMENT) is None


async def test_a_session_object_does_not_grow_with_the_history(store) -> None:
    session = AgentSession(session_id="trip")
    agent = agent_with(
        ScriptedClient(), EverthreadHistoryProvider(store), compacting(SlidingWindowStrategy(keep_last_groups=2))
    )
    for number in range(3):
        await agent.run(f"q{number}", session=session)
    assert "messages" not in session.state["everthread"]


@pytest.mark.parametrize("wrong", ["order", "per-call", "window"])
async def test_a_compaction_that_cannot_work_is_refused(wrong: str) -> None:
    provider = EverthreadHistoryProvider("memory:", window=5 if wrong == "window" else None)
    providers = [provider, compacting(SlidingWindowStrategy(keep_last_groups=2))]
    client = ScriptedClient()
    agent = agent_with(
        client,
        *(reversed(providers) if wrong == "order" else providers),
        require_per_service_call_history_persistence=wrong == "per-call",
    )
    with pytest.raises(ConfigurationError, match="CompactionProvider"):
        await run(agent, "hello")
    assert client.seen == []
