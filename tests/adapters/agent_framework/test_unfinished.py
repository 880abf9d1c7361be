"""Runs that are cancelled or fail: what is stored, and how the session continues."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import agent_framework
import pytest
from agent_framework import (
    Agent,
    AgentSession,
    BaseChatClient,
    ChatContext,
    ChatResponse,
    Message,
    chat_middleware,
    tool,
)

from everthread import ConfigurationError, ThreadKey
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.engines.memory import MemoryStore
from everthread.messages import codec
from everthread.testing.faults import Fault, FaultyStore
from tests.adapters.agents import agent_with, kinds, run, since_1_19, texts, weather
from tests.adapters.scripted import Call, ScriptedClient

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
every_policy = pytest.mark.parametrize("policy", ["close", "keep", "drop"])

ROME = Call("weather", {"city": "Rome"}, "c1")
TWO = [ROME, Call("slow", {}, "c2")]


class Slow:
    """A tool that never returns."""

    def __init__(self, name: str = "slow", approval_mode: Any = "never_require") -> None:
        self.began = asyncio.Event()

        async def wait() -> str:
            """Waits."""
            self.began.set()
            await asyncio.Event().wait()
            return "never"

        self.tool = tool(wait, name=name, approval_mode=approval_mode)


async def cancelled(agent: Any, said: Any, began: asyncio.Event, *, stream: bool = False) -> None:
    running = asyncio.create_task(run(agent, said, stream=stream))
    await asyncio.wait([asyncio.create_task(began.wait()), running], return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def endings(store: Any) -> list[str]:
    return [codec.view(message).ended for message in await store.read(ThreadKey("trip"))]


def results(messages: list[Message]) -> list[tuple[str | None, str]]:
    return [(c.call_id, str(c.result)) for message in messages for c in message.contents if c.type == "function_result"]


@both_ways
@every_policy
async def test_a_cancelled_tool_leaves_what_the_policy_says(policy: Any, stream: bool) -> None:
    store, slow = MemoryStore(), Slow()
    provider = EverthreadHistoryProvider(store, on_incomplete=policy)
    client = ScriptedClient(["Looking. ", *TWO])
    await cancelled(agent_with(client, provider, tools=[weather, slow.tool]), "go", slow.began, stream=stream)
    kept = await provider.get_messages("trip")
    answered = {"close": ["c1", "c2"], "keep": ["c1"], "drop": []}[policy]
    assert [call_id for call_id, _ in results(kept)] == answered
    assert [message.role for message in kept] == ["user", "assistant", "tool"][: 1 if policy == "drop" else 3]
    assert await endings(store) == [*[""] * (len(kept) - 1), "cancelled"]
    if policy != "drop":
        assert results(kept)[0] == ("c1", "Sunny in Rome.")
    later = ScriptedClient()
    await run(agent_with(later, provider, tools=[weather]), "And now?")
    assert results(later.seen[0])[1:] == ([("c2", results(kept)[1][1])] if policy == "close" else [])
    assert later.requests[0][0] == ("user", "go")
    assert "unknown" in results(kept)[1][1] if policy == "close" else True


@both_ways
@every_policy
async def test_a_model_that_fails_loses_no_message(store, policy: Any, stream: bool) -> None:
    provider = EverthreadHistoryProvider(store, on_incomplete=policy)
    client = ScriptedClient([ROME], ConnectionError("the network broke"))
    with pytest.raises(ConnectionError):
        await run(agent_with(client, provider, tools=[weather]), "Weather?", stream=stream)
    kept = await provider.get_messages("trip")
    assert [message.role for message in kept] == (["user"] if policy == "drop" else ["user", "assistant", "tool"])
    assert results(kept) == ([] if policy == "drop" else [("c1", "Sunny in Rome.")])
    assert await endings(store) == [*[""] * (len(kept) - 1), "failed"]
    assert await run(agent_with(ScriptedClient(), provider, tools=[weather]), "And now?", stream=stream) == "Done."


@both_ways
async def test_without_a_policy_a_failed_run_stores_nothing(store, stream: bool) -> None:
    provider = EverthreadHistoryProvider(store, on_incomplete=None)
    client = ScriptedClient([ROME], ConnectionError("the network broke"))
    with pytest.raises(ConnectionError):
        await run(agent_with(client, provider, tools=[weather]), "Weather?", stream=stream)
    assert await provider.get_messages("trip") == []
    assert await run(agent_with(ScriptedClient(), provider), "Weather?", stream=stream) == "Done."
    assert texts(await provider.get_messages("trip")) == [("user", "Weather?"), ("assistant", "Done.")]


@both_ways
async def test_a_cancelled_answer_keeps_the_question(stream: bool) -> None:
    asked = asyncio.Event()

    class Waiting(ScriptedClient):
        async def _response(self, messages: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

        async def _updates(self, messages: Any) -> Any:
            async for update in super()._updates(messages):
                yield update
                asked.set()
                await asyncio.Event().wait()

    store = MemoryStore()
    provider = EverthreadHistoryProvider(store)
    await cancelled(agent_with(Waiting("Half and half"), provider), "hello", asked, stream=stream)
    said = [("user", "hello"), *([("assistant", "Half a")] if stream else [])]
    assert texts(await provider.get_messages("trip")) == said
    assert (await endings(store))[-1] == "cancelled"


async def test_an_abandoned_stream_keeps_the_text_so_far(store) -> None:
    provider = EverthreadHistoryProvider(store)
    client = ScriptedClient([ROME], "Sunny in Rome.")
    stream = agent_with(client, provider, tools=[weather]).run(
        "Weather?", session=AgentSession(session_id="trip"), stream=True
    )
    async for update in stream:
        if "Sunny" in update.text:
            break
    del stream, update
    async with asyncio.timeout(20):
        while len(await provider.get_messages("trip")) < 4:
            gc.collect()
            await asyncio.sleep(0.01)
    assert texts(await provider.get_messages("trip"))[-1] == ("assistant", "Sunny i")


@since_1_19
async def test_a_call_that_awaits_approval_is_never_closed() -> None:
    store, slow = MemoryStore(), Slow("book", "always_require")
    provider = EverthreadHistoryProvider(store)
    client = ScriptedClient([Call("book", {}, "c1"), Call("book", {}, "c2")])
    agent = agent_with(client, provider, tools=[slow.tool])
    asked = (await agent.run("Book", session=AgentSession(session_id="trip"))).user_input_requests
    assert results(await provider.get_messages("trip")) == []
    assert set(await endings(store)) == {""}
    given = Message("user", [request.to_function_approval_response(approved=True) for request in asked])
    await cancelled(agent, given, slow.began)
    assert [call_id for call_id, _ in results(await provider.get_messages("trip"))] == ["c1", "c2"]
    slow.began.clear()
    await run(agent, given)
    assert not slow.began.is_set()


@both_ways
async def test_a_failed_run_that_is_sent_again_is_stored_once(store, stream: bool) -> None:
    provider = EverthreadHistoryProvider(store)
    asked = Message("user", ["Weather?"], message_id="m1")
    with pytest.raises(ConnectionError):
        await run(agent_with(ScriptedClient(ConnectionError("broke")), provider), asked, stream=stream)
    client = ScriptedClient("Sunny.", message_ids=True)
    await run(agent_with(client, provider), asked, stream=stream)
    assert client.requests == [[("user", "Weather?")]]
    assert texts(await provider.get_messages("trip")) == [("user", "Weather?"), ("assistant", "Sunny.")]


@both_ways
async def test_a_call_that_a_middleware_repeats_is_stored_once(stream: bool) -> None:
    @chat_middleware
    async def patient(context: ChatContext, call_next: Any) -> None:
        try:
            await call_next()
        except ConnectionError:
            await call_next()

    provider = EverthreadHistoryProvider(MemoryStore())

    class Failing(ScriptedClient):
        def _inner_get_response(self, **options: Any) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 2:
                raise ConnectionError
            return super()._inner_get_response(**options)

    client = Failing([ROME], "Sunny.")
    await run(agent_with(client, provider, tools=[weather], middleware=[patient]), "Weather?", stream=stream)
    assert kinds(await provider.get_messages("trip")) == [
        ("user", ["text"]),
        ("assistant", ["function_call"]),
        ("tool", ["function_result"]),
        ("assistant", ["text"]),
    ]


@pytest.mark.skipif(not hasattr(agent_framework._sessions, "_RunPersistenceGate"), reason="the release has no gate")
async def test_what_the_gate_withholds_is_not_stored(store) -> None:
    provider = EverthreadHistoryProvider(store)
    gate = agent_framework._sessions._RunPersistenceGate()
    agent = agent_with(ScriptedClient(ConnectionError("broke")), provider)
    agent_framework._sessions._offer_run_persistence_gate_claim(gate, agent)
    with gate, pytest.raises(ConnectionError):
        await run(agent, "secret")
    gate.drop()
    assert await provider.get_messages("trip") == []


async def test_a_store_that_is_down_does_not_hide_the_error(caplog) -> None:
    store = FaultyStore(MemoryStore(), [Fault.FAIL_BEFORE] * 9)
    provider = EverthreadHistoryProvider(store)
    with pytest.raises(ConnectionError):
        await run(agent_with(ScriptedClient(ConnectionError("broke")), provider), "hello")
    assert "not stored" in caplog.text


async def test_a_client_without_middleware_gets_none(store) -> None:
    class Plain(BaseChatClient):
        async def _inner_get_response(self, **options: Any) -> ChatResponse:
            assert "middleware" not in options
            return ChatResponse(messages=[Message("assistant", ["Done."])])

    provider = EverthreadHistoryProvider(store)
    assert await run(Agent(Plain(), context_providers=[provider]), "hello") == "Done."
    assert texts(await provider.get_messages("trip")) == [("user", "hello"), ("assistant", "Done.")]


async def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_incomplete"):
        EverthreadHistoryProvider("memory:", on_incomplete="forget")  # type: ignore[arg-type]


def test_the_marker_is_part_of_the_view() -> None:
    message = Message("user", ["x"], additional_properties={"everthread_run": "failed"})
    assert codec.view_of(message.to_dict()).ended == "failed"
