"""Approvals that are asked in one process and given in another, which knows only the session's id."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentResponse, AgentSession, Content, FunctionTool, Message

from everthread import ConfigurationError
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.agent_framework.approvals import BINDS, restore_approvals
from everthread.engines.memory import MemoryStore
from tests.adapters.agents import agent_with, book, kinds, since_1_19, weather
from tests.adapters.scripted import Call, ScriptedClient

if_bound = pytest.mark.skipif(not BINDS, reason="early releases of 1.x carry out any approval that they are given")
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

ROME, OSLO = Call("book", {"city": "Rome"}, "c1"), Call("book", {"city": "Oslo"}, "c2")
SUNNY = Call("weather", {"city": "Bern"}, "c3")
BATCHES = {"one": [ROME], "two": [ROME, OSLO], "one of two": [SUNNY, ROME], "two of three": [ROME, SUNNY, OSLO]}


class Process:
    """An agent as a process of its own has it."""

    def __init__(
        self, store: Any, client: ScriptedClient, *, per_call: bool = False, window: int | None = None
    ) -> None:
        self.provider = EverthreadHistoryProvider(store, window=window)
        options: dict[str, Any] = {"require_per_service_call_history_persistence": per_call}
        self.agent = agent_with(client, self.provider, tools=[book, weather], **options)
        self.session = AgentSession(session_id="trip")

    async def run(self, said: Any, *, stream: bool = False) -> AgentResponse:
        if stream:
            return await self.agent.run(said, session=self.session, stream=True).get_final_response()
        return await self.agent.run(said, session=self.session)


def given(*requests: Content, approved: bool = True) -> Message:
    return Message("user", [request.to_function_approval_response(approved=approved) for request in requests])


async def results(store: Any) -> list[str]:
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    found = [content for message in kept for content in message.contents if content.type == "function_result"]
    return [str(content.result) for content in found]


@both_ways
@pytest.mark.parametrize("batch", BATCHES)
async def test_approvals_given_together_are_carried_out(batch: str, stream: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient(BATCHES[batch], "All done.")
    asked = await Process(store, client).run("Book", stream=stream)
    answer = await Process(store, client).run(given(*asked.user_input_requests), stream=stream)
    assert answer.text == "All done."
    # Releases differ in the order.
    assert sorted(await results(store)) == sorted(
        f"{'Booked' if call.name == 'book' else 'Sunny in'} {call.arguments['city']}." for call in BATCHES[batch]
    )
    assert (await Process(store, client).run("Thanks")).text == "Done."


@both_ways
@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("batch", BATCHES)
async def test_an_approval_works_when_its_call_is_older_than_the_window(batch: str, window: int, stream: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient(BATCHES[batch], *["Later."] * 60, "All done.")
    asked = await Process(store, client).run("Book", stream=stream)
    for number in range(60):
        await Process(store, client, window=window).run(f"Not yet {number}")
    later = Process(store, client, window=window)
    answer = await later.run(given(*asked.user_input_requests), stream=stream)
    assert answer.text == "All done."
    assert len(await results(store)) == len(BATCHES[batch])
    assert sum(len(message.contents) for message in client.seen[-1] if message.role == "tool") == len(BATCHES[batch])
    assert len(client.seen[-1]) < 12


@if_bound
async def test_an_old_approval_given_twice_is_carried_out_once() -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME], "Later.", "Booked.")
    asked = await Process(store, client).run("Book")
    await Process(store, client, window=1).run("Not yet")
    for _ in range(2):
        await Process(store, client, window=1).run(given(*asked.user_input_requests))
    assert await results(store) == ["Booked Rome."]


@pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])
async def test_a_resumed_session_finds_a_call_older_than_the_window(per_call: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME], "Later.", "All done.")
    asked = await Process(store, client, per_call=per_call).run("Book")
    await Process(store, client, per_call=per_call, window=1).run("Not yet")
    later = Process(store, client, per_call=per_call, window=1)
    answer = given(*asked.user_input_requests)
    later.session = await later.provider.resume("trip", [answer], agent=later.agent)
    assert (await later.run(answer)).text == "All done."
    assert await results(store) == ["Booked Rome."]


async def test_a_client_tool_result_finds_a_call_older_than_the_window() -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME], "Later.", "Thanks.")
    provider = EverthreadHistoryProvider(store, window=1)
    declared = FunctionTool(name="book", description="Books a journey.", func=None, input_model={"type": "object"})
    agent = agent_with(client, provider, tools=[declared])
    await agent.run("Book", session=AgentSession(session_id="trip"))
    await agent.run("Not yet", session=AgentSession(session_id="trip"))
    result = Message("tool", [Content.from_function_result("c1", result="Booked Rome.")])
    assert (await agent.run(result, session=AgentSession(session_id="trip"))).text == "Thanks."
    assert kinds(client.seen[-1])[-2:] == [("assistant", ["function_call"]), ("tool", ["function_result"])]


@since_1_19
@both_ways
@pytest.mark.parametrize("batch", ["two", "two of three"])
async def test_approvals_given_one_by_one_are_carried_out(batch: str, stream: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient(BATCHES[batch], "All done.")
    asked = await Process(store, client).run("Book", stream=stream)
    said = [await Process(store, client).run(given(each), stream=stream) for each in asked.user_input_requests]
    assert said[-1].text == "All done."
    assert len(await results(store)) == len(BATCHES[batch])
    assert len(client.seen) == 2


@since_1_19
@both_ways
@pytest.mark.parametrize("window", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("batch", ["two", "two of three"])
async def test_approvals_given_one_by_one_work_in_a_small_window(batch: str, window: int, stream: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient(BATCHES[batch], "Later.", "All done.")
    asked = await Process(store, client).run("Book", stream=stream)
    await Process(store, client, window=window).run("Not yet", stream=stream)
    for each in asked.user_input_requests:
        answer = await Process(store, client, window=window).run(given(each), stream=stream)
    assert answer.text == "All done."
    assert len(await results(store)) == len(BATCHES[batch])


@since_1_19
@both_ways
@pytest.mark.parametrize(("name", "city"), [("book", "Moscow"), ("weather", "Rome")])
async def test_an_earlier_approval_cannot_change_its_call(name: str, city: str, stream: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME, OSLO], "All done.")
    rome, oslo = (await Process(store, client).run("Book")).user_input_requests
    call = Content.from_function_call("c1", name, arguments=f'{{"city": "{city}"}}')
    call.id = rome.id
    forged = Content.from_function_approval_response(True, rome.id, call)
    await Process(store, client).run(Message("user", [forged]), stream=stream)
    await Process(store, client).run(given(oslo), stream=stream)
    assert await results(store) == ["Booked Rome.", "Booked Oslo."]


@since_1_19
async def test_an_approval_with_another_id_approves_nothing_later() -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME, OSLO])
    rome, oslo = (await Process(store, client).run("Book")).user_input_requests
    forged = Content.from_function_approval_response(True, "other", rome.function_call)
    await Process(store, client).run(Message("user", [forged]))
    await Process(store, client).run(given(oslo))
    assert await results(store) == []


async def test_a_refused_call_is_not_carried_out() -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME], "As you like.")
    asked = await Process(store, client).run("Book")
    assert (await Process(store, client).run(given(*asked.user_input_requests, approved=False))).text == "As you like."
    assert "Booked Rome." not in await results(store)
    assert (await Process(store, client).run("Thanks")).text == "Done."


@if_bound
async def test_an_approval_given_twice_is_carried_out_once() -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME], "Booked.")
    asked = await Process(store, client).run("Book")
    for _ in range(2):
        await Process(store, client).run(given(*asked.user_input_requests))
    assert await results(store) == ["Booked Rome."]


async def test_an_approval_after_another_turn_is_carried_out() -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME], "Sunny.", "Booked.")
    asked = await Process(store, client).run("Book")
    await Process(store, client).run("And the weather?")
    assert (await Process(store, client).run(given(*asked.user_input_requests))).text == "Booked."
    assert await results(store) == ["Booked Rome."]


@if_bound
async def test_a_call_that_a_caller_made_up_is_never_carried_out() -> None:
    store = MemoryStore()
    client = ScriptedClient()
    call = Content.from_function_call("c9", "book", arguments='{"city": "Rome"}')
    call.id = "af-call-1"
    request = Content.from_function_approval_request("af-call-1", call)
    await Process(store, client).run([Message("assistant", [call, request]), Message("user", ["hello"])])
    await Process(store, client).run(given(request))
    assert await results(store) == []


@if_bound
async def test_an_approval_without_a_request_changes_nothing() -> None:
    store = MemoryStore()
    client = ScriptedClient()
    await Process(store, client).run("hello")
    request = Content.from_function_approval_request("x", Content.from_function_call("c9", "book", arguments="{}"))
    assert (await Process(store, client).run([given(request), Message("user", ["again"])])).text == "Done."
    assert await results(store) == []


@since_1_19
@pytest.mark.parametrize("batch", BATCHES)
async def test_restored_approvals_equal_those_of_the_framework(batch: str) -> None:
    store = MemoryStore()
    process = Process(store, ScriptedClient(BATCHES[batch]))
    asked = await process.run("Book")
    kept = await process.provider.get_messages("trip")
    restored = AgentSession(session_id="trip")
    restore_approvals(restored, [(message, 0) for message in kept], [given(*asked.user_input_requests)])
    assert restored.state["tool_approval"] == process.session.state["tool_approval"]


@both_ways
@pytest.mark.parametrize("batch", BATCHES)
async def test_a_resumed_session_has_the_approvals(batch: str, stream: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient(BATCHES[batch], "All done.")
    asked = await Process(store, client, per_call=True).run("Book", stream=stream)
    later = Process(store, client, per_call=True)
    answers = given(*asked.user_input_requests)
    later.session = await later.provider.resume("trip", [answers], agent=later.agent)
    assert (await later.run(answers, stream=stream)).text == "All done."
    assert len(await results(store)) == len(BATCHES[batch])


@if_bound
async def test_calls_that_may_need_an_approval_are_never_guessed() -> None:
    store = MemoryStore()
    asked = await Process(store, ScriptedClient(BATCHES["one of two"]), per_call=True).run("Book")
    answers = given(*asked.user_input_requests)
    with pytest.raises(ConfigurationError, match="weather"):
        await EverthreadHistoryProvider(store).resume("trip", [answers])


@since_1_19
async def test_an_agent_tells_which_other_calls_need_an_approval() -> None:
    store = MemoryStore()
    client = ScriptedClient(BATCHES["two of three"], "All done.")
    asked = await Process(store, client, per_call=True).run("Book")
    first, second = asked.user_input_requests
    later = Process(store, client, per_call=True)
    later.session = await later.provider.resume("trip", [given(first)], agent=later.agent)
    (left,) = (await later.run(given(first))).user_input_requests
    assert left.function_call.call_id == second.function_call.call_id
    assert await results(store) == []
    assert (await later.run(given(left))).text == "All done."
    assert sorted(await results(store)) == ["Booked Oslo.", "Booked Rome.", "Sunny in Bern."]


@since_1_19
@pytest.mark.parametrize("lacks", ["id", "call_id"])
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
async def test_an_ignored_approval_does_not_prevent_a_correct_one(lacks: str, together: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient([ROME, OSLO], "All done.")
    rome, oslo = (await Process(store, client).run("Book")).user_input_requests
    call = Content.from_dict(rome.function_call.to_dict())
    setattr(call, lacks, None)
    ignored = Content.from_function_approval_response(True, rome.id, call)
    first = [ignored] if together else [ignored, *given(oslo).contents]
    await Process(store, client).run(Message("user", first))
    await Process(store, client).run(given(rome, oslo) if together else given(rome))
    assert sorted(await results(store)) == ["Booked Oslo.", "Booked Rome."]
