"""Common parts of the tests of all guarantees: fixtures, and messages that contain their turn."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from everthread.contract import Store, read_all
from everthread.errors import ConflictError
from everthread.model import Document, Message, MessagePage, NewMessage, Thread, ThreadKey
from everthread.testing._writing_process import turn_of
from everthread.testing.harness import Clock, Harness

KEY = ThreadKey("conversation", "tenant")


CALLS: dict[str, Callable[[Any, Any], Coroutine[Any, Any, object]]] = {
    "append": lambda store, key: store.append(key, [said("changed")]),
    "read": lambda store, key: store.read(key),
    "read_last": lambda store, key: store.read_last(key, 5),
    "truncate": lambda store, key: store.truncate(key, start=1),
    "get_thread": lambda store, key: store.get_thread(key),
    "update_thread": lambda store, key: store.update_thread(key, title="changed", metadata={"changed": True}),
    "delete_thread": lambda store, key: store.delete_thread(key),
    "get_document": lambda store, key: store.get_document(key, "d"),
    "put_document": lambda store, key: store.put_document(key, "d", b'"changed"'),
    "delete_document": lambda store, key: store.delete_document(key, "d"),
    "list_documents": lambda store, key: store.list_documents(key),
    "list_threads": lambda store, key: store.list_threads(key.tenant),
    "delete_tenant": lambda store, key: store.delete_tenant(key.tenant),
}
"""Each call of a store, on a thread; the last two on its tenant."""
OF_TENANTS = ("list_threads", "delete_tenant")
READS = ("read", "read_last", "get_thread", "get_document", "list_documents", "list_threads")


class GuaranteeTests:
    """Base of all test classes here. A subclass defines the fixture ``harness``."""

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

    @pytest.fixture
    def clock(self) -> Clock:
        """The clock of ``timed``."""
        return Clock()

    @pytest_asyncio.fixture
    async def timed(self, harness: Harness, clock: Clock) -> AsyncIterator[Store]:
        """A store on the same place with a clock that the test moves."""
        async with harness.open(clock=clock) as store:
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
    """Return a turn. Each message contains its turn and its place in it, so that a test can detect a torn turn."""
    return turn_of(writer, turn, size, padding)


class Part(msgspec.Struct, frozen=True):
    """The turn and the place that a message of `part_of_turn` contains."""

    writer: str
    turn: int
    part: int
    of: int


def whole_turns(messages: Sequence[Message]) -> list[tuple[str, int]]:
    """Return the turns of messages of `part_of_turn`, in order. Fail if one is torn or interleaved."""
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
    """Return all kept messages of a thread."""
    return [message async for message in read_all(store, key)]


async def payloads(store: Store, key: ThreadKey = KEY) -> list[bytes]:
    """Return the payloads of all kept messages."""
    return [message.payload for message in await everything(store, key)]


async def thread_of(store: Store, key: ThreadKey = KEY) -> Thread:
    """Return a thread, which must exist."""
    thread = await store.get_thread(key)
    assert thread is not None
    return thread


async def document_of(store: Store, name: str, key: ThreadKey = KEY) -> Document:
    """Return a document, which must exist."""
    document = await store.get_document(key, name)
    assert document is not None
    return document


async def pass_time(clock: Clock) -> None:
    """Let time pass on the given clock, and on the server's own clock."""
    clock.advance(1)
    await asyncio.sleep(0.003)


@contextlib.contextmanager
def conflict(actual: int) -> Generator[None]:
    """Fail unless a `ConflictError` with the actual position or revision is raised."""
    with pytest.raises(ConflictError) as caught:
        yield
    assert caught.value.actual == actual


async def one_wins(attempt: Callable[[int], Awaitable[object]]) -> int:
    """Make twelve attempts at the same time. Return the number of the one that raised no `ConflictError`."""
    answers = await asyncio.gather(*map(attempt, range(12)), return_exceptions=True)
    others = [number for number, answer in enumerate(answers) if not isinstance(answer, ConflictError)]
    assert len(others) == 1, f"{len(others)} of twelve won"
    assert not isinstance(answers[others[0]], BaseException)
    return others[0]


def seqs(page: MessagePage | Sequence[Message]) -> list[int]:
    """Return the positions of messages."""
    return [message.seq for message in page]


def example_settings(share: int, **others: Any) -> settings:
    """Return settings for property tests that do I/O: a share of the examples of the active Hypothesis profile.

    A failing example is shrunk only if ``EVERTHREAD_TESTING_SHRINK`` is set: on a server that takes minutes.
    """
    costly = () if os.environ.get("EVERTHREAD_TESTING_SHRINK") else (Phase.shrink, Phase.explain)
    return settings(
        phases=[phase for phase in settings().phases if phase not in costly],
        max_examples=max(1, settings().max_examples // share),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
        **others,
    )


def for_examples(check: Callable[..., Coroutine[Any, Any, None]], *strategies: SearchStrategy[Any]) -> None:
    """Run a check with a quarter of the examples of the current Hypothesis profile (25 of 100), each in a new loop."""

    @example_settings(4)
    @given(st.tuples(*strategies))
    def every(values: tuple[Any, ...]) -> None:
        asyncio.run(check(*values))

    every()
