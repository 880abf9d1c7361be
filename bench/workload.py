"""The measurements, and the interface of a contender. No engine, no driver.

A module of contenders (``bench/sqlite.py``, ``bench/redis.py``) offers ``groups()``: a context
manager that starts what they need and yields a sequence of `Group`. Contenders of one group are
measured in turns, so that a noise on the machine meets them alike.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from everthread import NewMessage, new_message

Value = dict[str, object]


@dataclass(frozen=True)
class Turn:
    """Messages of one append.

    Attributes:
        values: As a framework's dictionaries.
        payloads: Encoded beforehand, for bare drivers.
        messages: Encoded and checked beforehand, as everthread takes them.
    """

    values: tuple[Value, ...]
    payloads: tuple[bytes, ...]
    messages: tuple[NewMessage, ...]


class Contender(Protocol):
    """An open store of any kind. Any text names a thread."""

    async def append(self, thread: str, turn: Turn) -> object:
        """Append a turn, durably by the standard of this contender."""
        ...

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        """Return the newest messages, oldest first, in the form that this contender returns."""
        ...


@dataclass(frozen=True)
class Group:
    """Contenders on the same storage.

    Attributes:
        name: What they stand on, e.g. ``"SQLite, synchronous=FULL"``.
        contenders: How to open each, by name, on an empty place; the first is the bare driver.
    """

    name: str
    contenders: dict[str, Callable[[], AbstractAsyncContextManager[Contender]]]


@dataclass(frozen=True)
class Scale:
    """The number of repetitions."""

    samples: int = 300
    long_thread: int = 20_000
    clients: int = 64
    turns_per_client: int = 40
    rounds: int = 5


QUICK = Scale(samples=40, long_thread=2_000, turns_per_client=8, rounds=2)
FULL = Scale()


@dataclass
class Result:
    """The medians of one contender: microseconds, and turns per second for the clients."""

    times: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, column: str, value: float) -> None:
        self.times.setdefault(column, []).append(value)

    def median(self, column: str) -> float:
        return statistics.median(self.times[column])


def turn(number: int) -> Turn:
    """Return one turn of 4 messages: 200 B from the user, a tool call, a 2 kB result, an answer of 800 B."""
    call_id = f"call_{number:08x}"
    values = (
        _message("user", {"type": "text", "text": _text(200, number)}),
        _message(
            "assistant",
            {"type": "function_call", "call_id": call_id, "name": "search_flights", "arguments": '{"to":"Rome"}'},
        ),
        _message("tool", {"type": "function_result", "call_id": call_id, "result": _text(2000, number)}),
        _message("assistant", {"type": "text", "text": _text(800, number)}),
    )
    return Turn(values, tuple(map(msgspec.json.encode, values)), tuple(map(new_message, values)))


def _message(role: str, content: Value) -> Value:
    return {"type": "message", "role": role, "contents": [content], "additional_properties": {}}


def _text(length: int, number: int) -> str:
    words = f"turn {number}: the train to Ostia leaves the station Porta San Paolo every fifteen minutes, "
    return (words * (length // len(words) + 1))[:length]


async def measure(group: Group, scale: Scale) -> dict[str, Result]:
    """Open all contenders of a group and measure them in turns."""
    async with AsyncExitStack() as stack:
        opened = {name: await stack.enter_async_context(make()) for name, make in group.contenders.items()}
        results = {name: Result() for name in opened}
        for contender in opened.values():
            await _fill(contender, "long", scale.long_thread)
            await _fill(contender, "warm", 200)
        long = scale.long_thread
        numbers = itertools.count()
        await _in_turns(opened, results, scale, "append at 0", lambda c, n, t: c.append(f"new {n}", t))
        await _in_turns(opened, results, scale, f"append at {long:,}", lambda c, _, t: c.append("long", t))
        await _in_turns(opened, results, scale, "last 20", lambda c, *_: c.read_last("long", 20))
        await _in_turns(opened, results, scale, "whole turn", _whole_turn)
        for _ in range(scale.rounds):
            for name, contender in opened.items():
                rate = await _clients(contender, scale, next(numbers))
                results[name].add(f"{scale.clients} clients, turns/s", rate)
    return results


async def _whole_turn(contender: Contender, _: int, new: Turn) -> None:
    """Return the time of an agent run: load at most 200 messages, append a turn."""
    await contender.read_last("warm", 200)
    await contender.append("warm", new)


async def _in_turns(
    opened: dict[str, Contender],
    results: dict[str, Result],
    scale: Scale,
    column: str,
    action: Callable[[Contender, int, Turn], Awaitable[object]],
    *,
    block: int = 10,
) -> None:
    turns = [turn(number) for number in range(scale.samples)]
    for start in range(0, scale.samples, block):
        for name, contender in opened.items():
            for number in range(start, start + block):
                begun = time.perf_counter()
                await action(contender, number, turns[number])
                results[name].add(column, (time.perf_counter() - begun) * 1e6)


async def _clients(contender: Contender, scale: Scale, round_number: int) -> float:
    """Return the turns per second of concurrent clients, each appending to a thread of its own."""
    turns = [turn(number) for number in range(scale.turns_per_client)]

    async def client(number: int) -> None:
        for each in turns:
            await contender.append(f"client {round_number} {number}", each)

    begun = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(scale.clients)))
    return scale.clients * scale.turns_per_client / (time.perf_counter() - begun)


async def _fill(contender: Contender, thread: str, messages: int) -> None:
    for start in range(0, messages, 400):
        several = [turn(number) for number in range(start, min(start + 400, messages), 4)]
        await contender.append(
            thread,
            Turn(
                tuple(value for each in several for value in each.values),
                tuple(payload for each in several for payload in each.payloads),
                tuple(message for each in several for message in each.messages),
            ),
        )
