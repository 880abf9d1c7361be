"""Runs of the betas whose input or answer a store cannot hold."""

from __future__ import annotations

from typing import Any

import pytest

from everthread import InvalidMessageError, LimitExceededError, Store
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore
from everthread.engines.memory import MemoryStore
from tests.beta import betas
from tests.openai_server import Call

UNSTORABLE = {"lone surrogate": "a\ud800", "too large": "x" * 2000}
ERRORS = {"lone surrogate": InvalidMessageError, "too large": LimitExceededError}

every_kind = pytest.mark.parametrize("kind", UNSTORABLE)
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def agent_on(store: Store, client: Any, **options: Any) -> tuple[Any, EverthreadChatMessageStore]:
    kept = EverthreadChatMessageStore(store, "t")
    return betas.agent(client, lambda: kept, **options), kept


@both_ways
@every_kind
async def test_an_input_that_cannot_be_stored_never_reaches_the_model(kind: str, stream: bool) -> None:
    client = betas.scripted()
    agent, kept = agent_on(MemoryStore(max_message_bytes=1000), client)
    with pytest.raises(ERRORS[kind]):
        await betas.run(agent, UNSTORABLE[kind], agent.get_new_thread(), stream=stream)
    assert client.seen == []
    assert await kept.list_messages() == []


async def test_too_many_input_messages_never_reach_the_model() -> None:
    client = betas.scripted()
    agent, _ = agent_on(MemoryStore(), client)
    with pytest.raises(LimitExceededError):
        await agent.run([betas.message("user", "hi")] * 10_001, thread=agent.get_new_thread())
    assert client.seen == []


@both_ways
@every_kind
async def test_an_answer_that_cannot_be_stored_keeps_the_question(
    kind: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    agent, kept = agent_on(MemoryStore(max_message_bytes=1000), betas.scripted(UNSTORABLE[kind]))
    assert await betas.run(agent, "hello", agent.get_new_thread(), stream=stream) == UNSTORABLE[kind]
    asked, answer = await kept.list_messages()
    assert asked.text == "hello"
    assert answer.text.startswith("[This content was not stored: ")
    assert "xxx" not in caplog.text
    assert await betas.run(agent, "again", agent.get_new_thread()) == "Done."


@both_ways
async def test_a_tool_result_too_large_to_store_stays_linked_to_its_call(stream: bool) -> None:
    def measure() -> str:
        """Measures."""
        return "x" * 2000

    client = betas.scripted([Call("measure", {}, "c1")], "Long.")
    agent, kept = agent_on(MemoryStore(max_message_bytes=1000), client, tools=[measure])
    assert await betas.run(agent, "measure", agent.get_new_thread(), stream=stream) == "Long."
    asked, called, result, answer = await kept.list_messages()
    assert (asked.text, called.contents[0].call_id, answer.text) == ("measure", "c1", "Long.")
    assert result.contents[0].call_id == "c1"
    assert str(result.contents[0].result).startswith("[This content was not stored: ")
    assert await betas.run(agent, "again", agent.get_new_thread()) == "Done."


async def test_an_answer_of_more_messages_than_an_append_takes_is_stored_whole() -> None:
    kept = EverthreadChatMessageStore(MemoryStore(), "t")
    agent = betas.agent(betas.scripted(), lambda: kept)
    thread = agent.get_new_thread()
    answer = [betas.message("assistant", f"part {number}") for number in range(10_001)]
    await agent._notify_thread_of_new_messages(thread, [betas.message("user", "hi")], answer)
    assert [each.text for each in await kept.list_messages()] == ["hi", *(each.text for each in answer)]


@every_kind
async def test_messages_added_outside_a_run_are_refused_as_a_whole(kind: str) -> None:
    kept = EverthreadChatMessageStore(MemoryStore(max_message_bytes=1000), "t")
    with pytest.raises(ERRORS[kind]):
        await kept.add_messages([betas.message("user", "hi"), betas.message("user", UNSTORABLE[kind])])
    assert await kept.list_messages() == []
