"""The offline model recalls from the messages that it is handed, and from nothing else."""

from __future__ import annotations

import pytest
from agent_framework import Message
from hypothesis import given
from hypothesis import strategies as st

from everthread.cli.offline_memory import answer
from everthread.cli.offline_model import OfflineModel

STORY = (
    "Hi, I am Ana and I live in Oslo.",
    "I want to go to Lisbon in May with my two kids.",
    "I love fado and seafood, but I hate crowds.",
    "My budget is 900 euros.",
)


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("What is my name?", "Your name is Ana."),
        ("who am i", "Your name is Ana."),
        ("where do I want to go?", "Lisbon"),
        ("Where do I live?", "Oslo"),
        ("when do we travel?", "May"),
        ("what do I like?", "fado and seafood"),
        ("what don't I like?", "crowds"),
        ("What is my budget?", "900 euros"),
        ("how many kids do I have?", "two kids"),
        ("what did I tell you?", "I love fado and seafood, but I hate crowds."),
        ("What was my first message?", "Hi, I am Ana"),
        ("Plan the trip, please", "Lisbon"),
        ("Why is the sky blue?", "offline model"),
    ],
)
def test_it_answers_from_what_the_user_said(question: str, part: str) -> None:
    assert part in answer([*STORY, question])


def test_it_answers_several_questions_at_once() -> None:
    asked = [*STORY, "What is my name, and where do I want to go? What do I like?"]
    assert answer(asked) == "Your name is Ana. You want to go to Lisbon (May). You like fado and seafood."


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("What is my name?", "You have not told me your name."),
        ("Where do I want to go?", "You have not told me where you want to go."),
        ("What do I like?", "You have not told me what you like."),
        ("When do I travel?", "You have not told me when."),
        ("What did I tell you?", "You have not told me anything yet."),
    ],
)
def test_without_earlier_messages_it_knows_nothing(question: str, part: str) -> None:
    assert answer([question]) == part


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("my name is bob and I like trains", "Bob"),
        ("I'm Zoë", "Zoë"),
        ("Call me Jean-Luc.", "Jean-Luc"),
        ("My name is Ana Maria Silva", "Ana Maria Silva"),
        ("I am Ana. No, my name is Eva.", "Eva"),
    ],
)
def test_names_are_found_in_the_ways_people_give_them(said: str, name: str) -> None:
    assert answer([said, "What is my name?"]) == f"Your name is {name}."


@pytest.mark.parametrize("said", ["I am German", "I'm vegetarian", "I am going to Rome", "I am 30", "Is my name Bob?"])
def test_other_words_are_not_taken_for_names(said: str) -> None:
    assert answer([said, "What is my name?"]) == "You have not told me your name."


async def test_it_uses_only_the_user_messages_it_is_handed() -> None:
    model = OfflineModel()
    asked = Message(role="user", contents=["What is my name?"])
    told = Message(role="user", contents=["I am Ana"])
    invented = Message(role="assistant", contents=["I am Bob"])
    assert (await model.get_response([told, asked])).text == "Your name is Ana."
    assert (await model.get_response([invented, asked])).text == "You have not told me your name."
    assert (await model.get_response([asked])).text == "You have not told me your name."


async def test_a_stream_says_the_same_in_several_pieces() -> None:
    model = OfflineModel()
    messages = [Message(role="user", contents=[*STORY])]
    stream = model.get_response(messages, stream=True)
    pieces = [update.text async for update in stream]
    assert len(pieces) > 3
    assert "".join(pieces) == (await model.get_response(messages)).text


def test_it_says_that_it_is_an_offline_model() -> None:
    assert "offline model" in answer(["What are you?"])


@given(st.lists(st.text(max_size=200), max_size=5))
def test_it_answers_whatever_is_typed(texts: list[str]) -> None:
    assert answer(texts)
