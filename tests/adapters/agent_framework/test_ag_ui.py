"""The history provider behind the framework's own AG-UI endpoint, with clients that send the whole transcript."""

from __future__ import annotations

import inspect

import pytest
from agent_framework_ag_ui import add_agent_framework_fastapi_endpoint

from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.engines.memory import MemoryStore
from tests.adapters.agents import agent_with, book, kinds, texts, weather
from tests.adapters.browser import Browser, Json
from tests.adapters.scripted import Call, ScriptedClient

pytestmark = pytest.mark.skipif(
    "single_user" not in inspect.signature(add_agent_framework_fastapi_endpoint).parameters,
    reason="the betas of agent-framework-ag-ui begin a new session with each run",
)

every_kind_of_id = pytest.mark.parametrize("ids", ["client", "users", "server", "none"])
both_persistences = pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])


async def stored(provider: EverthreadHistoryProvider):
    return await provider.get_messages((await provider.list_sessions()).items[0].session_id)


@every_kind_of_id
@both_persistences
async def test_each_turn_of_a_transcript_is_stored_once(ids: str, per_call: bool) -> None:
    provider = EverthreadHistoryProvider(MemoryStore())
    client = ScriptedClient("a0", ["Looking. ", Call("weather", {"city": "Rome"})], "Sunny.", "a2")
    options = {"tools": [weather], "require_per_service_call_history_persistence": per_call}
    browser = Browser(agent_with(client, provider, **options), ids)
    for said in ("q0", "q1", "q2", "q3"):
        await browser.say(said)
    assert [text for _, text in texts(await stored(provider)) if text] == [
        *("q0", "a0", "q1", "Looking. ", "Sunny.", "q2", "a2", "q3", "Done.")
    ]
    assert [text for _, text in client.requests[-1] if text] == [
        "q0",
        "a0",
        "q1",
        "Looking. ",
        "Sunny.",
        "q2",
        "a2",
        "q3",
    ]


@every_kind_of_id
@pytest.mark.parametrize("window", [2, 4])
async def test_a_window_shorter_than_the_transcript_stores_each_turn_once(ids: str, window: int) -> None:
    provider = EverthreadHistoryProvider(MemoryStore(), window=window)
    browser = Browser(agent_with(ScriptedClient(*(f"a{n}" for n in range(5))), provider), ids)
    for number in range(5):
        await browser.say(f"q{number}")
    assert [text for _, text in texts(await stored(provider))] == [f"{who}{n}" for n in range(5) for who in "qa"]


SAID = ("a", "yes", "yes", "go", "yes", "go", "yes", "end", "bye")


@every_kind_of_id
@pytest.mark.parametrize("window", [None, 2])
async def test_equal_turns_store_no_transcript_again(ids: str, window: int | None) -> None:
    provider = EverthreadHistoryProvider(MemoryStore(), window=window)
    look = ["Looking. ", Call("weather", {"city": "Rome"})]
    browser = Browser(agent_with(ScriptedClient("A.", *["Done."] * 4, look), provider, tools=[weather]), ids)
    for said in SAID:
        await browser.say(said)
    kept = await stored(provider)
    answers = ["A.", "Done.", "Done.", "Done.", "Done.", "Looking. ", "Done.", "Done.", "Done.", "Done."]
    assert [message.text for message in kept if message.role == "assistant" and message.text] == answers
    assert [types for role, types in kinds(kept) if role == "tool"] == [["function_result"]]
    if ids != "none":  # Without ids, the endpoint itself drops the user's repeats.
        assert [message.text for message in kept if message.role == "user"] == list(SAID)


@every_kind_of_id
async def test_an_approved_call_and_its_result_are_stored_once(ids: str) -> None:
    provider = EverthreadHistoryProvider(MemoryStore())
    client = ScriptedClient([Call("book", {"city": "Rome"})], "Booked.", "a1")
    browser = Browser(agent_with(client, provider, tools=[book]), ids)
    await browser.say("Book Rome")
    await browser.approve()
    await browser.say("Thanks")
    await browser.say("Bye")
    assert kinds(await stored(provider)) == [
        ("user", ["text"]),
        ("assistant", ["function_call", "function_approval_request"]),
        ("user", ["function_approval_response"]),
        ("tool", ["function_result"]),
        ("assistant", ["text"]),
        *[("user", ["text"]), ("assistant", ["text"])] * 2,
    ]
    assert [role for role, _ in client.requests[-1]] == [
        *("user", "assistant", "tool", "assistant", "user", "assistant", "user")
    ]


@every_kind_of_id
async def test_a_reloaded_page_continues_the_conversation(ids: str) -> None:
    provider = EverthreadHistoryProvider(MemoryStore())
    client = ScriptedClient("a0", "a1", "b0", "b1")
    agent = agent_with(client, provider)
    browser = Browser(agent, ids)
    await browser.say("yes")
    await browser.say("no")
    browser.messages = []
    await browser.say("yes")
    await browser.say("go")
    said = ["yes", "a0", "no", "a1", "yes", "b0", "go", "b1"]
    assert [text for _, text in texts(await stored(provider))] == said
    assert [text for _, text in client.requests[-1]] == said[:-1]


@every_kind_of_id
@both_persistences
async def test_a_restarted_endpoint_of_the_same_user_continues_the_session(ids: str, per_call: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient([Call("book", {"city": "Rome"})], "Booked.", "You are welcome.")

    def started(messages: list[Json]) -> Browser:
        provider = EverthreadHistoryProvider(store, window=2)
        options = {"tools": [book], "require_per_service_call_history_persistence": per_call}
        browser = Browser(agent_with(client, provider, **options), ids, user="user-42")
        browser.messages = messages
        return browser

    browser = started([])
    await browser.say("Book Rome")
    asked = browser.finished
    later = started(list(browser.messages))
    later.finished = asked
    with pytest.raises(AssertionError, match="No pending approval interrupt found"):
        await later.approve()
    await browser.approve()
    await started(browser.messages).say("Thanks")
    provider = EverthreadHistoryProvider(store)
    assert len((await provider.list_sessions()).items) == 1
    assert [text for _, text in texts(await stored(provider)) if text] == [
        *("Book Rome", "Booked.", "Thanks", "You are welcome.")
    ]
    assert [role for role, _ in client.requests[-1]] == ["user", "assistant", "tool", "assistant", "user"]
