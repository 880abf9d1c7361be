"""The offline model quotes the messages that it gets, and nothing else."""

from __future__ import annotations

import pytest
from agent_framework import Message
from hypothesis import given
from hypothesis import strategies as st

from everthread.cli.offline_model import OfflineModel, answer

STORY = (
    "Hi, I am Ana and I live in Oslo.",
    "I want to go to Lisbon in May with my two kids.",
    "I love fado and seafood, but I hate crowds. My budget is 900 euros.",
)


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("What is my name?", STORY[0]),
        ("who am i", STORY[0]),
        ("Where do I live?", "“Hi, I am Ana and I live in Oslo.”"),
        ("What is my budget?", "You told me: “My budget is 900 euros.”"),
        ("how many kids do I have?", STORY[1]),
        ("Tell me what I love", "fado and seafood"),
        ("Why is the sky blue?", "offline model"),
    ],
)
def test_it_quotes_the_statements_that_a_question_is_about(question: str, part: str) -> None:
    assert part in answer([*STORY, question])


def test_it_finds_a_statement_and_a_question_in_one_message() -> None:
    assert answer(["I prefer trains. What do I prefer?"]) == "You told me: “I prefer trains.”"


def test_a_long_conversation_is_quoted_from_both_ends() -> None:
    quoted = answer([*(f"It is number {at}" for at in range(40)), "What is my name?"])
    assert "number 0”" in quoted
    assert "number 39”" in quoted
    assert "number 20”" not in quoted


@pytest.mark.parametrize("question", ["What is my name?", "Where do I want to go?", "What did I tell you?"])
def test_it_knows_nothing_without_earlier_messages(question: str) -> None:
    assert answer([question]) == "You have not told me anything yet in this conversation."


async def test_it_uses_only_the_user_messages_that_it_gets() -> None:
    model = OfflineModel()
    asked = Message(role="user", contents=["What is my name?"])
    told = Message(role="user", contents=["I am Ana"])
    invented = Message(role="assistant", contents=["I am Bob"])
    assert "“I am Ana”" in (await model.get_response([told, asked])).text
    assert "Bob" not in (await model.get_response([invented, asked])).text


async def test_a_stream_has_the_same_text_in_several_pieces() -> None:
    model = OfflineModel()
    messages = [Message(role="user", contents=[*STORY])]
    stream = model.get_response(messages, stream=True)
    pieces = [update.text async for update in stream]
    assert len(pieces) > 3
    assert "".join(pieces) == (await model.get_response(messages)).text


@given(st.lists(st.text(max_size=200), max_size=5))
def test_it_answers_any_text(texts: list[str]) -> None:
    assert answer(texts)
