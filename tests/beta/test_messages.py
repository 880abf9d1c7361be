"""Messages are written and read as the framework itself would, in whatever beta is installed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everthread import CorruptRecordError, InvalidMessageError, Message, NewMessage, ThreadKey, open_store
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore
from everthread.adapters.agent_framework_beta.messages import message_codec
from everthread.messages.codec import decode_as_text, new_message, view_of
from everthread.messages.converting.generations import KEPT, to_beta, to_current
from tests.adapters.other_formats import CONVERSATIONS, LINK, PNG, SAID
from tests.beta import betas

KEY = ThreadKey("t")
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EXTRAS = st.dictionaries(st.sampled_from(["color", "tag", "x-y"]), JSON, max_size=2)
CALL_IDS = st.sampled_from(["c1", "c2", "call:3", ""])
CALLS = st.builds(betas.call, CALL_IDS, TEXT, TEXT | st.dictionaries(TEXT, JSON, max_size=2) | st.none())
CONTENTS = st.one_of(
    st.builds(betas.text, TEXT),
    st.builds(betas.cited, TEXT),
    st.builds(betas.reasoning, TEXT),
    CALLS,
    st.builds(betas.result, CALL_IDS, JSON, st.none() | st.just(ValueError("boom"))),
    st.builds(betas.image, st.binary(min_size=1, max_size=20)),
    st.just(betas.link()),
    st.builds(betas.error, TEXT, st.none() | TEXT, st.none() | TEXT),
    st.builds(betas.usage, input_token_count=st.integers(0, 99), reasoning=st.integers(0, 9)),
    st.builds(betas.hosted_file, TEXT),
    st.builds(betas.hosted_vector_store, TEXT),
    st.builds(betas.approval_request, st.text(min_size=1, max_size=3), CALLS),
    st.builds(betas.approval_response, st.text(min_size=1, max_size=3), CALLS, approved=st.booleans()),
    st.sampled_from(betas.with_extras()),
)
MESSAGES = st.builds(
    lambda role, contents, author, number, extras: betas.message(
        role, *contents, author_name=author, message_id=number, additional_properties=extras
    ),
    st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
    st.lists(CONTENTS, max_size=4),
    st.none() | TEXT,
    st.none() | TEXT,
    EXTRAS,
)


def stored(payload: bytes) -> Message:
    return Message(7, payload, "agent-framework", None, 7)


def state(value: Any) -> Any:
    """All attributes of an object and of those within."""
    if isinstance(value, list):
        return [state(item) for item in value]
    if isinstance(value, dict):
        return {name: state(item) for name, item in value.items()}
    inner = getattr(value, "__dict__", None)
    return value if inner is None else (type(value).__name__, state(inner))


@given(MESSAGES)
@settings(max_examples=300, deadline=None)
def test_a_written_row_equals_to_dict(message: Any) -> None:
    encoded = message_codec().encode(message)
    assert json.loads(encoded.payload) == message.to_dict()


@given(MESSAGES)
@settings(max_examples=300, deadline=None)
def test_a_read_message_equals_from_dict(message: Any) -> None:
    row = message_codec().encode(message).payload
    read = message_codec().decode(stored(row), KEY)
    expected = type(message).from_dict(json.loads(row))
    assert state(read) == state(expected)
    assert read.to_dict() == message.to_dict()


@given(MESSAGES)
@settings(max_examples=300, deadline=None)
def test_tool_calls_and_results_are_those_of_the_view(message: Any) -> None:
    encoded = message_codec().encode(message)
    seen = new_message(encoded.payload, format="agent-framework")
    assert (encoded.calls, encoded.results) == (seen.calls, seen.results)


@given(MESSAGES)
@settings(max_examples=300, deadline=None)
def test_a_row_that_went_through_the_other_generation_means_the_same(message: Any) -> None:
    row = json.loads(message_codec().encode(message).payload)
    current = to_current(row)
    assert current["type"] == "message"
    assert to_current(to_beta(current)) == current
    back = message_codec().decode(stored(json.dumps(current).encode()), KEY)
    assert (betas.role_of(back), back.text) == (betas.role_of(message), message.text)
    assert [content.type for content in back.contents] == [content.type for content in message.contents]
    assert [getattr(c, "call_id", None) for c in back.contents] == [
        getattr(c, "call_id", None) for c in message.contents
    ]
    assert [getattr(c, "uri", None) for c in back.contents] == [getattr(c, "uri", None) for c in message.contents]


def test_every_content_comes_back() -> None:
    message = betas.message("assistant", *betas.every_content(), author_name="A", message_id="m")
    read = message_codec().decode(stored(message_codec().encode(message).payload), KEY)
    assert read.to_dict() == message.to_dict()


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ((1, "two"), ["1", "two"]),
        (datetime.date(2026, 11, 22), ["2026-11-22"]),
        ({1, 2}, ["1", "2"]),
        ({"a": (1, 2)}, ["a", "1", "2"]),
        ([1, (2, 3)], ["1", "2", "3"]),
    ],
    ids=["tuple", "date", "set", "dict", "list"],
)
def test_a_result_that_to_dict_may_drop_is_kept(value: Any, parts: list[str]) -> None:
    message = betas.message("tool", betas.result("c1", value))
    read = message_codec().decode(stored(message_codec().encode(message).payload), KEY)
    kept = json.dumps(read.contents[0].result)
    assert all(part in kept for part in parts)


@pytest.mark.parametrize(
    "value", [{"a": float("nan")}, "\ud800", {"a": {"b": object()}}], ids=["NaN", "surrogate", "object"]
)
def test_a_value_without_a_json_form_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessageError):
        message_codec().encode(betas.message("tool", betas.result("c1", value)))


@pytest.mark.parametrize("value", [b"x", datetime.date(2020, 1, 1), {1}, {1: "a", "1": "b"}, object()])
def test_values_that_the_framework_drops_are_refused(value: Any) -> None:
    for message in (
        betas.message("user", "a", additional_properties={"x": value}),
        betas.message("user", betas.text("a", additional_properties={"x": value})),
        betas.message("assistant", betas.call("c", arguments={"x": value})),
        betas.message("assistant", betas.call("c", arguments={"x": [value]})),
    ):
        with pytest.raises(InvalidMessageError):
            message_codec().encode(message)


def test_tuples_in_properties_are_stored_as_arrays() -> None:
    row = message_codec().encode(betas.message("user", "a", additional_properties={"x": (1, 2)}))
    assert json.loads(row.payload)["additional_properties"] == {"x": [1, 2]}


@pytest.mark.parametrize(
    "make",
    [
        lambda: betas.message("user", betas.text(cast(Any, None))),
        lambda: betas.message("user", betas.text(cast(Any, 5))),
        lambda: betas.message("tool", betas.result(cast(Any, 5))),
        lambda: betas.message("user", cast(Any, None)),
        lambda: betas.Message(cast(Any, None), contents=[betas.text("a")]),
        lambda: betas.Message(cast(Any, 5), contents=[betas.text("a")]),
    ],
    ids=["null text", "number", "call id", "null content", "no role", "a number as role"],
)
def test_odd_messages_come_back_equal_or_are_refused(make: Callable[[], Any]) -> None:
    try:
        message = make()
    except Exception:
        return  # this release has no such message
    try:
        row = message_codec().encode(message)
    except InvalidMessageError:
        return
    assert message_codec().decode(stored(row.payload), KEY).to_dict() == message.to_dict()


@pytest.mark.parametrize("value", ["hello", None, {"role": "user"}, 7])
def test_only_messages_are_written(value: Any) -> None:
    with pytest.raises(InvalidMessageError, match="is stored here"):
        message_codec().encode(value)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"some": "other", "object": "hi"}',
        b"[]",
        b'"text"',
        b"{",
        b'{"type": "chat_message", "role": 7, "contents": {}}',
        b'{"type": "chat_message", "contents": [{"type": "usage", "details": {"input_token_count": 1, "x": "y"}}]}',
    ],
)
def test_a_row_that_is_no_message_is_reported_with_its_position(payload: bytes) -> None:
    if not betas.HAS_CLASSES and b"usage" in payload:
        return  # one class for all contents takes any counts
    with pytest.raises(CorruptRecordError, match="position 7"):
        message_codec().decode(stored(payload), KEY)


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation_of_another_format_reaches_the_agent(name: str) -> None:
    async with open_store("memory:") as store:
        await store.append(KEY, [new_message(each, format=name) for each in CONVERSATIONS[name]])
        read = await EverthreadChatMessageStore(store, "t").list_messages()
    assert [message.text for message in read if message.text] == ["Weather?", "It is sunny."]
    contents = [content for message in read for content in message.contents]
    assert [content.uri for content in contents if content.type in {"data", "uri"}] == [PNG, LINK]
    assert [c.call_id for c in contents if c.type == "function_call"] == ["c1", "c2"]
    results = [(c.call_id, c.result) for c in contents if c.type == "function_result"]
    assert results == [("c1", "sunny"), ("c2", "warm")]
    assert all(message.contents for message in read)
    betas.refuse_invalid(betas.shape(read))


@pytest.mark.parametrize("name", SAID)
@given(st.data())
@settings(deadline=None)
def test_text_of_every_format_reaches_the_agent(name: str, data: st.DataObject) -> None:
    message = Message(0, json.dumps(data.draw(SAID[name])).encode(), name, None, 0)
    text = view_of(decode_as_text(message), name).text
    read = message_codec().decode(message, KEY)
    assert text
    assert "".join(content.text for content in read.contents if content.type == "text") == text


async def test_a_bad_record_is_left_out_of_the_history(caplog: pytest.LogCaptureFixture) -> None:
    async with open_store("memory:") as store:
        await store.append(KEY, [new_message(betas_row(text)) for text in ("first", "last")])
        await store.append(KEY, [NewMessage(each) for each in (b"5", b"[]", b'{"a": 1}', b'{"contents": [1]}')])
        read = await EverthreadChatMessageStore(store, "t").list_messages()
    assert [message.text for message in read] == ["first", "last"]
    assert caplog.text.count("of thread 't'") == 4


def betas_row(text: str) -> dict[str, Any]:
    role = {"type": "role", "value": "user"}
    return {"type": "chat_message", "role": role, "contents": [{"type": "text", "text": text}]}


def test_contents_of_the_future_are_left_out_and_kept() -> None:
    row = {
        "type": "message",
        "role": "assistant",
        "contents": [{"type": "text", "text": "ok", "mood": "good"}, {"type": "hologram", "depth": 3}],
    }
    read = message_codec().decode(stored(json.dumps(row).encode()), KEY)
    assert (read.text, len(read.contents)) == ("ok", 1)
    assert read.raw_representation == {KEPT: row}
    assert "hologram" not in json.dumps(read.to_dict())
