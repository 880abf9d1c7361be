"""An agent of Agent Framework gets the conversations that other programs and the store's own API wrote."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from agent_framework import Agent, AgentSession
from hypothesis import given
from hypothesis import strategies as st

from everthread import Message as StoredMessage
from everthread import ThreadKey, new_message
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.agent_framework.messages import from_stored
from everthread.engines.memory import MemoryStore
from everthread.messages.codec import _formats, decode_as_text, view_of
from tests.adapters.other_formats import CONVERSATIONS, LINK, PNG, SAID
from tests.adapters.scripted import ScriptedClient

KEY = ThreadKey("trip")


def stored(value: Any, format: str) -> StoredMessage:
    return StoredMessage(0, json.dumps(value).encode(), format, None, 0)


def test_every_registered_format_is_covered() -> None:
    assert {name for name in _formats if not name.startswith(("tele", "raises", "broken"))} == set(SAID)


@pytest.mark.parametrize("name", SAID)
@given(st.data())
def test_text_of_every_format_reaches_the_agent(name: str, data: st.DataObject) -> None:
    value = data.draw(SAID[name])
    message = stored(value, name)
    text = view_of(decode_as_text(message), name).text
    read = from_stored(message)
    assert text
    assert "".join(content.text for content in read.contents if content.type == "text") == text
    assert read.role in {"user", "assistant", "system"}
    # What a request to a model is made of.
    json.dumps(read.to_dict(), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("is_named", [True, False])
async def test_a_conversation_of_another_format_reaches_the_model(name: str, is_named: bool) -> None:
    async with MemoryStore() as store:
        values = CONVERSATIONS[name]
        turn = [new_message(each, format=name if is_named else None) for each in values]
        await store.append(KEY, turn)
        client = ScriptedClient("Yes.")
        provider = EverthreadHistoryProvider(store)
        await Agent(client, context_providers=[provider]).run("And now?", session=AgentSession(session_id="trip"))
        given_ = client.seen[0]
    assert [message.text for message in given_ if message.text] == ["Weather?", "It is sunny.", "And now?"]
    contents = [content for message in given_ for content in message.contents]
    assert [c.uri for c in contents if c.type in {"data", "uri"}] == [PNG, LINK]
    calls = [(c.call_id, c.name, c.parse_arguments()) for c in contents if c.type == "function_call"]
    assert calls == [("c1", "weather", {"city": "Rome"}), ("c2", "weather", {"city": "Rome"})]
    assert [(c.call_id, c.result) for c in contents if c.type == "function_result"] == [("c1", "sunny"), ("c2", "warm")]
    assert all(message.contents for message in given_)


@pytest.mark.parametrize("format", [None, "chat-completions"])
async def test_results_and_text_of_one_message_reach_the_model(format: str | None) -> None:
    image = {"type": "image", "source": {"type": "url", "url": LINK}}
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}
    answer = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}, image]}
    values = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, use]},
        {"role": "user", "content": [answer, {"type": "text", "text": "Be short."}]},
    ]
    async with MemoryStore() as store:
        await store.append(KEY, [new_message(each, format=format) for each in values])
        client, provider = ScriptedClient("Yes."), EverthreadHistoryProvider(store)
        await Agent(client, context_providers=[provider]).run("And now?", session=AgentSession(session_id="trip"))
    assert [(message.role, [content.type for content in message.contents]) for message in client.seen[0]] == [
        ("user", ["text"]),
        ("assistant", ["text", "function_call"]),
        ("tool", ["function_result"]),
        ("user", ["text"]),
        ("user", ["text"]),
    ]
    result = client.seen[0][2].contents[0]
    assert [(item.type, item.text or item.uri) for item in result.items or ()] == [("text", "sunny"), ("uri", LINK)]


@pytest.mark.parametrize("content", [[{"type": "novel", "body": "private"}], {"private": 1}])
async def test_contents_that_are_unknown_are_left_out_with_a_warning(content: Any, caplog) -> None:
    async with MemoryStore() as store:
        await store.append(KEY, [new_message({"role": "user", "content": content})])
        client, provider = ScriptedClient("Yes."), EverthreadHistoryProvider(store)
        await Agent(client, context_providers=[provider]).run("And now?", session=AgentSession(session_id="trip"))
    assert [message.text for message in client.seen[0]] == ["And now?"]
    assert "position 0 of thread 'trip'" in caplog.text
    assert "private" not in caplog.text


BAD = {
    "not JSON": b'{"role": "us',
    "nothing": b"",
    "a number": b"5",
    "a text": b'"private"',
    "an array": b'["private"]',
    "another object": b'{"private": 1}',
    "no role": b'{"type":"message","contents":[{"type":"text","text":"private"}]}',
    "text that is none": b'{"type":"message","role":"user","contents":[{"type":"text","text":5}]}',
    "bytes": b"\xff\x00private",
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_bad_record_is_left_out_of_a_run(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryStore() as store:
        turn = [new_message({"role": "user", "content": text}) for text in ("first", "bad", "last")]
        await store.append(KEY, turn)
        log = store._threads[KEY]
        log.messages[1] = StoredMessage(1, BAD[bad], "json", 0, 0)
        client, provider = ScriptedClient("Yes."), EverthreadHistoryProvider(store)
        with caplog.at_level(logging.WARNING):
            await Agent(client, context_providers=[provider]).run("And now?", session=AgentSession(session_id="trip"))
        assert [message.text for message in client.seen[0]] == ["first", "last", "And now?"]
        assert [message.text for message in await provider.get_messages("trip")][:2] == ["first", "last"]
    assert "position 1 of thread 'trip'" in caplog.text
    assert "private" not in caplog.text


async def test_odd_text_of_another_program_reaches_the_model_as_text() -> None:
    async with MemoryStore() as store:
        await store.append(KEY, [new_message({"role": "user", "content": "x"})])
        odd = b'{"role": "user", "content": "half \\ud83d, whole \\ud83d\\ude00", "score": NaN}'
        store._threads[KEY].messages[0] = StoredMessage(0, odd, "chat-completions", 0, 0)
        client, provider = ScriptedClient("Yes."), EverthreadHistoryProvider(store)
        await Agent(client, context_providers=[provider]).run("And now?", session=AgentSession(session_id="trip"))
    assert client.seen[0][0].text == "half \N{REPLACEMENT CHARACTER}, whole \N{GRINNING FACE}"
