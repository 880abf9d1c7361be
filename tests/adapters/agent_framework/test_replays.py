"""A replayed transcript is recognized, and what is said again is not taken for one."""

from __future__ import annotations

import pytest
from agent_framework import Content, Message
from hypothesis import given
from hypothesis import strategies as st

from everthread.adapters.agent_framework.replays import find_replay


def user(text: str, message_id: str | None = None) -> Message:
    return Message("user", [text], message_id=message_id)


def says(text: str, message_id: str | None = None) -> Message:
    return Message("assistant", [text], message_id=message_id)


def call(call_id: str, text: str = "") -> Message:
    made = Content.from_function_call(call_id, "find", arguments="{}")
    return Message("assistant", [*([text] if text else []), made])


def result(call_id: str) -> Message:
    return Message("tool", [Content.from_function_result(call_id, result="found")])


def stored_before(inputs: list[Message], history: list[Message], *, complete: bool = True) -> int:
    replay = find_replay(inputs, history, complete=complete)
    assert list(replay.messages) == inputs[: len(replay.messages)]
    return len(replay.messages)


def again(messages: list[Message]) -> list[Message]:
    """The same conversation as a client keeps it: new objects, no ids."""
    return [Message(message.role, list(message.contents)) for message in messages]


TURNS = st.lists(
    st.sampled_from([("yes", "Done."), ("no", "Done."), ("yes", "Fine."), ("go", "")]), min_size=1, max_size=6
)


def conversation(turns: list[tuple[str, str]]) -> list[Message]:
    messages: list[Message] = []
    for number, (said, answer) in enumerate(turns):
        middle = [] if answer else [call(f"c{number}"), result(f"c{number}")]
        messages += [user(said), *middle, says(answer or "Found.")]
    return messages


@given(TURNS, st.sampled_from(["yes", "no", "something else"]))
def test_of_a_whole_transcript_only_the_last_word_is_new(turns: list[tuple[str, str]], said: str) -> None:
    history = conversation(turns)
    replay = find_replay([*again(history), user(said)], history, complete=True)
    assert len(replay.messages) == len(history)
    assert replay.history_before == 0


@given(TURNS, st.integers(2, 6))
def test_a_transcript_longer_than_the_history_has_one_new_message(turns, window: int) -> None:
    history = conversation(turns)
    loaded = history[-window:]
    assert stored_before([*again(history), user("yes")], loaded, complete=len(loaded) == len(history)) == len(history)


@given(TURNS, st.sampled_from(["yes", "no"]))
def test_a_single_message_is_new_however_often_it_was_said(turns: list[tuple[str, str]], said: str) -> None:
    history = conversation(turns)
    assert stored_before([user(said)], history) == 0
    assert stored_before([user(said)], history[-2:], complete=False) == 0


@given(TURNS)
def test_a_transcript_without_its_tool_traffic_is_recognised(turns: list[tuple[str, str]]) -> None:
    history = conversation(turns)
    shown = [message for message in history if message.text]
    assert stored_before([*again(shown), user("next")], history) == len(shown)


@given(TURNS, st.integers(0, 5))
def test_a_transcript_with_known_ids_is_recognized_at_any_turn(turns, kept: int) -> None:
    history = conversation(turns)
    for number, message in enumerate(history):
        message.message_id = f"m{number}"
    inputs = [*history[: kept + 1], user("yes", "new")]
    assert stored_before(inputs, history) == len(inputs) - 1


@given(TURNS)
def test_a_transcript_without_its_repeats_is_recognized(turns: list[tuple[str, str]]) -> None:
    history = conversation(turns)
    inputs = list({str(message.to_dict()): message for message in again(history)}.values())
    assert stored_before([*inputs, user("next")], history) == len(inputs)


@st.composite
def transcripts(draw: st.DrawFn) -> tuple[list[Message], list[Message]]:
    """A stored conversation, and how a client gives it back: ids stored, others or none, tool calls shown or not."""
    history = conversation(draw(TURNS))
    shown: list[Message] = []
    hides_tools = draw(st.booleans())
    for number, message in enumerate(history):
        message.message_id = draw(st.sampled_from([f"m{number}", None]))
        given_id = draw(st.sampled_from([message.message_id, f"other-{number}", None]))
        if message.text or not hides_tools:
            shown.append(Message(message.role, list(message.contents), message_id=given_id))
    return history, shown


@given(transcripts(), st.sampled_from(["new", None]))
def test_the_model_sees_a_transcript_once_with_any_ids(transcript, new_id: str | None) -> None:
    history, shown = transcript
    replay = find_replay([*shown, user("yes", new_id)], history, complete=True)
    assert (len(replay.messages), replay.history_before) == (len(shown), 0)


def test_leading_messages_without_ids_are_seen_once() -> None:
    history = [user("a"), call("c1", "Looking. "), result("c1"), says("b", "m1"), user("c"), says("d", "m2")]
    for start in ([user("a"), says("b", "m1")], [user("a"), says("Looking. b"), user("c"), says("d", "m2")]):
        replay = find_replay([*start, user("new")], history, complete=True)
        assert (len(replay.messages), replay.history_before) == (len(start), 0)


def test_two_new_messages_behind_a_known_id_are_new() -> None:
    history = [user("a", "m0"), user("yes", "m1"), says("Done.", "m2")]
    assert stored_before([user("a", "m0"), user("yes", "m9"), user("yes", "m10")], history) == 1


def test_several_messages_that_answer_nothing_are_new() -> None:
    assert stored_before([user("yes"), user("yes")], [user("yes"), user("yes"), says("Done.")]) == 0


def test_repeated_messages_of_another_agent_are_stored() -> None:
    question, theirs, mine = user("Check it"), says("Done."), says("Approved.")
    assert stored_before([user("Check it"), says("Done.")], [question, theirs, mine]) == 0
    assert stored_before([user("Check it"), says("Done.")], [question, theirs, mine] * 2) == 0


def test_a_transcript_without_the_newest_answer_is_stored_again() -> None:
    assert stored_before([user("a"), says("b"), user("c")], [user("a"), says("b"), user("c"), says("d")]) == 0


def test_one_equal_answer_alone_is_no_replay() -> None:
    assert stored_before([says("Done."), user("thanks")], [user("x"), says("y"), user("z"), says("Done.")]) == 0


def test_a_known_id_with_other_content_is_new() -> None:
    assert stored_before([user("edited", "m1")], [user("first", "m1"), says("Done.")]) == 0
    assert stored_before([user("first", "m1")], [user("first", "m1"), says("Done.")]) == 1


def test_the_result_of_a_tool_that_the_client_runs_is_new() -> None:
    history = [user("where am I?"), call("c1")]
    assert stored_before([*again(history), result("c1")], history) == 2
    assert stored_before([result("c1")], history) == 0


def test_two_pictures_with_the_same_words_are_two_messages() -> None:
    def shows(name: str) -> Message:
        return Message("user", ["look", Content.from_uri(f"https://example.com/{name}", media_type="image/png")])

    history = [shows("a"), says("A cat.")]
    assert stored_before([shows("a"), says("A cat."), user("next")], history) == 2
    assert stored_before([shows("b"), says("A cat."), user("next")], history) == 0


def test_the_model_gets_the_history_before_the_repeated_part() -> None:
    history = [user("1"), says("2"), user("3"), says("4")]
    replay = find_replay([user("3"), says("4"), user("5")], history, complete=True)
    assert (len(replay.messages), replay.history_before) == (2, 2)


def test_a_replay_ignores_parts_that_clients_do_not_see() -> None:
    thought = Content.from_text_reasoning(text="hm")
    answer = Message("assistant", [thought, "Rome.", Content.from_usage({"output_token_count": 3})], author_name="Tim")
    history = [user("where?"), answer]
    assert stored_before([user("where?", "x1"), says(" Rome.\n", "x2"), user("why?", "x3")], history) == 2


@pytest.mark.parametrize("history", [[], [user("x")], [user("x"), says("y")]])
def test_an_empty_input_repeats_nothing(history: list[Message]) -> None:
    assert stored_before([], history) == 0
