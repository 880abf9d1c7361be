"""Encoding refuses what JSON cannot carry, and decoding is liberal with what others stored."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, sampled_from

from everthread.codec import (
    View,
    decode,
    encode,
    new_message,
    recognise,
    register_format,
    shorten,
    title_from,
    view,
    view_of,
)
from everthread.errors import ConfigurationError, CorruptRecordError, EverthreadError, InvalidMessageError
from everthread.model import Message, NewMessage, ThreadKey
from everthread.testing import agent_framework_messages, json_values, payloads


@dataclass
class Measured:
    value: float


@given(json_values())
def test_json_comes_back_equal(value: object) -> None:
    assert decode(encode(value)) == value
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        [-math.inf],
        {"a": {"b": (None, math.nan)}},
        {math.nan},
        Measured(math.nan),
        [None, Measured(math.inf)],
        "\ud800",
        {"\udfff": 1},
        object(),
        {"a": object()},
        {(1, 2): 3},
        {None: 1},
        1j,
    ],
    # Not repr: an object's holds its address, and test runners side by side must agree on the names.
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_what_json_lacks_is_refused(value: object) -> None:
    with pytest.raises(InvalidMessageError):
        encode(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidMessageError):
        encode(endless)


def test_null_beside_numbers_is_no_nan() -> None:
    assert encode({"a": None, "b": [1.5, None, Measured(1.5)]}) == b'{"a":null,"b":[1.5,null,{"value":1.5}]}'


@given(payloads())
def test_every_payload_decodes_as_json_does(payload: bytes) -> None:
    assert decode(payload) == json.loads(payload)


@pytest.mark.parametrize("payload", [b"NaN", b"[Infinity]", b'"\\ud800"', b"1e400"])
def test_what_another_program_stored_is_decoded_as_it_meant(payload: bytes) -> None:
    assert repr(decode(payload)) == repr(json.loads(payload))


@pytest.mark.parametrize("payload", [b"", b"{", b'"private', b'"\xff"', b"[" * 100_000, b"1" * 5000])
def test_a_corrupt_record_says_where_and_not_what(payload: bytes) -> None:
    message = Message(7, payload, "json", 0, 7)
    with pytest.raises(CorruptRecordError) as caught:
        decode(message, ThreadKey("trip"))
    assert "position 7" in str(caught.value)
    assert "trip" in str(caught.value)
    assert "private" not in str(caught.value)
    with pytest.raises(CorruptRecordError):
        view(message)


@given(payloads())
def test_any_payload_makes_a_message(payload: bytes) -> None:
    assert new_message(payload).payload == payload


@given(agent_framework_messages())
def test_calls_and_results_are_found(message: NewMessage) -> None:
    assert message.format == "agent-framework"
    contents = json.loads(message.payload)["contents"]
    assert message.calls == tuple(c["call_id"] for c in contents if c["type"] == "function_call")
    assert message.results == tuple(c["call_id"] for c in contents if c["type"] == "function_result")


@pytest.mark.parametrize("value", [None, 5, 1j, "text", b"{", b"1" * 5000, {"a": math.nan}, {"a": "\ud800"}])
def test_what_is_no_message_is_refused(value: object) -> None:
    if isinstance(value, str | int | None):
        # Any JSON can be kept; only an object has a view.
        assert view_of(value).calls == ()
        return
    with pytest.raises(InvalidMessageError):
        new_message(value)


def test_the_time_of_an_import_is_kept() -> None:
    made = datetime(2020, 1, 1, tzinfo=UTC)
    assert new_message({"role": "user", "content": "x"}, created_at=made).created_at == made


def test_formats_are_recognised() -> None:
    assert recognise({"role": "user", "content": "x"}) == "chat-completions"
    assert recognise({"type": "message", "role": "user", "contents": []}) == "agent-framework"
    assert recognise({"type": "chat_message", "role": {"value": "user"}, "contents": []}) == "agent-framework"
    for other in ({}, {"role": "user"}, [], "text", None, 5):
        assert recognise(other) == "json"


def test_a_format_can_be_added() -> None:
    class Telegram:
        def matches(self, value: Mapping[str, object]) -> bool:
            return "telegram" in value

        def view(self, value: Mapping[str, object]) -> View:
            return View(role="user", text=str(value["telegram"]))

    register_format("telegram", Telegram())
    assert new_message({"telegram": "stop"}).format == "telegram"
    assert view_of({"telegram": "stop"}, "unknown").text == "stop"


def test_a_format_that_cannot_be_loaded_is_a_typed_error() -> None:
    register_format("broken", "everthread.formats.there_is_none")
    try:
        with pytest.raises(ConfigurationError):
            view_of({"a": 1}, "broken")
    finally:
        from everthread import codec

        del codec._formats["broken"]


@pytest.mark.parametrize("name", ["agent-framework", "chat-completions", "unknown", None])
@given(value=json_values())
def test_no_json_breaks_a_view(name: str | None, value: object) -> None:
    assert isinstance(view_of(value, name), View)
    nested = {"type": "message", "role": value, "contents": [value, {"type": "text", "text": value}], "content": value}
    try:
        assert isinstance(view_of(nested, name), View)
    except EverthreadError:
        pytest.fail("a view of strange JSON is an error")


def test_a_title_is_the_first_line_of_the_first_user() -> None:
    views = [
        View(role="system", text="Be kind."),
        View(role="user", text="  "),
        View(role="user", text="To\n Rome  now"),
    ]
    assert title_from(views) == "To Rome now"
    assert title_from([]) is None
    assert shorten("x" * 100, 10) == "x" * 9 + "…"
    assert len(shorten("word " * 1000, 80)) <= 80


_LINKED: list[tuple[str, dict[str, Any]]] = [
    ("agent-framework", {"contents": [{"type": "function_call", "call_id": "c"}]}),
    ("agent-framework", {"contents": [{"type": "function_result", "call_id": "c"}]}),
    ("agent-framework", {"contents": [{"type": "function_approval_request", "id": "c"}]}),
    ("agent-framework", {"contents": [{"type": "function_approval_response", "id": "c"}]}),
    ("chat-completions", {"role": "assistant", "tool_calls": [{"id": "c"}]}),
    ("chat-completions", {"role": "tool", "tool_call_id": "c"}),
    ("langchain", {"type": "ai", "data": {"tool_calls": [{"id": "c"}]}}),
    ("langchain", {"type": "tool", "data": {"tool_call_id": "c"}}),
    ("openai-responses", {"type": "function_call", "call_id": "c"}),
    ("openai-responses", {"type": "function_call_output"}),
]


@given(sampled_from(_LINKED), json_values(), booleans())
def test_calls_are_found_in_bytes_as_in_values(
    linked: tuple[str, dict[str, Any]], other: object, is_ascii: bool
) -> None:
    name, value = linked
    for each in ({**value, "é": other}, {"role": "user", "type": "human", "contents": [other], "content": other}):
        text = json.dumps(each, ensure_ascii=is_ascii)
        for written in (text, text.replace("call", "\\u0063all").replace("app", "\\u0061pp")):
            given_, seen = new_message(written.encode(), format=name), view_of(each, name)
            assert given_.calls == tuple(call.id for call in seen.calls)
            assert given_.results == tuple(result.id for result in seen.results)
            assert given_.payload == written.encode()


def test_bytes_that_are_no_json_are_refused_whether_or_not_they_are_decoded() -> None:
    for payload in (b'{"a":NaN}', b'{"call_id":NaN}', b'"\xff"', b"", b'"\\ud800"'):
        for name in (None, "agent-framework", "json"):
            with pytest.raises(InvalidMessageError, match="not JSON in UTF-8"):
                new_message(payload, format=name)
