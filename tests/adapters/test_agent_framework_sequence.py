"""What a stored history may have become, and what of it a model service accepts."""

from __future__ import annotations

from collections.abc import Sequence

from agent_framework import Content, Message
from hypothesis import given
from hypothesis import strategies as st

from everthread.adapters.agent_framework.sequence import valid_history
from tests.adapters.scripted import refuse_invalid, shape


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
    return valid_history(history, inputs or [user("next")])


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
def test_a_history_that_is_valid_is_handed_over_unchanged(history: list[Message]) -> None:
    refuse_invalid(shape(history))
    found = valid_history(history, [user()])
    assert [id(message) for message in found] == [id(message) for message in history]


@given(HISTORIES, st.randoms(use_true_random=False))
def test_whatever_is_missing_or_interleaved_the_service_accepts_what_is_handed_over(history, random) -> None:
    left = [message for message in history if random.random() < 0.7]
    for _ in range(random.randrange(3)):
        if len(left) > 1:
            at = random.randrange(len(left) - 1)
            left[at], left[at + 1] = left[at + 1], left[at]
    before = [list(message.contents) for message in left]
    refuse_invalid(shape([*valid_history(left, [user()]), user()]))
    assert [list(message.contents) for message in left] == before


@given(HISTORIES, st.randoms(use_true_random=False))
def test_no_text_is_ever_left_out(history, random) -> None:
    left = [message for message in history if random.random() < 0.7]
    texts = [message.text for message in left if message.text]
    assert [message.text for message in valid_history(left, [user()]) if message.text] == texts


def test_a_result_whose_call_was_cut_off_is_left_out() -> None:
    assert shape(handed(results("a"), says(), user(), says())) == shape([says(), user(), says()])


def test_a_call_that_a_crash_left_without_its_result_is_left_out_and_the_text_beside_it_stays() -> None:
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


def test_a_call_id_that_a_model_uses_again_pairs_with_the_call_before_it() -> None:
    history = [user(), calls("a"), results("a"), says(), user(), calls("a"), results("a"), says()]
    assert handed(*history) == history


def test_a_call_that_the_input_answers_stays() -> None:
    history = [user(), calls("a")]
    assert handed(*history, inputs=[results("a")]) == history


def test_a_call_that_the_input_answers_is_moved_to_the_end_with_its_other_results() -> None:
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


def test_calls_that_wait_for_an_approval_stay_when_the_input_gives_one() -> None:
    first, second = (Content("function_call", call_id=name, name="f", arguments="{}") for name in "ab")
    batch = Message("assistant", [first, second, asks(first, "r1"), asks(second, "r2")])
    assert handed(user(), batch, inputs=[answers(first, "r1")])[1] is batch


def test_calls_that_wait_for_an_approval_are_left_out_while_the_user_speaks_of_something_else() -> None:
    call = Content("function_call", call_id="a", name="f", arguments="{}")
    batch = Message("assistant", ["Shall I?", call, asks(call, "r1")])
    found = handed(user(), batch)
    assert [content.type for content in found[1].contents] == ["text"]
    assert len(batch.contents) == 3


def test_what_was_approved_and_done_is_not_shown_as_an_approval_again() -> None:
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
