"""The history provider in runs of Agent Framework's own `Agent`, on every engine."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agent_framework import Agent, AgentSession, Content, ContextProvider, Message, _tools, tool
from hypothesis import given
from hypothesis import strategies as st

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    OutcomeUnknownError,
    Retention,
    Store,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.agent_framework.sessions import SessionKeys
from everthread.engines.memory import MemoryStore
from everthread.testing.strategies import identifiers
from tests.adapters.scripted import Call, Reply, ScriptedClient

PIXEL = b"\x89PNG\r\n\x1a\n\x00\xff"


@tool(approval_mode="never_require")
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


@tool(approval_mode="always_require")
def book(city: str) -> str:
    """Books a journey."""
    return f"Booked {city}."


def agent_with(client: ScriptedClient, *providers: ContextProvider, **options: Any) -> Agent:
    return Agent(client=client, name="TravelPlanner", context_providers=list(providers), **options)


async def run(agent: Agent, said: Any, session_id: str = "trip", *, stream: bool = False) -> str:
    """One run in a session as another process would have it: only the id is known."""
    session = AgentSession(session_id=session_id)
    if not stream:
        return (await agent.run(said, session=session)).text
    return (await agent.run(said, session=session, stream=True).get_final_response()).text


def texts(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


def kinds(messages: Sequence[Message]) -> list[tuple[str, list[str]]]:
    return [(message.role, [content.type for content in message.contents]) for message in messages]


def counted(store: Store) -> Counter[str]:
    """Counts the calls of a store's methods from now on."""
    counts: Counter[str] = Counter()

    def counting(name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return await method(*args, **options)

        return call

    for name in ("append", "read", "read_last", "truncate", "get_thread", "list_threads", "update_thread"):
        setattr(store, name, counting(name, getattr(store, name)))
    return counts


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
both_persistences = pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])


# What is kept


@both_ways
@both_persistences
async def test_a_user_who_says_yes_four_times_and_gets_one_answer_is_kept_eight_times(store, stream, per_call) -> None:
    agent = agent_with(
        ScriptedClient(), EverthreadHistoryProvider(store), require_per_service_call_history_persistence=per_call
    )
    for _ in range(4):
        await run(agent, "yes", stream=stream)
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert texts(kept) == [("user", "yes"), ("assistant", "Done.")] * 4


@both_ways
@both_persistences
async def test_another_process_goes_on_with_the_whole_conversation(store, stream, per_call) -> None:
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
async def test_a_loop_of_several_tool_calls_is_kept_once_and_in_order(store, stream, per_call) -> None:
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
async def test_an_approval_that_is_ignored_stays_stored_and_does_not_brick_the_session(store, per_call) -> None:
    options: dict[str, Any] = {"tools": [book], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient([Call("book", {"city": "Rome"})], "As you like.")
    agent = agent_with(client, EverthreadHistoryProvider(store), **options)
    await run(agent, "Book Rome")
    assert await run(agent, "Never mind") == "As you like."
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert "function_call" in kinds(kept)[1][1]
    assert client.requests[-1] == [("user", "Book Rome"), ("user", "Never mind")]


@pytest.mark.skipif(
    not hasattr(_tools, "_remove_unanswered_approval_batches_from_model_input"),
    reason="early releases of 1.x send the call that still waits to the model by themselves",
)
@both_persistences
async def test_of_two_approvals_each_may_be_given_in_a_process_of_its_own(store, per_call) -> None:
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


# What is handed to the model


@both_persistences
async def test_a_turn_that_a_crash_left_half_finished_does_not_brick_the_session(store, per_call) -> None:
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient([Call("weather", {"city": "Rome"})], ConnectionError("the network broke"), "Here I am.")
    agent = agent_with(client, EverthreadHistoryProvider(store), **options)
    with pytest.raises(ConnectionError):
        await run(agent, "Weather?")
    assert await run(agent, "Are you there?") == "Here I am."
    assert await run(agent, "Good") == "Done."


async def test_what_the_model_is_not_shown_stays_in_the_store(store) -> None:
    provider = EverthreadHistoryProvider(store)
    cut_off = Message("assistant", [Content.from_function_call("c1", "weather", arguments="{}")])
    await provider.save_messages("trip", [Message("user", ["Weather?"]), cut_off])
    client = ScriptedClient()
    await run(agent_with(client, provider), "Hello?")
    assert client.requests == [[("user", "Weather?"), ("user", "Hello?")]]
    assert kinds(await provider.get_messages("trip"))[1] == ("assistant", ["function_call"])


@pytest.mark.parametrize("window", range(8))
async def test_whatever_the_window_the_model_accepts_what_it_is_shown(store, window: int) -> None:
    client = ScriptedClient([Call("weather", {"city": "Rome"})], "Sunny.", [Call("weather", {"city": "Oslo"})], "Rain.")
    provider = EverthreadHistoryProvider(store, window=window)
    agent = agent_with(client, provider, tools=[weather])
    for said in ("Rome?", "Oslo?", "Thanks"):
        await run(agent, said)
    assert len(client.seen[-1]) <= window + 1
    assert len(await provider.get_messages("trip")) == 10


@pytest.mark.parametrize("kept", range(6))
async def test_whatever_the_retention_the_model_accepts_what_is_left(store, kept: int) -> None:
    client = ScriptedClient([Call("weather", {"city": "Rome"})], "Sunny.", [Call("weather", {"city": "Oslo"})], "Rain.")
    provider = EverthreadHistoryProvider(store, retention=Retention(max_messages=kept))
    agent = agent_with(client, provider, tools=[weather])
    for said in ("Rome?", "Oslo?", "Thanks"):
        await run(agent, said)
        assert len(await provider.get_messages("trip")) <= kept


async def test_two_runs_of_one_session_at_once_leave_a_history_that_the_model_accepts(store) -> None:
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": True}

    async def one(city: str) -> None:
        client = ScriptedClient([Call("weather", {"city": city}, f"call_{city}")], f"Sunny in {city}.")
        await run(agent_with(client, EverthreadHistoryProvider(store), **options), city)

    await asyncio.gather(*(one(city) for city in ("Rome", "Oslo", "Bern", "Lima")))
    client = ScriptedClient()
    await run(agent_with(client, EverthreadHistoryProvider(store)), "So?")
    assert len(client.seen[0]) == 4 * 4 + 1


# What it costs


@pytest.mark.parametrize("earlier", [0, 400])
async def test_a_turn_with_tools_costs_one_read_and_one_write_however_long_the_session(store, earlier: int) -> None:
    provider = EverthreadHistoryProvider(store, window=20)
    for _ in range(earlier // 200):
        await provider.save_messages("trip", [Message("user", ["x"]), Message("assistant", ["y"])] * 100)
    counts = counted(store)
    client = ScriptedClient([Call("weather", {"city": "Rome"})], "Sunny.")
    await run(agent_with(client, provider, tools=[weather]), "Weather?")
    assert counts == {"read_last": 1, "append": 1}


async def test_without_a_window_a_turn_costs_one_read_and_one_write_too(store) -> None:
    counts = counted(store)
    await run(agent_with(ScriptedClient(), EverthreadHistoryProvider(store)), "hello")
    assert counts == {"read": 1, "append": 1}


async def test_a_provider_that_only_records_reads_nothing_unless_it_is_given_a_transcript(store) -> None:
    provider = EverthreadHistoryProvider(store, load_messages=False)
    agent = agent_with(ScriptedClient(), provider)
    counts = counted(store)
    await run(agent, "yes")
    await run(agent, Message("user", ["yes"], message_id="m1"))
    assert counts == {"append": 2}
    transcript = [Message("user", ["yes"]), Message("assistant", ["Done."])] * 2
    await run(agent, [*transcript, Message("user", ["more"])])
    assert counts == {"append": 3, "read_last": 1}
    assert texts(await provider.get_messages("trip"))[4:] == [("user", "more"), ("assistant", "Done.")]


# Replays


@both_ways
@both_persistences
@pytest.mark.parametrize("ids", [False, True], ids=["without-ids", "with-ids"])
async def test_a_client_that_sends_the_whole_transcript_each_time_adds_only_what_is_new(
    store, stream, per_call, ids
) -> None:
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
async def test_a_transcript_that_is_longer_than_the_window_adds_only_what_is_new(store, window: int) -> None:
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


async def test_concurrent_runs_of_one_provider_do_not_mix_up_what_they_have_loaded(store) -> None:
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


class Flaky(MemoryStore):
    """Loses its answer, or fails, as often as it is told, before or after the write."""

    def __init__(self, failures: int, *, after: bool) -> None:
        super().__init__()
        self.failures = failures
        self.after = after
        self.append_ids: list[str | None] = []

    async def append(self, key: ThreadKey, messages: Any, **options: Any) -> Any:
        self.append_ids.append(options["append_id"])
        fails, self.failures = self.failures > 0, self.failures - 1
        if fails and not self.after:
            raise StoreUnavailableError("The store does not answer.")
        appended = await super().append(key, messages, **options)
        if fails:
            raise OutcomeUnknownError("The connection broke.")
        return appended


@pytest.mark.parametrize("after", [False, True], ids=["before-the-write", "after-the-write"])
async def test_a_save_whose_answer_is_lost_is_tried_again_and_takes_effect_once(after: bool) -> None:
    store = Flaky(2, after=after)
    provider = EverthreadHistoryProvider(store)
    await run(agent_with(ScriptedClient(), provider), "hello")
    assert texts(await provider.get_messages("trip")) == [("user", "hello"), ("assistant", "Done.")]
    assert len(store.append_ids) == 3
    assert len(set(store.append_ids)) == 1


async def test_a_store_that_stays_away_is_reported_after_a_bounded_number_of_tries() -> None:
    store = Flaky(100, after=False)
    with pytest.raises(StoreUnavailableError):
        await run(agent_with(ScriptedClient(), EverthreadHistoryProvider(store)), "hello")
    assert len(store.append_ids) == 3


async def test_saves_of_the_same_ids_at_the_same_time_are_kept_once(store) -> None:
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


class Gated(MemoryStore):
    """Holds each write back until it is let through; ``reached`` says that one waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    async def _append_many(self, batch: Any) -> Any:
        self.reached.set()
        await self.gate.wait()
        return await super()._append_many(batch)


async def test_a_run_that_is_cancelled_while_it_saves_is_kept_whole() -> None:
    store = Gated()
    provider = EverthreadHistoryProvider(store)
    running = asyncio.create_task(run(agent_with(ScriptedClient(), provider), "hello"))
    await store.reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    store.gate.set()
    await store.append(ThreadKey("other"), [new_message({"role": "user", "content": "x"})])
    assert texts(await provider.get_messages("trip")) == [("user", "hello"), ("assistant", "Done.")]


async def test_a_run_that_is_cancelled_while_the_model_answers_leaves_nothing() -> None:
    asked = asyncio.Event()

    class Slow(ScriptedClient):
        async def _response(self, messages: Sequence[Message]) -> Any:
            asked.set()
            await asyncio.Event().wait()

    provider = EverthreadHistoryProvider(MemoryStore())
    running = asyncio.create_task(run(agent_with(Slow(), provider), "hello"))
    await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await provider.get_messages("trip") == []
    assert (await provider.list_sessions()).items == ()


# Sources, sessions, tenants


async def test_two_providers_on_one_session_never_mix(store) -> None:
    main = EverthreadHistoryProvider(store)
    audit = EverthreadHistoryProvider(store, source_id="audit", load_messages=False, store_outputs=False)
    await run(agent_with(ScriptedClient(), main, audit), "hello")
    assert texts(await main.get_messages("trip")) == [("user", "hello"), ("assistant", "Done.")]
    assert texts(await audit.get_messages("trip")) == [("user", "hello")]
    assert await audit.clear("trip") == 1
    assert len(await main.get_messages("trip")) == 2
    assert await audit.delete("trip")
    assert not await audit.delete("trip")
    assert [found.session_id for found in await main.list_sessions()] == ["trip"]
    assert (await audit.list_sessions()).items == ()


async def test_tenants_never_see_each_other(store) -> None:
    ours, theirs = (EverthreadHistoryProvider(store, tenant=tenant) for tenant in ("ours", "theirs"))
    await run(agent_with(ScriptedClient(), ours), "hello")
    assert await theirs.get_messages("trip") == []
    assert (await theirs.list_sessions()).items == ()
    assert not await theirs.delete("trip")


SOURCES = st.sampled_from(["everthread", "a", "~", "a~", "~a", "%7E", "a:b", "everthread~"]) | identifiers()
SESSIONS = st.sampled_from(["x", "~x", "~~x", "~a~x", "a~x", "~%7E~x", "~everthread~x"]) | identifiers()


@given(SOURCES, SESSIONS, SOURCES, SESSIONS)
def test_no_two_sessions_share_a_thread(source: str, session: str, other_source: str, other_session: str) -> None:
    try:
        key = SessionKeys(source, "t").key(session)
        other = SessionKeys(other_source, "t").key(other_session)
    except InvalidIdentifierError:
        return  # A prefix may make a very long id too long.
    assert (key == other) == ((source, session) == (other_source, other_session))
    assert SessionKeys(source, "t").session_id(key.thread_id) == session
    if source != other_source:
        assert SessionKeys(other_source, "t").session_id(key.thread_id) is None


def test_a_session_of_the_default_source_is_the_thread_of_its_id() -> None:
    assert SessionKeys("everthread").key("trip:1/{x}") == ThreadKey("trip:1/{x}")
    assert SessionKeys("memory", "ana").key("trip") == ThreadKey("~memory~trip", "ana")


@pytest.mark.parametrize("session_id", [None, "", 5, "x" * 600, "\ud800"])
async def test_a_session_without_a_usable_id_is_refused_and_never_shares_a_thread(session_id: Any) -> None:
    provider = EverthreadHistoryProvider(MemoryStore())
    message = Message("user", ["hello"])
    for call in (
        lambda: provider.get_messages(session_id),
        lambda: provider.save_messages(session_id, [message]),
        lambda: provider.save_messages(session_id, []),
        lambda: provider.clear(session_id),
        lambda: provider.delete(session_id),
    ):
        with pytest.raises(InvalidIdentifierError):
            await call()
    assert (await provider.list_sessions()).items == ()


async def test_sessions_are_listed_newest_first_in_pages_with_title_and_counts(store) -> None:
    provider = EverthreadHistoryProvider(store)
    other = EverthreadHistoryProvider(store, source_id="other")
    for number in range(5):
        await run(agent_with(ScriptedClient(), provider), f"  Trip\nnumber {number} ", f"s{number}")
        await other.save_messages(f"s{number}", [Message("user", ["x"])])
    found, cursor = [], None
    while True:
        page = await provider.list_sessions(limit=2, cursor=cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(session.session_id for session in found) == [f"s{number}" for number in range(5)]
    assert [session.updated_at for session in found] == sorted((s.updated_at for s in found), reverse=True)
    assert {(session.title, session.message_count) for session in found if session.session_id == "s3"} == {
        ("Trip number 3", 2)
    }
    assert "Trip" not in repr(found)


async def test_a_title_comes_from_the_first_user_message_with_text_and_stays(store) -> None:
    provider = EverthreadHistoryProvider(store)
    picture = Message("user", [Content.from_data(PIXEL, media_type="image/png")])
    await provider.save_messages("trip", [Message("system", ["be brief"]), picture])
    await provider.save_messages("trip", [Message("user", ["Rome " * 60])])
    await provider.save_messages("trip", [Message("user", ["Oslo"])])
    title = (await provider.list_sessions()).items[0].title
    assert title is not None
    assert title.startswith("Rome Rome")
    assert len(title) <= 80


async def test_clearing_drops_the_messages_and_keeps_the_session(store) -> None:
    provider = EverthreadHistoryProvider(store)
    agent = agent_with(ScriptedClient(), provider)
    await run(agent, "hello")
    assert await provider.clear("trip") == 2
    assert await provider.clear("trip") == 0
    assert await provider.clear("never seen") == 0
    assert [(found.title, found.message_count) for found in await provider.list_sessions()] == [("hello", 0)]
    await run(agent, "again")
    assert texts(await provider.get_messages("trip")) == [("user", "again"), ("assistant", "Done.")]


# What is stored


async def test_inputs_and_outputs_are_stored_as_asked(store) -> None:
    inputs = EverthreadHistoryProvider(store, source_id="inputs", store_outputs=False)
    outputs = EverthreadHistoryProvider(store, source_id="outputs", store_inputs=False)
    for _ in range(2):
        await run(agent_with(ScriptedClient(), inputs, outputs), "hello")
    assert texts(await inputs.get_messages("trip")) == [("user", "hello")] * 2
    assert texts(await outputs.get_messages("trip")) == [("assistant", "Done.")] * 2


class Notes(ContextProvider):
    async def before_run(self, *, context: Any, **others: Any) -> None:
        context.extend_messages(self, [Message("user", [f"note of {self.source_id}"])])


@pytest.mark.parametrize(("chosen", "kept"), [(None, ["note of a", "note of b"]), ({"b"}, ["note of b"])])
async def test_what_other_providers_add_is_stored_if_asked(store, chosen, kept) -> None:
    provider = EverthreadHistoryProvider(store, store_context_messages=True, store_context_from=chosen)
    await run(agent_with(ScriptedClient(), Notes("a"), Notes("b"), provider), "hello")
    assert [message.text for message in await provider.get_messages("trip")] == [*kept, "hello", "Done."]


async def test_a_message_that_cannot_be_stored_is_refused_and_nothing_of_its_turn_is_written(store) -> None:
    provider = EverthreadHistoryProvider(store)
    with pytest.raises(InvalidMessageError):
        await provider.save_messages("trip", [Message("user", ["fine"]), Message("user", ["lone \ud800"])])
    assert await provider.get_messages("trip") == []


async def test_a_message_over_the_limit_is_refused_and_the_session_goes_on() -> None:
    provider = EverthreadHistoryProvider(MemoryStore(max_message_bytes=1000))
    agent = agent_with(ScriptedClient(), provider)
    with pytest.raises(LimitExceededError):
        await run(agent, "x" * 2000)
    await run(agent, "hello")
    assert len(await provider.get_messages("trip")) == 2


async def test_a_row_that_is_no_message_is_reported_with_its_position(store) -> None:
    provider = EverthreadHistoryProvider(store)
    await provider.save_messages("trip", [Message("user", ["hello"])])
    await store.append(ThreadKey("trip"), [new_message({"type": "something else"})])
    with pytest.raises(CorruptRecordError, match="position 1 of thread 'trip'"):
        await provider.get_messages("trip")


async def test_a_whole_session_expires_as_its_retention_says() -> None:
    now = [1000.0]
    provider = EverthreadHistoryProvider(
        MemoryStore(clock=lambda: now[0]), retention=Retention(expire_after=timedelta(seconds=60))
    )
    await run(agent_with(ScriptedClient(), provider), "hello")
    now[0] += 61
    assert await provider.get_messages("trip") == []


# Owning the store


async def test_a_store_that_was_handed_in_stays_open(store) -> None:
    async with EverthreadHistoryProvider(store) as provider:
        await provider.save_messages("trip", [Message("user", ["hello"])])
    await provider.aclose()
    assert (await store.get_thread(ThreadKey("trip"))).count == 1


async def test_a_url_is_opened_at_the_first_use_and_closed_with_the_provider(tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    provider = EverthreadHistoryProvider(f"sqlite:///{path}")
    assert not path.exists()
    await run(agent_with(ScriptedClient(), provider), "hello")
    assert path.exists()
    await provider.aclose()
    await provider.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await provider.get_messages("trip")
    async with EverthreadHistoryProvider(f"sqlite:///{path}") as again:
        assert len(await again.get_messages("trip")) == 2


async def test_an_agent_that_is_given_only_a_url_needs_no_more(tmp_path: Path) -> None:
    for said in ("one", "two"):
        async with EverthreadHistoryProvider(f"sqlite:///{tmp_path / 'threads.db'}") as provider:
            await run(agent_with(ScriptedClient(), provider), said)
            kept = len(await provider.get_messages("trip"))
    assert kept == 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": -1},
        {"window": 1.5},
        {"window": True},
        {"retention": 5},
        {"source_id": ""},
        {"source_id": None},
        {"tenant": None},
        {"store": None},
        {"store": object()},
        {"store": "nothing://here"},
        {"store": "threads.db"},
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, InvalidIdentifierError)):
        EverthreadHistoryProvider(**{"store": "memory:", **arguments})


@pytest.mark.parametrize("limit", [0, -1, None, "5"])
async def test_a_listing_of_nothing_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError):
        await EverthreadHistoryProvider("memory:").list_sessions(limit=limit)


def test_no_password_is_shown() -> None:
    provider = EverthreadHistoryProvider("redis://ana:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in repr(provider)
    assert "hunter2" not in str(vars(provider))


# Rows of others


async def test_rows_of_the_betas_are_read(store) -> None:
    row = {
        "type": "chat_message",
        "role": {"type": "role", "value": "user"},
        "contents": [{"type": "text", "text": "I am Ana"}],
        "additional_properties": {},
    }
    await store.append(ThreadKey("trip"), [new_message(row)])
    client = ScriptedClient()
    await run(agent_with(client, EverthreadHistoryProvider(store)), "Who am I?")
    assert client.requests == [[("user", "I am Ana"), ("user", "Who am I?")]]


async def test_open_store_and_provider_agree_on_what_a_thread_holds(store) -> None:
    await run(agent_with(ScriptedClient(), EverthreadHistoryProvider(store)), "hello")
    page = await store.read(ThreadKey("trip"))
    assert [message.format for message in page] == ["agent-framework"] * 2
    assert page[0].turn == page[1].turn == 0
    assert open_store("memory:").location == "memory:"
