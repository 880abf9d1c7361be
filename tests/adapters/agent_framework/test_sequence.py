"""What a stored history may have become, and what of it a model service accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_framework import Content, Message
from hypothesis import given
from hypothesis import strategies as st

from everthread.adapters.agent_framework.history_provider import without_settled_approvals
from everthread.adapters.agent_framework.reasoning import without_loose_reasoning
from everthread.adapters.agent_framework.sequence import ready_history, valid_history, with_valid_calls
from everthread.operations import inspect_messages
from tests.adapters.scripted import refuse_invalid, shape
from tests.responses_server import refuse_invalid_items


def user(text: str = "hello") -> Message:
    return Message("user", [text])


def says(text: str = "hi") -> Message:
    return Message("assistant", [text])


def calls(*ids: str, text: str = "") -> Message:
    made = [Content.from_function_call(call_id, "f", arguments="{}") for call_id in ids]
    return Message("assistant", [*([text] if text else []), *made])


def results(*ids: str) -> Message:
    return Message("tool", [Content.from_function_result(call_id, result="r") for call_id in ids])


def handed(*history: Message, inputs: Sequence[Message] = ()) -> list[Message]:
    approved = {content.function_call.call_id for each in inputs for content in each.contents if content.function_call}
    return valid_history(history, inputs or [user("next")], approved)


VALID_TURNS = st.sampled_from(
    [
        (user(), says()),
        (user(), calls("a"), results("a"), says()),
        (user(), calls("a", "b", text="both"), results("a"), results("b"), says()),
        (user(), calls("b", "c"), results("c", "b"), calls("a"), results("a"), says()),
        (Message("system", ["be brief"]), user(), says()),
    ]
)
HISTORIES = st.lists(VALID_TURNS, max_size=4).map(lambda turns: [message for turn in turns for message in turn])


@given(HISTORIES)
def test_a_valid_history_stays_unchanged(history: list[Message]) -> None:
    refuse_invalid(shape(history))
    found = valid_history(history, [user()])
    assert [id(message) for message in found] == [id(message) for message in history]


@given(HISTORIES, st.randoms(use_true_random=False))
def test_a_service_accepts_any_damaged_history(history, random) -> None:
    left = [message for message in history if random.random() < 0.7]
    for _ in range(random.randrange(3)):
        if len(left) > 1:
            at = random.randrange(len(left) - 1)
            left[at], left[at + 1] = left[at + 1], left[at]
    before = [list(message.contents) for message in left]
    given_ = [*valid_history(left, [user()]), user()]
    refuse_invalid(shape(given_))
    assert [fault for fault in inspect_messages(given_) if fault.refusal] == []
    assert [list(message.contents) for message in left] == before


@given(HISTORIES, st.randoms(use_true_random=False))
def test_no_text_is_ever_left_out(history, random) -> None:
    left = [message for message in history if random.random() < 0.7]
    texts = [message.text for message in left if message.text]
    assert [message.text for message in valid_history(left, [user()]) if message.text] == texts


def test_a_result_without_its_call_is_left_out() -> None:
    assert shape(handed(results("a"), says(), user(), says())) == shape([says(), user(), says()])


def test_a_call_without_its_result_is_left_out_and_its_text_stays() -> None:
    found = handed(user(), calls("a", text="I look it up"))
    assert shape(found) == [("user", [], None), ("assistant", [], None)]
    assert found[1].text == "I look it up"


def test_of_two_calls_only_the_unanswered_one_is_left_out() -> None:
    assert shape(handed(user(), calls("a", "b"), results("b"), says())) == [
        ("user", [], None),
        ("assistant", ["b"], None),
        ("tool", [], "b"),
        ("assistant", [], None),
    ]


def test_the_results_of_two_interleaved_runs_follow_their_calls() -> None:
    history = [user("one"), calls("a"), user("two"), calls("b"), results("a"), says("1"), results("b"), says("2")]
    found = handed(*history)
    refuse_invalid(shape(found))
    assert [message.text for message in found if message.text] == ["one", "two", "1", "2"]
    assert sum(len(message.contents) for message in found) == sum(len(message.contents) for message in history)


def test_a_second_result_for_one_call_is_left_out() -> None:
    assert shape(handed(user(), calls("a"), results("a"), results("a"), says()))[3] == ("assistant", [], None)


def test_a_reused_call_id_pairs_with_the_call_before_it() -> None:
    history = [user(), calls("a"), results("a"), says(), user(), calls("a"), results("a"), says()]
    assert handed(*history) == history


def test_a_call_that_the_input_answers_stays() -> None:
    history = [user(), calls("a")]
    assert handed(*history, inputs=[results("a")]) == history


def test_a_call_that_the_input_answers_moves_to_the_end() -> None:
    history = [user("one"), calls("a", "b"), results("b"), user("two"), says("2")]
    found = handed(*history, inputs=[results("a")])
    refuse_invalid(shape([*found, results("a")]))
    assert [message.text for message in found if message.text] == ["one", "two", "2"]
    assert len(found) == len(history)


def test_reasoning_that_led_only_to_an_unanswered_call_goes_with_it() -> None:
    thought = Message("assistant", [Content.from_text_reasoning(text="hm"), calls("a").contents[0]])
    assert shape(handed(user(), thought)) == [("user", [], None)]


def asks(call: Content, request_id: str) -> Content:
    return Content.from_function_approval_request(request_id, call)


def answers(call: Content, request_id: str, approved: bool = True) -> Message:
    return Message("user", [Content.from_function_approval_response(approved, request_id, call)])


def test_calls_that_wait_for_an_approval_stay_with_an_approval() -> None:
    first, second = (Content("function_call", call_id=name, name="f", arguments="{}") for name in "ab")
    batch = Message("assistant", [first, second, asks(first, "r1"), asks(second, "r2")])
    assert handed(user(), batch, inputs=[answers(first, "r1")])[1] is batch


def test_waiting_calls_are_left_out_without_an_approval() -> None:
    call = Content("function_call", call_id="a", name="f", arguments="{}")
    batch = Message("assistant", ["Shall I?", call, asks(call, "r1")])
    found = handed(user(), batch)
    assert [content.type for content in found[1].contents] == ["text"]
    assert len(batch.contents) == 3


def test_calls_stay_out_when_the_framework_ignores_the_approval() -> None:
    call = Content("function_call", call_id="a", name="f", arguments="{}")
    history = [user(), Message("assistant", [call, asks(call, "r1")])]
    assert valid_history(history, [answers(call, "r1")], set()) == history[:1]


PARTS = st.lists(
    st.sampled_from(
        [
            Content.from_text("hi"),
            Content.from_text_reasoning(text="so"),
            *(Content.from_function_call(name, "f", arguments="{}") for name in "ab"),
            *(Content.from_function_result(name, result="r") for name in "ab"),
            *(asks(calls(name).contents[0], f"r{name}") for name in "ab"),
            *(answers(calls(name).contents[0], f"r{name}").contents[0] for name in "ab"),
            Content("function_approval_request", id="a"),
        ]
    ),
    max_size=2,
)
MESSAGES = st.builds(Message, st.sampled_from(["user", "assistant", "tool"]), PARTS)


@given(st.lists(MESSAGES, max_size=6), st.lists(MESSAGES, max_size=2), st.sets(st.sampled_from("ab")))
def test_one_pass_equals_the_filter_and_the_rules_together(history, inputs, approved) -> None:
    def shown(messages: Sequence[Message]) -> list[tuple[str, list[int]]]:
        return [(message.role, [id(content) for content in message.contents]) for message in messages]

    general = without_loose_reasoning(with_valid_calls(without_settled_approvals(history), inputs, approved), inputs)
    assert shown(ready_history(history, inputs, approved, without_settled_approvals)) == shown(general)
    with_all = without_loose_reasoning(with_valid_calls(history, inputs, approved), inputs)
    assert shown(valid_history(history, inputs, approved)) == shown(with_all)


def test_a_settled_approval_is_not_shown_again() -> None:
    call, other = (Content("function_call", call_id=name, name="f", arguments="{}") for name in "ab")
    done = [user(), Message("assistant", [call, asks(call, "r1")]), answers(call, "r1"), results("a"), says()]
    waiting = Message("assistant", [other, asks(other, "r2")])
    for inputs in ([user()], [answers(other, "r2")]):
        found = handed(*done, waiting, inputs=inputs)
        refused = [content for message in found[:4] for content in message.contents if "approval" in content.type]
        assert refused == []
    assert found[-1] is waiting


def test_calls_that_the_service_itself_carries_out_are_left_alone() -> None:
    hosted = Content("function_call", call_id="h", name="search")
    hosted.hosted = True
    shown = Content("function_call", call_id="s", name="shell")
    shown.informational_only = True
    found = handed(user(), Message("assistant", [hosted, shown, "found it"]))
    assert len(found[1].contents) == 3


# Reasoning


def thinks(sealed: str | None = "sealed") -> Content:
    return Content.from_text_reasoning(id="rs_1", text="hm", protected_data=sealed)


def items(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The items that the framework's client of OpenAI's responses makes of messages."""
    found: list[dict[str, object]] = []
    for message in messages:
        for content in message.contents:
            if content.type == "text_reasoning":
                found.append({"type": "reasoning", "id": content.id})
            elif content.type == "function_call":
                found.append({"type": "function_call", "call_id": content.call_id})
            elif content.type == "function_result":
                found.append({"type": "function_call_output", "call_id": content.call_id})
            elif content.type == "text":
                found.append({"type": "message", "role": message.role})
    return found


THINKING_TURNS = st.sampled_from(
    [
        (user(), Message("assistant", [thinks(), "hi"])),
        (user(), Message("assistant", [thinks()]), says()),
        (
            user(),
            Message("assistant", [thinks(), *calls("a").contents]),
            results("a"),
            Message("assistant", [thinks()]),
        ),
        (user(), Message("assistant", [thinks()]), calls("a"), results("a"), says()),
    ]
)


@given(st.lists(THINKING_TURNS, max_size=4), st.randoms(use_true_random=False))
def test_reasoning_that_nothing_follows_is_left_out(turns, random) -> None:
    left = [message for turn in turns for message in turn if random.random() < 0.7]
    for _ in range(random.randrange(3)):
        if len(left) > 1:
            at = random.randrange(len(left) - 1)
            left[at], left[at + 1] = left[at + 1], left[at]
    refuse_invalid_items(items([*valid_history(left, [user()]), user()]))


def test_reasoning_moves_to_the_end_with_the_call_it_led_to() -> None:
    history = [user("one"), Message("assistant", [thinks()]), calls("a"), user("two"), says("2")]
    found = handed(*history, inputs=[results("a")])
    refuse_invalid_items(items([*found, results("a")]))
    assert found[-2:] == history[1:3]


def test_unsealed_reasoning_stays_only_in_the_current_turn() -> None:
    history = [user(), Message("assistant", [thinks(None), *calls("a").contents])]
    assert handed(*history, inputs=[results("a")]) == history
    done = [*history, results("a"), says()]
    assert [content.type for message in handed(*done) for content in message.contents] == [
        *("text", "function_call", "function_result", "text")
    ]


class Counted(list[Message]):
    """A history that counts how many of its messages are looked up."""

    looked_up = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.looked_up += len(found) if isinstance(index, slice) else 1
        return found


def test_a_long_history_is_gone_over_a_few_times() -> None:
    pairs = [
        [
            Message("assistant", [Content.from_function_call(f"c{i}", "f", arguments="{}")]),
            Message("tool", [Content.from_function_result(f"c{i}", result="x")]),
        ]
        for i in range(200)
    ]
    history = Counted(message for pair in pairs for message in pair)
    assert valid_history(history, [Message("user", ["x"])]) == list(history)
    assert history.looked_up <= 4 * len(history)
