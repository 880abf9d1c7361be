"""Messages are written and read as the framework itself would, in whatever beta is installed."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everthread import CorruptRecordError, InvalidMessageError, Message, ThreadKey
from everthread.adapters.agent_framework.beta_messages import message_codec
from everthread.adapters.agent_framework.conversion import KEPT, to_beta, to_current
from everthread.codec import new_message
from tests.beta import betas

KEY = ThreadKey("t")
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EXTRAS = st.dictionaries(st.sampled_from(["colour", "tag", "x-y"]), JSON, max_size=2)
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
def test_what_is_written_is_what_to_dict_gives(message: Any) -> None:
    encoded = message_codec().encode(message)
    assert json.loads(encoded.payload) == message.to_dict()


@given(MESSAGES)
@settings(max_examples=300, deadline=None)
def test_what_is_read_is_what_from_dict_makes(message: Any) -> None:
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
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessageError):
        message_codec().encode(betas.message("tool", betas.result("c1", value)))


@pytest.mark.parametrize("value", ["hello", None, {"role": "user"}, 7])
def test_only_messages_are_written(value: Any) -> None:
    with pytest.raises(InvalidMessageError, match="is stored here"):
        message_codec().encode(value)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"role": "user", "content": "hi"}',
        b"[]",
        b'"text"',
        b"{",
        b'{"type": "chat_message", "role": 7, "contents": {}}',
        b'{"type": "chat_message", "contents": [{"type": "usage", "details": {"input_token_count": 1, "x": "y"}}]}',
    ],
)
def test_a_row_that_is_no_message_says_where_it_is(payload: bytes) -> None:
    if not betas.HAS_CLASSES and b"usage" in payload:
        return  # one class for all contents takes any counts
    with pytest.raises(CorruptRecordError, match="position 7"):
        message_codec().decode(stored(payload), KEY)


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
