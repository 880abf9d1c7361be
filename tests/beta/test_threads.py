"""Agents of the betas on everthread: runs with tools, and threads that go on in another process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import agent_framework
import pytest

from everthread import ConfigurationError, Store
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore, RedisChatMessageStore, restore_thread
from tests.beta import betas
from tests.openai_server import Call

ROOT = Path(__file__).parents[2]
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


def store_at(url: str, thread_id: str | None = None) -> EverthreadChatMessageStore:
    kind = RedisChatMessageStore if url.startswith("redis") else EverthreadChatMessageStore
    return kind(url, thread_id)


async def elsewhere(how: str, state: dict[str, Any], url: str, said: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.beta.elsewhere", how, json.dumps(state), url, said]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@STREAM
async def test_a_run_with_tools_is_stored_and_continued(store: Store, stream: bool) -> None:
    client = betas.scripted(
        ["Looking.", Call("weather", {"city": "Rome"}), Call("weather", {"city": "Oslo"})], "Both sunny.", "Ana."
    )
    who = betas.agent(client, lambda: EverthreadChatMessageStore(store, "trip"), tools=[betas.tool(weather)])
    assert (await betas.run(who, "I am Ana", who.get_new_thread(), stream=stream)).endswith("Both sunny.")
    assert await betas.run(who, "Who am I?", who.get_new_thread(), stream=stream) == "Ana."
    kept = await EverthreadChatMessageStore(store, "trip").list_messages()
    answered = [content.result for each in kept for content in each.contents if content.type == "function_result"]
    assert [str(each) for each in answered] == ["Sunny in Rome.", "Sunny in Oslo."]
    assert [pair for pair in betas.said(client.seen[-1]) if pair[0] == "user"] == [
        ("user", "I am Ana"),
        ("user", "Who am I?"),
    ]
    assert betas.said(kept)[-2:] == [("user", "Who am I?"), ("assistant", "Ana.")]


@STREAM
async def test_yes_four_times_keeps_eight_messages(store: Store, stream: bool) -> None:
    who = betas.agent(betas.scripted(), lambda: EverthreadChatMessageStore(store, "t"))
    thread = who.get_new_thread()
    for _ in range(4):
        await betas.run(who, "yes", thread, stream=stream)
    assert betas.said(await thread.message_store.list_messages()) == [("user", "yes"), ("assistant", "Done.")] * 4


@pytest.mark.parametrize("how", ["by restore_thread", "by the framework", "without a factory"])
async def test_a_serialized_thread_continues_in_another_process(
    url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = betas.agent(betas.scripted("Hello Ana."), lambda: store_at(url))
    thread = who.get_new_thread()
    await betas.run(who, "I am Ana", thread)
    state = json.loads(json.dumps(await thread.serialize()))

    if how == "without a factory" and not url.startswith("redis"):
        # On its own a state opens Redis servers only.
        monkeypatch.setenv("EVERTHREAD_STORE", url)
    there = await elsewhere(how, state, url, "Who am I?")
    assert there["id"] == thread.message_store.thread_id
    assert there["seen"] == [["user", "I am Ana"], ["assistant", "Hello Ana."], ["user", "Who am I?"]]
    assert there["reply"] == "Ana, of course."
    assert [list(pair) for pair in betas.said(await thread.message_store.list_messages())] == there["kept"]
    await thread.message_store.aclose()


async def test_the_state_of_a_thread_holds_no_password_by_default() -> None:
    url = "redis://:s3cret@127.0.0.1:1/0"
    thread = betas.agent(betas.scripted(), lambda: RedisChatMessageStore(url, "t")).get_new_thread()
    state = await thread.serialize()
    assert "s3cret" not in json.dumps(state)
    assert state["chat_message_store_state"]["store_metadata"] == {
        "thread_id": "t",
        "redis_url": "redis://127.0.0.1:1/0",
        "key_prefix": "chat_messages",
        "max_messages": None,
    }
    assert "s3cret" in json.dumps(await thread.serialize(include_credentials=True))


async def test_the_caller_may_name_the_url_of_a_restored_store(redis_url: str, fresh_prefix: str) -> None:
    async with RedisChatMessageStore(redis_url, "t", fresh_prefix) as kept:
        await kept.add_messages([betas.message("user", "hi")])
        who = betas.agent(betas.scripted(), lambda: RedisChatMessageStore("redis://127.0.0.1:1/0", "t", fresh_prefix))
        state = await who.get_new_thread().serialize()
        thread = await restore_thread(who, state, redis_url=redis_url)
        assert betas.said(await thread.message_store.list_messages()) == [("user", "hi")]
        await thread.message_store.aclose()


async def test_a_state_that_the_framework_emptied_fails_instead_of_starting_empty(store: Store) -> None:
    lost = {"service_thread_id": None, "chat_message_store_state": {"type": "chat_message_store_state", "messages": []}}
    who = betas.agent(betas.scripted(), lambda: EverthreadChatMessageStore(store))
    for restore in (restore_thread(who, lost), who.deserialize_thread(lost)):
        with pytest.raises(ConfigurationError, match="start it empty"):
            await restore


@pytest.mark.parametrize("state", [None, 7, [], "state"])
async def test_a_value_that_is_no_serialized_thread_is_refused(store: Store, state: Any) -> None:
    who = betas.agent(betas.scripted(), lambda: EverthreadChatMessageStore(store))
    with pytest.raises(ConfigurationError):
        await restore_thread(who, state)


async def test_an_agent_that_would_start_the_thread_empty_is_refused(store: Store) -> None:
    kept = EverthreadChatMessageStore(store, "t")
    state = await betas.agent(betas.scripted(), lambda: kept).get_new_thread().serialize()
    in_memory = betas.agent(betas.scripted(), agent_framework.ChatMessageStore)
    with pytest.raises(ConfigurationError, match="would start it empty"):
        await in_memory.deserialize_thread(state)
    thread = await restore_thread(in_memory, state, store=store)
    assert thread.message_store.thread_id == "t"


async def test_a_thread_class_restores_with_a_store_and_without(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not url.startswith("redis"):
        monkeypatch.setenv("EVERTHREAD_STORE", url)
    async with store_at(url, "t") as kept:
        await kept.add_messages([betas.message("user", "hi")])
        state = await betas.agent(betas.scripted(), lambda: kept).get_new_thread().serialize()
        for given in (None, store_at(url)):
            thread = await agent_framework.AgentThread.deserialize(state, message_store=given)
            assert betas.said(await thread.message_store.list_messages()) == [("user", "hi")]
            await thread.message_store.aclose()
        await kept.delete()


async def test_threads_of_the_frameworks_own_store_are_as_they_were() -> None:
    who = betas.agent(betas.scripted("Hello."), agent_framework.ChatMessageStore)
    thread = who.get_new_thread()
    await betas.run(who, "hi", thread)
    state = await thread.serialize()
    for restored in (await who.deserialize_thread(state), await restore_thread(who, state)):
        assert betas.said(await restored.message_store.list_messages()) == [("user", "hi"), ("assistant", "Hello.")]


async def test_a_thread_in_memory_moves_into_the_store(store: Store) -> None:
    before = betas.agent(betas.scripted("Hello."), None)
    thread = before.get_new_thread()
    await betas.run(before, "hi", thread)
    after = betas.agent(betas.scripted(), lambda: EverthreadChatMessageStore(store, "moved"))
    await restore_thread(after, await thread.serialize())
    kept = await EverthreadChatMessageStore(store, "moved").list_messages()
    assert betas.said(kept) == [("user", "hi"), ("assistant", "Hello.")]


async def test_a_thread_that_the_models_service_keeps_is_as_it_was(store: Store) -> None:
    who = betas.agent(betas.scripted(), lambda: EverthreadChatMessageStore(store))
    state = await who.get_new_thread(service_thread_id="thread_abc").serialize()
    thread = await restore_thread(who, state)
    assert (thread.service_thread_id, thread.message_store) == ("thread_abc", None)


async def test_two_runs_on_one_thread_at_once_keep_each_turn_together(store: Store) -> None:
    who = betas.agent(betas.scripted(), lambda: EverthreadChatMessageStore(store, "t"))
    said = [f"question {number}" for number in range(10)]
    await asyncio.gather(*(betas.run(who, each, who.get_new_thread()) for each in said))
    kept = betas.said(await EverthreadChatMessageStore(store, "t").list_messages())
    assert sorted(text for role, text in kept if role == "user") == said
    assert len(kept) == 20
