"""Each fault is found in each format with its place, and the repaired list is one that services accept."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread import InvalidMessageError
from everthread.messages.codec import recognize, view_of
from everthread.messages.rules.links import NO_RESULT, shape_of
from everthread.messages.rules.services import DESCRIPTIONS, RULES, Kind, Service
from everthread.operations import inspect_messages, repair_messages
from tests.messages.rules import FORMATS, AgentFramework, Anthropic, ChatCompletions, LangChain, Message, Responses

UNIQUE = "call_0123456789"
SERVICES = get_args(Service)
each_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


def kinds(messages: list[Any], **options: Any) -> list[tuple[str, int]]:
    faults = inspect_messages(messages, **options)
    return [(fault.kind, fault.at) for fault in faults if not fault.is_harmless]


def repaired(messages: list[Any], form: ChatCompletions, **options: Any) -> list[Any]:
    """Repair a list, check the result, and return it."""
    before = copy.deepcopy(messages)
    after = repair_messages(messages, format=form.name, **options).messages
    assert messages == before
    assert kinds(after, format=form.name, **options) == []
    return after


def links(messages: list[Any], form: ChatCompletions) -> list[str]:
    """Return the text, calls and results of messages."""
    found: list[str] = []
    for message in messages:
        seen = view_of(message, form.name)
        found += [r.id for r in seen.results] + [seen.text] * bool(seen.text) + [f"call {c.id}" for c in seen.calls]
    return found


def test_the_table_is_complete_and_each_refusal_has_a_source() -> None:
    assert set(RULES) == set(DESCRIPTIONS) == set(get_args(Kind))
    for kind, answers in RULES.items():
        assert set(answers) == set(SERVICES), kind
        for service, answer in answers.items():
            assert bool(answer.text) == bool(answer.source), (kind, service)


@each_format
def test_the_formats_are_recognized(form: ChatCompletions) -> None:
    for message in (*form.call("1"), form.result("1")):
        assert recognize(message) == form.name


@each_format
def test_a_healthy_list_stays_the_same_objects(form: ChatCompletions) -> None:
    turn = [form.said("q"), *form.call("1", "2"), form.result("1"), form.result("2"), form.said("a", "assistant")]
    thought = form.reasoning()
    messages = [*turn, *([thought] if thought else []), *copy.deepcopy(turn[1:]), form.said("yes"), form.said("yes")]
    outcome = repair_messages(messages)
    assert [fault for fault in outcome.faults if not fault.is_harmless] == []
    assert all(one is other for one, other in zip(outcome.messages, messages, strict=True))


@each_format
def test_an_orphaned_result(form: ChatCompletions) -> None:
    messages = [form.said("q"), form.result("lost"), form.said("a", "assistant")]
    (fault,) = inspect_messages(messages, format=form.name)
    assert (fault.kind, fault.at, fault.call_id, fault.repair) == ("orphaned-result", 1, "lost", "removed")
    assert "400" in fault.refusal
    assert "lost" in fault.text
    assert repaired(messages, form) == [messages[0], messages[2]]


@each_format
def test_an_unanswered_call(form: ChatCompletions) -> None:
    messages = [form.said("q"), *form.call("open"), form.said("again")]
    assert kinds(messages, format=form.name) == [("unanswered-call", 1)]
    after = repaired(messages, form)
    assert links(after, form)[:3] == ["q", "call open", "open"]
    assert NO_RESULT in json.dumps(after)


@each_format
def test_one_of_parallel_calls_without_a_result(form: ChatCompletions) -> None:
    calls = form.call("1", "2")
    messages = [form.said("q"), *calls, form.result("1"), form.said("again")]
    assert kinds(messages, format=form.name) == [("unanswered-call", len(calls))]
    assert sorted(links(repaired(messages, form), form)) == ["1", "2", "again", "call 1", "call 2", "q"]


@each_format
def test_a_result_before_its_call(form: ChatCompletions) -> None:
    messages = [form.said("q"), form.result("1"), *form.call("1"), form.said("a", "assistant")]
    assert kinds(messages, format=form.name) == [("early-result", 1)]
    assert links(repaired(messages, form), form) == ["q", "call 1", "1", "a"]


@each_format
def test_a_result_that_does_not_follow_its_call(form: ChatCompletions) -> None:
    messages = [form.said("q"), *form.call("1"), form.said("other"), form.result("1"), form.said("a", "assistant")]
    (fault, *_) = inspect_messages(messages, format=form.name)
    assert (fault.kind, fault.at) == ("separated-result", 3)
    # The items of Responses are linked by their IDs alone.
    assert fault.is_harmless == (form.name == "openai-responses")
    if not fault.is_harmless:
        assert links(repaired(messages, form), form) == ["q", "call 1", "1", "other", "a"]


@each_format
def test_a_second_result(form: ChatCompletions) -> None:
    messages = [form.said("q"), *form.call("1"), form.result("1"), form.result("1"), form.said("a", "assistant")]
    assert kinds(messages, format=form.name) == [("duplicate", 3)]
    assert repaired(messages, form) == [*messages[:3], messages[4]]


@each_format
def test_a_replayed_transcript(form: ChatCompletions) -> None:
    turn = [form.said("q"), *form.call(UNIQUE), form.result(UNIQUE), form.said("a", "assistant")]
    messages = [form.said("before"), *turn, *copy.deepcopy(turn), form.said("next")]
    assert kinds(messages, format=form.name) == [("duplicate", 5)]
    assert repaired(messages, form) == [*messages[:5], messages[-1]]
    assert len(repaired([*messages[:-1], *copy.deepcopy(turn), messages[-1]], form)) == 6


@each_format
def test_a_genuine_repeat_is_kept(form: ChatCompletions) -> None:
    turn = [form.said("yes"), form.said("Done.", "assistant")]
    assert repaired([*turn, *turn, *turn], form) == [*turn, *turn, *turn]
    # Some models number their calls anew in each turn.
    turn = [form.said("q"), *form.call("call_0"), form.result("call_0"), form.said("a", "assistant")]
    assert repaired([*turn, *turn], form) == [*turn, *turn]


@pytest.mark.parametrize(
    ("message", "same"),
    [
        ({"type": "message", "id": "msg_1", "role": "assistant", "content": "a"}, True),
        (
            {"type": "message", "message_id": "m1", "role": "assistant", "contents": [{"type": "text", "text": "a"}]},
            True,
        ),
        ({"type": "ai", "data": {"content": "a", "type": "ai", "id": "run-1"}}, True),
    ],
    ids=["openai-responses", "agent-framework", "langchain"],
)
def test_the_same_id_again(message: Message, same: bool) -> None:
    (fault,) = inspect_messages([message, dict(message)])
    assert (fault.kind, fault.at, fault.repair) == ("duplicate", 1, "removed")
    assert repair_messages([message, dict(message)]).messages == [message]


def test_the_same_id_with_other_content_is_reported_only() -> None:
    first = {"type": "message", "id": "msg_1", "role": "assistant", "content": "a"}
    messages = [first, {**first, "content": "b"}]
    (fault,) = inspect_messages(messages)
    assert (fault.kind, fault.repair, "Duplicate item" in fault.refusal) == ("duplicate", "", True)
    assert repair_messages(messages).messages == messages


@each_format
def test_an_empty_message_of_the_assistant(form: ChatCompletions) -> None:
    messages = [form.said("q"), form.empty(), form.said("again")]
    assert kinds(messages, format=form.name) == [("empty-message", 1)]
    assert repaired(messages, form) == [messages[0], messages[2]]


@each_format
def test_reasoning_that_nothing_follows(form: ChatCompletions) -> None:
    thought = form.reasoning()
    if thought is None:
        assert form.name == "chat-completions", "it has no message of reasoning alone"
        return
    messages = [form.said("q"), thought, form.said("again")]
    assert kinds(messages, format=form.name) == [("dangling-reasoning", 1)]
    assert repaired(messages, form) == [messages[0], messages[2]]
    whole = [form.said("q"), thought, *form.call("1"), form.result("1"), form.said("a", "assistant")]
    assert repaired(whole, form) == whole


@each_format
def test_half_a_turn_is_reported_and_kept(form: ChatCompletions) -> None:
    messages = [form.said("q"), *form.call("1"), form.result("1"), form.said("next")]
    (fault,) = inspect_messages(messages, format=form.name)
    assert (fault.kind, fault.at, fault.is_harmless) == ("half-turn", 2, True)
    assert repaired(messages, form) == messages


@each_format
def test_calls_of_a_running_turn_wait(form: ChatCompletions) -> None:
    messages = [form.said("q"), *form.call("1"), form.said("next"), *form.call("2")]
    assert kinds(messages, format=form.name, is_running=True) == [("unanswered-call", 1)]
    assert kinds(messages, format=form.name) == [("unanswered-call", 1), ("unanswered-call", 3)]
    assert repaired(messages, form, is_running=True)[-1] is messages[-1]


def test_records_that_are_not_json() -> None:
    good = b'{"role": "user", "content": "q"}'
    for bad in (b"", b"\xff", b'{"role": "us', b"5", b"[1]", b"null", b'{"a":' * 100_000):
        (fault,) = inspect_messages([good, bad])
        assert (fault.kind, fault.at, fault.repair) == ("undecodable", 1, "removed")
        assert repair_messages([good, bad]).messages == [good]


@pytest.mark.parametrize("text", ['"\\ud83d"', "NaN", "-Infinity"])
def test_a_lone_surrogate_or_nan(text: str) -> None:
    stored = '{"role": "user", "content": "q", "more": ' + text + "}"
    for message in (stored.encode(), stored, json.loads(stored)):
        (fault,) = inspect_messages([message])
        assert (fault.kind, fault.repair) == ("unencodable", "written as strict JSON")
        (after,) = repair_messages([message]).messages
        assert type(after) is type(message)
        assert inspect_messages([after]) == []


@pytest.mark.parametrize(
    ("form", "limit"), [(ChatCompletions(), 1_048_576), (Responses(), 10_485_760), (AgentFramework(), 1_048_576)]
)
def test_a_message_above_the_limit_of_the_service(form: ChatCompletions, limit: int) -> None:
    assert inspect_messages([form.said("x" * limit)], format=form.name) == []
    (fault,) = inspect_messages([form.said("x" * (limit + 1))], format=form.name)
    assert (fault.kind, fault.repair, f"{limit:,}" in fault.text) == ("oversized", "", True)


def test_calls_of_the_service_itself_and_approvals_are_no_faults() -> None:
    form = AgentFramework()
    asked = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    messages = [
        form.message("assistant", {**asked, "informational_only": True}),
        form.message("assistant", {"type": "function_approval_request", "id": "r", "function_call": asked}),
        form.said("next"),
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]},
    ]
    assert kinds(messages) == []


def test_what_else_is_in_a_message_stays() -> None:
    form = AgentFramework()
    result = {"type": "function_result", "call_id": "lost", "result": "x"}
    messages = [form.message("tool", {"type": "text", "text": "kept"}, result), form.said("next")]
    assert repaired(messages, form)[0] == form.message("tool", {"type": "text", "text": "kept"})


def test_results_of_anthropic_go_into_the_next_message() -> None:
    form = Anthropic()
    messages = [form.said("q"), *form.call("1", "2"), form.result("2"), form.said("next")]
    after = repaired(messages, form)
    assert [block["tool_use_id"] for block in after[2]["content"]] == ["1", "2"]
    after = repaired([form.said("q"), *form.call("1"), form.said("next")], form)
    assert [block["type"] for block in after[2]["content"]] == ["tool_result", "text"]


def test_the_service_decides() -> None:
    form = AgentFramework()
    thought = form.reasoning()
    messages = [form.said("q"), thought, form.said("again")]
    assert kinds(messages, service="openai-chat") == []
    for service in ("openai-responses", "anthropic"):
        (fault,) = inspect_messages(messages, service=service)
        assert fault.refusal.startswith(f"{service}: 400")


def test_objects_of_the_framework_come_back() -> None:
    from agent_framework import Content, Message

    call = Content.from_function_call("1", "f", arguments={})
    messages = [Message("user", ["q"]), Message("assistant", [call]), Message("user", ["again"])]
    outcome = repair_messages(messages)
    assert [type(message) for message in outcome.messages] == [Message] * 4
    assert outcome.messages[0] is messages[0]
    assert outcome.messages[2].contents[0].call_id == "1"
    with pytest.raises(InvalidMessageError, match=r"messages\[1\] is a int"):
        inspect_messages([messages[0], 5])


def test_dangling_reasoning_goes_with_its_call() -> None:
    form = Responses()
    call = {"type": "computer_call", "call_id": "1", "id": "cu_1", "action": {}}
    messages = [form.said("q"), form.reasoning(), call, form.said("again")]
    assert repaired(messages, form) == [messages[0], messages[3]]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[ChatCompletions, list[Message]]:
    form = draw(st.sampled_from(FORMATS))
    pieces = st.one_of(
        st.just([form.said("q")]),
        st.just([form.said("a", "assistant")]),
        st.just([form.empty()]),
        st.just([form.reasoning() or form.said("r", "assistant")]),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(lambda ids: form.call(*ids)),
        st.sampled_from("abc").map(lambda each: [form.result(each)]),
    )
    return form, [message for piece in draw(st.lists(pieces, max_size=12)) for message in piece]


@given(conversations(), st.sampled_from((None, *SERVICES)))
def test_any_list_is_repaired(drawn: tuple[ChatCompletions, list[Message]], service: Service | None) -> None:
    form, messages = drawn
    after = repaired(messages, form, service=service)
    users = [message for message in messages if shape_of(message, form.name).role == "user"]
    said = [message for message in after if shape_of(message, form.name).role == "user"]
    if form.name != "anthropic":
        assert said == users, "no input of a user is ever removed"


def test_langchain_calls_are_removed_in_every_place() -> None:
    form = LangChain()
    (message,) = form.call("1", "2", text="both")
    message["data"]["content"] = [{"type": "text", "text": "t"}, {"type": "tool_use", "id": "1", "name": "f"}]
    message["data"]["additional_kwargs"] = {"tool_calls": [{"id": "1"}, {"id": "2"}]}
    from everthread.messages.rules.links import layout_of

    layout = layout_of("langchain")
    assert layout is not None
    after = layout.without(message, {0})
    assert after is not None
    assert [call["id"] for call in after["data"]["tool_calls"]] == ["2"]  # pyright: ignore
    assert after["data"]["additional_kwargs"] == {"tool_calls": [{"id": "2"}]}  # pyright: ignore
    assert [block["type"] for block in after["data"]["content"]] == ["text"]  # pyright: ignore
