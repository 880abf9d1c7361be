"""Encoding refuses what JSON cannot carry, and decoding is liberal with what others stored."""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from importlib import import_module
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import booleans, sampled_from

from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.messages import codec
from everthread.messages.codec import (
    View,
    decode,
    encode,
    new_message,
    recognize,
    register_format,
    shorten,
    title_from,
    view,
    view_of,
)
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
    assert encode({"a": None, "b": [1.5, None, -0.0]}) == b'{"a":null,"b":[1.5,null,-0.0]}'


class Color(Enum):
    RED = "red"


class Tone(StrEnum):
    LOW = "low"


class Small(int):
    pass


class Pair(NamedTuple):
    a: int


_ALTERED: list[object] = [
    {1: "a", "1": "b"},
    {1.5: 1},
    b"secret",
    bytearray(b"secret"),
    memoryview(b"secret"),
    datetime(2020, 1, 1, tzinfo=UTC),
    timedelta(1),
    Decimal("1.5"),
    {"secret"},
    frozenset(["secret"]),
    Color.RED,
    {Color.RED: 1},
    Measured(1.5),
    Small(1),
    Pair(1),
    UUID(int=5),
    msgspec.Raw(b"1"),
    math.nan,
    "secret \ud800",
]


@pytest.mark.parametrize("value", _ALTERED, ids=[f"{index}" for index in range(len(_ALTERED))])
def test_what_json_would_alter_is_refused_by_place(value: object) -> None:
    for wrapped, place in (
        ({"a": {"b": [None, value]}}, "a.b[1] "),
        ({"a": (OrderedDict(b=value),)}, "a[0].b "),
    ):
        with pytest.raises(InvalidMessageError) as caught:
            new_message(wrapped)
        assert str(caught.value).startswith(place)
        assert "secret" not in str(caught.value)


def test_the_place_shows_no_name_that_may_be_content() -> None:
    with pytest.raises(InvalidMessageError, match=r"^a\.\*\[0\] is of type bytes"):
        encode({"a": {"my secret": [b""]}})


def test_what_json_gives_back_equal_is_accepted() -> None:
    value = {"a": OrderedDict(b=[Tone.LOW, True, 10**40]), Tone.LOW: defaultdict(list)}
    assert decode(encode(value)) == value
    assert encode((1, (2,))) == b"[1,[2]]"


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
    assert recognize({"role": "user", "content": "x"}) == "chat-completions"
    assert recognize({"type": "message", "role": "user", "contents": []}) == "agent-framework"
    assert recognize({"type": "chat_message", "role": {"value": "user"}, "contents": []}) == "agent-framework"
    for other in ({}, {"role": "user"}, [], "text", None, 5):
        assert recognize(other) == "json"


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
    register_format("broken", "everthread.messages.formats.there_is_none")
    try:
        with pytest.raises(ConfigurationError):
            view_of({"a": 1}, "broken")
    finally:
        del codec._formats["broken"]


FORMATS = ("agent_framework", "anthropic", "chat_completions", "langchain", "openai_responses", "pydantic_ai")
_names = st.sampled_from(
    re.findall(
        r"\w+",
        """type role content contents data text tool_calls tool_call_id call_id id name function arguments args input
        function_call image_url source tool_use_id thinking base64 url uri media_type input_audio file
        output result summary value author_name kind parts part_kind tool_name""",
    )
)
_words = st.sampled_from(
    re.findall(
        r"\w+",
        """message chat_message text data uri error function_call function_result function_approval_request reasoning
        tool_use tool_result thinking document function_call_output human ai tool user assistant
        chat input_image input_file output_text image request response binary speech""",
    )
)
_odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _words | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.parametrize("name", FORMATS)
@given(_odd_json)
def test_no_json_breaks_a_view(name: str, value: object) -> None:
    format = cast(codec.Format, import_module(f"everthread.messages.formats.{name}"))
    for each in (
        value,
        {"type": value, "role": value, "contents": [value], "content": value, "data": {"content": value}},
        {"kind": value, "parts": [value]},
    ):
        known = codec.as_object(each)
        assert type(format.matches(known)) is bool
        seen = format.view(known)
        # Of the declared types, or whoever uses the view raises.
        assert msgspec.convert(msgspec.to_builtins(seen), View, strict=True) == seen


_parts_with_links = st.fixed_dictionaries(
    {
        "type": sampled_from(
            [
                "function_call",
                "function_result",
                "mcp_server_tool_call",
                "function_approval_request",
                "function_approval_response",
                "tool_use",
                "tool_result",
                "text",
                "image",
            ]
        )
    },
    optional=dict.fromkeys(("call_id", "id", "tool_use_id", "text", "refusal"), sampled_from(["a", "b", "", 5, None]))
    | {"function_call": st.fixed_dictionaries({"type": sampled_from(["function_call", "x"]), "call_id": _words})}
    | {"content": _odd_json},
)
_messages_with_links = st.fixed_dictionaries(
    {},
    optional={
        "type": sampled_from(
            [
                "message",
                "chat_message",
                "function_call",
                "function_call_output",
                "custom_tool_call",
                "reasoning",
                "ai",
                "tool",
                "human",
                "chat",
            ]
        ),
        "role": sampled_from(["user", "assistant", "tool", {"value": "tool"}]),
        "call_id": sampled_from(["a", "", 5, None, True]),
        "tool_call_id": sampled_from(["a", "", 5, None]),
        "tool_calls": st.lists(st.dictionaries(sampled_from(["id", "function"]), _words | st.none()) | _odd_json),
        "contents": st.lists(_parts_with_links | _odd_json, max_size=3),
        "content": st.lists(_parts_with_links | _odd_json, max_size=3) | _odd_json,
        "data": _odd_json,
    },
)


@pytest.mark.parametrize("name", FORMATS)
@given(_messages_with_links | st.dictionaries(_names, _odd_json, max_size=5))
def test_links_equal_those_of_the_view(name: str, value: dict[str, object]) -> None:
    format = import_module(f"everthread.messages.formats.{name}")
    for each in (value, {**value, "data": value}):
        seen = format.view(each)
        calls, results = tuple(call.id for call in seen.calls), tuple(result.id for result in seen.results)
        assert format.links(each) == (calls, results)


@given(payloads() | st.binary(max_size=9) | st.builds(bytes.__add__, payloads(), st.binary(max_size=2)))
def test_a_payload_is_accepted_as_by_new_message_itself(payload: bytes) -> None:
    try:
        expected = NewMessage(payload)
    except InvalidMessageError:
        with pytest.raises(InvalidMessageError):
            new_message(payload)
    else:
        assert new_message(payload).payload == expected.payload


@given(json_values())
def test_an_encoded_value_is_valid_json(value: object) -> None:
    new = new_message({"role": "user", "content": value})
    assert new == NewMessage(new.payload, "chat-completions", new.calls, new.results)
    assert hash(new) == hash(NewMessage(new.payload, "chat-completions", new.calls, new.results))


def test_a_value_is_encoded_only_as_deep_as_it_can_be_decoded() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
        try:
            payload = encode({"a": deep})
        except InvalidMessageError:
            break
        assert NewMessage(payload).payload == payload


@pytest.mark.parametrize("name", [*codec._formats, "unknown", None])
@pytest.mark.parametrize("field", ["role", "contents", "content", "data", "output", "arguments"])
def test_deep_json_has_a_view(name: str | None, field: str) -> None:
    deep: Any = {"text": 1}
    for _ in range(100_000):
        deep = [deep]
    for kind in ("message", "function_call_output", "human"):
        assert isinstance(view_of({"type": kind, "call_id": "c", field: deep}, name), View)
    # Freed from the outside in: Python frees it recursively.
    while isinstance(deep, list):
        deep = deep.pop()


def test_a_format_that_raises_gives_an_empty_view() -> None:
    class Broken:
        def matches(self, value: Mapping[str, object]) -> bool:
            raise ValueError

        def view(self, value: Mapping[str, object]) -> View:
            raise ValueError

    register_format("raises", Broken())
    try:
        assert view_of({"a": 1}, "raises") == View()
        assert recognize({"a": 1}) == "json"
    finally:
        del codec._formats["raises"]


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
    ("anthropic", {"role": "assistant", "content": [{"type": "tool_use", "id": "c"}]}),
    ("anthropic", {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]}),
    ("langchain", {"type": "ai", "data": {"tool_calls": [{"id": "c"}]}}),
    ("langchain", {"type": "tool", "data": {"tool_call_id": "c"}}),
    ("openai-responses", {"type": "function_call", "call_id": "c"}),
    ("openai-responses", {"type": "function_call_output"}),
    ("pydantic-ai", {"kind": "response", "parts": [{"part_kind": "tool-call", "tool_call_id": "c"}]}),
    ("pydantic-ai", {"kind": "request", "parts": [{"part_kind": "tool-return", "tool_call_id": "c"}]}),
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


def test_bytes_that_are_not_json_are_always_refused() -> None:
    for payload in (b'{"a":NaN}', b'{"call_id":NaN}', b'"\xff"', b"", b'"\\ud800"'):
        for name in (None, "agent-framework", "json"):
            with pytest.raises(InvalidMessageError, match="not JSON in UTF-8"):
                new_message(payload, format=name)
