"""Conversations for these tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from everthread import Message, NewMessage, Store, ThreadKey, new_message, read_all, view
from everthread.capabilities import SupportsImport, capability

KEY = ThreadKey("trip")


def said(role: str, text: str) -> NewMessage:
    return new_message({"role": role, "content": text})


def call(call_id: str) -> NewMessage:
    function = {"name": "weather", "arguments": "{}"}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return new_message({"role": "assistant", "content": None, "tool_calls": calls})


def result(call_id: str) -> NewMessage:
    return new_message({"role": "tool", "tool_call_id": call_id, "content": "sunny"})


def turn(number: int) -> list[NewMessage]:
    """What the user said, a tool call, its result, the reply."""
    name = f"call-{number}"
    return [said("user", f"question {number}"), call(name), result(name), said("assistant", f"answer {number}")]


async def talk(store: Store, key: ThreadKey = KEY, turns: int = 3) -> None:
    for number in range(turns):
        await store.append(key, turn(number), default_title="Trip to Rome")


async def in_this_order(store: Store, *keys: ThreadKey) -> None:
    """Puts the threads' last activity a millisecond apart, the last one's now: listings go by it."""
    assert capability(store, SupportsImport)
    now = datetime.now(UTC)
    for number, key in enumerate(reversed(keys)):
        at = now - timedelta(milliseconds=number)
        await store.restore_times(key, created_at=at, updated_at=at)


async def kept(store: Store, key: ThreadKey = KEY) -> list[Message]:
    return [message async for message in read_all(store, key)]


def texts(messages: Sequence[Message]) -> list[str]:
    return [view(message).text for message in messages]
