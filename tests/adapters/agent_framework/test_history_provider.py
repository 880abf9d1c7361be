"""The history provider in runs of Agent Framework's own `Agent`, on every engine."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Sequence
from typing import Any

import pytest
from agent_framework import AgentSession, Content, HistoryProvider, Message, SessionContext

from everthread import (
    Retention,
    StoreUnavailableError,
)
from everthread.adapters.agent_framework import EverthreadHistoryProvider, SummaryWindow
from everthread.operations.summarize import SummaryPolicy
from everthread.testing.faults import Fault, FaultyStore
from tests.adapters.agents import PIXEL, agent_with, book, kinds, run, since_1_19, texts, weather
from tests.adapters.scripted import Call, Reply, ScriptedClient

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
both_persistences = pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])


# What is kept


@both_ways
@both_persistences
async def test_four_equal_questions_and_answers_are_eight_messages(store, stream, per_call) -> None:
    agent = agent_with(
        ScriptedClient(), EverthreadHistoryProvider(store), require_per_service_call_history_persistence=per_call
    )
    for _ in range(4):
        await run(agent, "yes", stream=stream)
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert texts(kept) == [("user", "yes"), ("assistant", "Done.")] * 4


@both_ways
@both_persistences
async def test_another_process_continues_the_whole_conversation(store, stream, per_call) -> None:
    first = ScriptedClient([Call("weather", {"city": "Rome"})], "Sunny, Ana.")
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": per_call}
    await run(agent_with(first, EverthreadHistoryProvider(store), **options), "I am Ana", stream=stream)
    second = ScriptedClient("You are Ana.")
    await run(agent_with(second, EverthreadHistoryProvider(store), **options), "Who am I?", stream=stream)
    assert kinds(second.seen[0]) == [
        ("user", ["text"]),
        ("assistant", ["function_call"]),
        ("tool", ["function_result"]),
        ("assistant", ["text"]),
        ("user", ["text"]),
    ]
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert kinds(kept) == [*kinds(second.seen[0]), ("assistant", ["text"])]


@both_ways
@both_persistences
async def test_several_tool_calls_are_stored_once_and_in_order(store, stream, per_call) -> None:
    two = ["Looking. ", Call("weather", {"city": "Rome"}), Call("weather", {"city": "Oslo"})]
    client = ScriptedClient(two, [Call("weather", {"city": "Bern"})], "All sunny.")
    provider = EverthreadHistoryProvider(store)
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": per_call}
    await run(agent_with(client, provider, **options), "Weather?", stream=stream)
    kept = await provider.get_messages("trip")
    calls = [content.call_id for message in kept for content in message.contents if content.type == "function_call"]
    results = [content.call_id for message in kept for content in message.contents if content.type == "function_result"]
    assert calls == results == ["call_1", "call_2", "call_3"]
    assert [message.text for message in kept if message.text] == ["Weather?", "Looking. ", "All sunny."]
    # Every request after the first held all that came before it, once.
    assert [len(request) for request in client.seen] == sorted(len(request) for request in client.seen)
    await run(agent_with(client, provider, **options), "Thanks", stream=stream)
    assert len(await provider.get_messages("trip")) == len(kept) + 2


async def test_images_and_other_contents_come_back_equal(store) -> None:
    message = Message(
        "user",
        [
            "look",
            Content.from_data(PIXEL, media_type="image/png"),
            Content.from_uri("https://example.com/a.pdf", media_type="application/pdf"),
            Content.from_hosted_file("file-1"),
        ],
        author_name="Ana",
        additional_properties={"client": {"zone": "Europe/Rome"}},
    )
    answer: Reply = [
        Content.from_text_reasoning(text="hm", protected_data="sealed"),
        Content.from_text("A cat.", annotations=[{"type": "citation", "url": "https://example.com"}]),
        Content.from_usage({"input_token_count": 3, "output_token_count": 4}),
    ]
    provider = EverthreadHistoryProvider(store)
    await run(agent_with(ScriptedClient(answer), provider), message)
    given_back, answered = await provider.get_messages("trip")
    assert given_back.to_dict() == message.to_dict()
    assert answered.contents == answer
    assert answered.author_name == "TravelPlanner"


@both_ways
@both_persistences
async def test_an_approval_may_be_given_in_another_process(store, stream, per_call) -> None:
    options: dict[str, Any] = {"tools": [book], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient([Call("book", {"city": "Rome"})], "Booked it.")
    agent = agent_with(client, EverthreadHistoryProvider(store), **options)
    session = AgentSession(session_id="trip")
    response = await (agent.run("Book Rome", session=session, stream=True).get_final_response() if stream
                      else agent.run("Book Rome", session=session))  # fmt: skip
    request = response.user_input_requests[0]
    assert len(client.seen) == 1

    restored = AgentSession.from_dict(session.to_dict())
    later = agent_with(client, EverthreadHistoryProvider(store), **options)
    granted = Message("user", [request.to_function_approval_response(approved=True)])
    answer = await (later.run(granted, session=restored, stream=True).get_final_response() if stream
                    else later.run(granted, session=restored))  # fmt: skip
    assert answer.text == "Booked it."
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    found = [content for message in kept for content in message.contents]
    assert [content.result for content in found if content.type == "function_result"] == ["Booked Rome."]
    assert sum(content.type == "function_call" for content in found) == 1
    await run(later, "Thanks", stream=stream)
    assert client.requests[-1][-1] == ("user", "Thanks")


@both_persistences
async def test_a_session_continues_after_an_ignored_approval(store, per_call) -> None:
    options: dict[str, Any] = {"tools": [book], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient([Call("book", {"city": "Rome"})], "As you like.")
    agent = agent_with(client, EverthreadHistoryProvider(store), **options)
    await run(agent, "Book Rome")
    assert await run(agent, "Never mind") == "As you like."
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert "function_call" in kinds(kept)[1][1]
    assert client.requests[-1] == [("user", "Book Rome"), ("user", "Never mind")]


@since_1_19
@both_persistences
async def test_two_approvals_may_come_from_two_processes(store, per_call) -> None:
    options: dict[str, Any] = {"tools": [book], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient([Call("book", {"city": "Rome"}), Call("book", {"city": "Oslo"})], "Booked both.")
    session = AgentSession(session_id="trip")
    asked = await agent_with(client, EverthreadHistoryProvider(store), **options).run("Book both", session=session)
    answer = ""
    for request in asked.user_input_requests:
        session = AgentSession.from_dict(session.to_dict())
        granted = Message("user", [request.to_function_approval_response(approved=True)])
        later = agent_with(client, EverthreadHistoryProvider(store), **options)
        answer = (await later.run(granted, session=session)).text
    assert answer == "Booked both."
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    found = [content.result for message in kept for content in message.contents if content.type == "function_result"]
    assert sorted(found) == ["Booked Oslo.", "Booked Rome."]
    await run(later, "Thanks")


@both_persistences
async def test_an_approval_works_after_another_user_message(store, per_call) -> None:
    options: dict[str, Any] = {"tools": [book], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient([Call("book", {"city": "Rome"})], "Sunny.", "Booked.")
    session = AgentSession(session_id="trip")
    agent = agent_with(client, EverthreadHistoryProvider(store), **options)
    request = (await agent.run("Book Rome", session=session)).user_input_requests[0]
    assert (await agent.run("And the weather?", session=session)).text == "Sunny."
    granted = Message("user", [request.to_function_approval_response(approved=True)])
    assert (await agent.run(granted, session=session)).text == "Booked."
    await run(agent, "Thanks")


# What is handed to the model


@both_persistences
async def test_a_session_continues_after_a_crash_in_a_turn(store, per_call) -> None:
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient([Call("weather", {"city": "Rome"})], ConnectionError("the network broke"), "Here I am.")
    agent = agent_with(client, EverthreadHistoryProvider(store), **options)
    with pytest.raises(ConnectionError):
        await run(agent, "Weather?")
    assert await run(agent, "Are you there?") == "Here I am."
    assert await run(agent, "Good") == "Done."


async def test_messages_left_out_for_the_model_stay_stored(store) -> None:
    provider = EverthreadHistoryProvider(store)
    cut_off = Message("assistant", [Content.from_function_call("c1", "weather", arguments="{}")])
    await provider.save_messages("trip", [Message("user", ["Weather?"]), cut_off])
    client = ScriptedClient()
    await run(agent_with(client, provider), "Hello?")
    assert client.requests == [[("user", "Weather?"), ("user", "Hello?")]]
    assert kinds(await provider.get_messages("trip"))[1] == ("assistant", ["function_call"])


@pytest.mark.parametrize("window", range(8))
async def test_the_model_accepts_the_history_of_any_window(store, window: int) -> None:
    client = ScriptedClient([Call("weather", {"city": "Rome"})], "Sunny.", [Call("weather", {"city": "Oslo"})], "Rain.")
    provider = EverthreadHistoryProvider(store, window=window)
    agent = agent_with(client, provider, tools=[weather])
    for said in ("Rome?", "Oslo?", "Thanks"):
        await run(agent, said)
    assert len(client.seen[-1]) <= window + 1
    assert len(await provider.get_messages("trip")) == 10


@pytest.mark.parametrize("kept", range(6))
async def test_the_model_accepts_the_history_after_any_retention(store, kept: int) -> None:
    client = ScriptedClient([Call("weather", {"city": "Rome"})], "Sunny.", [Call("weather", {"city": "Oslo"})], "Rain.")
    provider = EverthreadHistoryProvider(store, retention=Retention(max_messages=kept))
    agent = agent_with(client, provider, tools=[weather])
    for said in ("Rome?", "Oslo?", "Thanks"):
        await run(agent, said)
        assert len(await provider.get_messages("trip")) <= kept


async def test_concurrent_runs_leave_a_history_that_the_model_accepts(store) -> None:
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": True}

    async def one(city: str) -> None:
        client = ScriptedClient([Call("weather", {"city": city}, f"call_{city}")], f"Sunny in {city}.")
        await run(agent_with(client, EverthreadHistoryProvider(store), **options), city)

    await asyncio.gather(*(one(city) for city in ("Rome", "Oslo", "Bern", "Lima")))
    client = ScriptedClient()
    await run(agent_with(client, EverthreadHistoryProvider(store)), "So?")
    assert len(client.seen[0]) == 4 * 4 + 1


@pytest.mark.parametrize("window", [2, 3, "a summary"], ids=str)
async def test_a_window_keeps_the_system_message_at_the_head(store, window) -> None:
    client = ScriptedClient()
    if window == "a summary":
        window = SummaryWindow(SummaryPolicy(max_messages=4, keep_turns=1), client=ScriptedClient())
    for number in range(4):
        provider = EverthreadHistoryProvider(store, window=window)
        said = [Message("user", [f"q{number}"])]
        await run(agent_with(client, provider), said if number else [Message("system", ["Be brief."]), *said])
    assert client.requests[-1][0] == ("system", "Be brief.")
    assert [text for _, text in client.requests[-1]].count("Be brief.") == 1
    await run(agent_with(client, provider), [Message("system", ["Be brief."]), Message("user", ["q4"])])
    assert [text for _, text in client.requests[-1]].count("Be brief.") == 1
    await provider.clear("trip")
    await run(agent_with(client, provider), "q5")
    assert client.requests[-1] == [("user", "q5")]


# What it costs


@pytest.mark.parametrize("earlier", [0, 400])
async def test_a_turn_with_tools_reads_its_window_and_writes_once(store, earlier: int) -> None:
    watched = FaultyStore(store, [])
    provider = EverthreadHistoryProvider(watched, window=20)
    for _ in range(earlier // 200):
        await provider.save_messages("trip", [Message("user", ["x"]), Message("assistant", ["y"])] * 100)
    watched.made.clear()
    client = ScriptedClient([Call("weather", {"city": "Rome"})], "Sunny.")
    await run(agent_with(client, provider, tools=[weather]), "Weather?")
    # Of a session that is longer than the window, the message at its head is read, too.
    assert watched.made == ["read_last", *(["read"] if earlier else []), "append"]


async def test_a_turn_without_a_window_costs_one_read_and_one_write(store) -> None:
    watched = FaultyStore(store, [])
    await run(agent_with(ScriptedClient(), EverthreadHistoryProvider(watched)), "hello")
    assert watched.made == ["read", "append"]


async def test_a_recording_provider_reads_only_for_a_transcript(store) -> None:
    watched = FaultyStore(store, [])
    provider = EverthreadHistoryProvider(watched, load_messages=False)
    agent = agent_with(ScriptedClient(), provider)
    await run(agent, "yes")
    await run(agent, Message("user", ["yes"], message_id="m1"))
    assert watched.made == ["append", "append"]
    transcript = [Message("user", ["yes"]), Message("assistant", ["Done."])] * 2
    await run(agent, [*transcript, Message("user", ["more"])])
    assert watched.made[2:] == ["read_last", "append"]
    assert texts(await provider.get_messages("trip"))[4:] == [("user", "more"), ("assistant", "Done.")]


# Replays


@both_ways
@both_persistences
@pytest.mark.parametrize("ids", [False, True], ids=["without-ids", "with-ids"])
async def test_a_repeated_transcript_adds_only_new_messages(store, stream, per_call, ids) -> None:
    client = ScriptedClient(message_ids=ids)
    options: dict[str, Any] = {"require_per_service_call_history_persistence": per_call}
    shown: list[Message] = []
    for number in range(5):
        shown.append(Message("user", ["yes"], message_id=f"asked-{number}" if ids else None))
        agent = agent_with(client, EverthreadHistoryProvider(store), **options)
        answer = await run(agent, [Message(m.role, list(m.contents), message_id=m.message_id) for m in shown])
        shown.append(Message("assistant", [answer], message_id=f"answer-{len(client.seen)}" if ids else None))
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert texts(kept) == [("user", "yes"), ("assistant", "Done.")] * 5
    assert [len(request) for request in client.requests] == [1, 3, 5, 7, 9], "the model is shown nothing twice"


@pytest.mark.parametrize("window", [2, 4])
async def test_a_transcript_longer_than_the_window_adds_only_new_messages(store, window: int) -> None:
    provider = EverthreadHistoryProvider(store, window=window)
    agent = agent_with(ScriptedClient(), provider)
    shown: list[Message] = []
    for number in range(5):
        shown.append(Message("user", [f"question {number}"]))
        shown.append(Message("assistant", [await run(agent, list(shown))]))
    assert texts(await provider.get_messages("trip")) == texts(shown)


async def test_one_object_given_again_is_a_new_message(store) -> None:
    provider = EverthreadHistoryProvider(store)
    agent = agent_with(ScriptedClient(), provider)
    yes, done = Message("user", ["yes"]), Message("assistant", ["Done."])
    await run(agent, yes)
    await run(agent, yes)
    await run(agent, [yes, done, yes, done, yes])
    assert texts(await provider.get_messages("trip")) == [("user", "yes"), ("assistant", "Done.")] * 3


async def test_concurrent_runs_of_one_provider_do_not_mix(store) -> None:
    provider = EverthreadHistoryProvider(store)
    agent = agent_with(ScriptedClient(), provider)

    async def talk(session_id: str) -> None:
        shown: list[Message] = []
        for number in range(3):
            shown.append(Message("user", [f"{session_id} {number}"]))
            shown.append(Message("assistant", [await run(agent, list(shown), session_id)]))
        assert texts(await provider.get_messages(session_id)) == texts(shown)

    await asyncio.gather(*(talk(f"session-{number}") for number in range(8)))
    gc.collect()
    assert not provider._runs


# Saving again


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.FAIL_AFTER])
async def test_a_save_with_a_lost_reply_takes_effect_once(store, fault: Fault) -> None:
    faulty = FaultyStore(store, [fault, fault])
    provider = EverthreadHistoryProvider(faulty)
    await run(agent_with(ScriptedClient(), provider), "hello")
    assert texts(await provider.get_messages("trip")) == [("user", "hello"), ("assistant", "Done.")]
    assert faulty.made.count("append") == 3


async def test_an_unavailable_store_is_reported_after_bounded_retries(store) -> None:
    faulty = FaultyStore(store, [Fault.FAIL_BEFORE] * 100)
    with pytest.raises(StoreUnavailableError):
        await run(agent_with(ScriptedClient(), EverthreadHistoryProvider(faulty)), "hello")
    assert faulty.made.count("append") == 3


async def test_an_unreadable_store_is_reported_before_the_model_is_asked(store) -> None:
    client = ScriptedClient()
    agent = agent_with(client, EverthreadHistoryProvider(FaultyStore(store, [Fault.FAIL_BEFORE], calls=["read"])))
    with pytest.raises(StoreUnavailableError):
        await run(agent, "hello")
    assert client.seen == []


async def test_concurrent_saves_with_the_same_ids_are_stored_once(store) -> None:
    async def one() -> None:
        agent = agent_with(ScriptedClient(message_ids=True), EverthreadHistoryProvider(store))
        await run(agent, Message("user", ["yes"], message_id="m1"))

    await asyncio.gather(*(one() for _ in range(5)))
    assert len(await EverthreadHistoryProvider(store).get_messages("trip")) == 2
    turn = [Message("user", ["more"])]
    direct = EverthreadHistoryProvider(store)
    await asyncio.gather(*(direct.save_messages("trip", turn, append_id="turn-2") for _ in range(5)))
    assert len(await direct.get_messages("trip")) == 3
    await direct.save_messages("trip", turn)
    await direct.save_messages("trip", [])
    assert len(await direct.get_messages("trip")) == 4


@pytest.mark.parametrize(("fault", "kept"), [(Fault.CANCEL_BEFORE, []), (Fault.CANCEL_AFTER, ["hello", "Done."])])
async def test_a_run_cancelled_while_saving_is_whole_or_absent(store, fault: Fault, kept) -> None:
    provider = EverthreadHistoryProvider(FaultyStore(store, [fault]))
    agent = agent_with(ScriptedClient(), provider)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(run(agent, "hello"))
    assert [message.text for message in await provider.get_messages("trip")] == kept
    await run(agent, "again")
    assert [message.text for message in await provider.get_messages("trip")] == [*kept, "again", "Done."]


class ByTheBase(HistoryProvider):
    """A provider that leaves everything to the framework."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__("everthread")
        self.messages = messages

    async def get_messages(self, session_id: str | None, **others: Any) -> list[Message]:
        return self.messages

    async def save_messages(self, session_id: str | None, messages: Sequence[Message], **others: Any) -> None:
        raise AssertionError("Nothing is saved here.")


@pytest.mark.parametrize("marked", [False, True])
async def test_the_model_gets_the_same_as_from_the_base_class(store, marked: bool) -> None:
    provider = EverthreadHistoryProvider(store)
    properties = {"_attribution": {"source_id": "notes", "extra": 1}, "x": 2} if marked else {"x": 2}
    call = Content.from_function_call("c1", "weather", arguments="{}")
    kept = [
        Message("user", ["hello"], additional_properties=properties),
        Message("assistant", [call]),
        Message("tool", [Content.from_function_result("c1", result="Sunny.")]),
        Message("assistant", ["Sunny."], message_id="m1", author_name="Tim"),
    ]
    await provider.save_messages("trip", kept)
    handed: list[list[dict[str, Any]]] = []
    for one in (provider, ByTheBase(await provider.get_messages("trip"))):
        context = SessionContext(session_id="trip", input_messages=[Message("user", ["next"])])
        session = AgentSession(session_id="trip")
        await one.before_run(agent=agent_with(ScriptedClient()), session=session, context=context, state={})
        found = [message.to_dict() for message in context.context_messages["everthread"]]
        handed.append(json.loads(json.dumps(found).replace("EverthreadHistoryProvider", "ByTheBase")))
    assert handed[0] == handed[1]
