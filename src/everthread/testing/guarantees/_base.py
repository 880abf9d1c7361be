"""What the tests of all guarantees share: fixtures, and messages that say where they belong."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from everthread.contract import Store, read_all
from everthread.model import Message, MessagePage, NewMessage, ThreadKey
from everthread.testing._writing_process import turn_of
from everthread.testing.harness import Harness

KEY = ThreadKey("conversation", "tenant")


class GuaranteeTests:
    """Base of all test classes here. A subclass gives the fixture ``harness``."""

    def __init_subclass__(cls) -> None:
        # Not the class is marked, since some tests run loops of their own.
        for name, test in vars(cls).items():
            if name.startswith("test_") and inspect.iscoroutinefunction(test):
                setattr(cls, name, pytest.mark.asyncio(test))

    @pytest_asyncio.fixture
    async def store(self, harness: Harness) -> AsyncIterator[Store]:
        """A store on the empty place."""
        async with harness.open() as store:
            yield store

    @pytest_asyncio.fixture
    async def other_store(self, harness: Harness) -> AsyncIterator[Store]:
        """A second store on the same place."""
        async with harness.open() as store:
            yield store


def said(text: str) -> NewMessage:
    """A plain message."""
    return NewMessage(msgspec.json.encode({"role": "user", "content": text}), "chat-completions")


def calling(*call_ids: str) -> NewMessage:
    """A message that makes tool calls."""
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in call_ids]
    return NewMessage(msgspec.json.encode({"role": "assistant", "tool_calls": calls}), "chat-completions", call_ids)


def answering(*call_ids: str) -> NewMessage:
    """A message that answers tool calls."""
    payload = msgspec.json.encode({"role": "tool", "tool_call_id": call_ids[0], "content": "done", "all": call_ids})
    return NewMessage(payload, "chat-completions", (), call_ids)


def part_of_turn(writer: str, turn: int, size: int, *, padding: int = 0) -> list[NewMessage]:
    """A turn whose messages tell which turn they are of and which part of it, so that a torn one is seen."""
    return turn_of(writer, turn, size, padding)


class Part(msgspec.Struct, frozen=True):
    """What a message of `part_of_turn` says of itself."""

    writer: str
    turn: int
    part: int
    of: int


def whole_turns(messages: Sequence[Message]) -> list[tuple[str, int]]:
    """The turns that messages of `part_of_turn` belong to, in order; fails if one is torn or interleaved."""
    turns: list[tuple[str, int]] = []
    at = 0
    while at < len(messages):
        first = msgspec.json.decode(messages[at].payload, type=Part)
        found = messages[at : at + first.of]
        wanted = [Part(first.writer, first.turn, i, first.of) for i in range(first.of)]
        assert [msgspec.json.decode(m.payload, type=Part) for m in found] == wanted, "a turn is torn or interleaved"
        assert {m.turn for m in found} == {messages[at].seq}, "a turn's messages name another first position"
        turns.append((first.writer, first.turn))
        at += first.of
    return turns


async def everything(store: Store, key: ThreadKey = KEY) -> list[Message]:
    """All kept messages of a thread."""
    return [message async for message in read_all(store, key)]


async def payloads(store: Store, key: ThreadKey = KEY) -> list[bytes]:
    """The payloads of all kept messages."""
    return [message.payload for message in await everything(store, key)]


def seqs(page: MessagePage | Sequence[Message]) -> list[int]:
    """The positions of messages."""
    return [message.seq for message in page]


def example_settings(share: int, **others: Any) -> settings:
    """Settings for property tests that do I/O: a part of the examples of the Hypothesis profile in force."""
    return settings(
        max_examples=max(1, settings().max_examples // share),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
        **others,
    )


def few_examples(test: Callable[..., None]) -> Callable[..., None]:
    """A quarter of the examples of the Hypothesis profile in force (25 of 100)."""
    return example_settings(4)(test)
