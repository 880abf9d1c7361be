"""Convert concurrent appends to one statement, and its rows to results. Uses no connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from everthread.engines.base import AppendRequest
from everthread.engines.postgres.rows import pack
from everthread.errors import ConflictError, EverthreadError
from everthread.model import Appended, NewMessage, ThreadKey, to_milliseconds

MAX_BATCH_BYTES = 32 * 1024 * 1024
"""Batches are split at this many bytes of payload: a statement's parameters may not reach a gigabyte."""

T = TypeVar("T")

_WRITTEN, _REPLAYED = 0, 1


def size_of(request: AppendRequest) -> int:
    """Return the bytes of a turn's payloads."""
    return sum(len(message.payload) for message in request.messages)


Call = tuple[str, list[Any], Sequence[AppendRequest]]
"""The name of a statement that writes a batch, its arguments, and the batch in the order of the arguments."""


def call_for(
    batch: Sequence[AppendRequest], now_ms: int | None, text_of: Callable[[NewMessage], str] | None, language: str
) -> Call:
    """Return the cheapest statement that can write a batch.

    Args:
        text_of: Gives the text of a message to index, if the store searches.
        language: The name of the text search configuration.
    """
    if text_of is None and _is_usual(batch):
        return "append_one", _arguments_of_one(batch[0], now_ms), batch
    turns, ends = _in_rounds(batch)
    args = _arguments(turns, now_ms, text_of, language)
    if len(ends) == 1:
        return "append", args, turns
    return "append_rounds", [ends, _message_ends(turns, ends), *args], turns


def results(batch: Sequence[AppendRequest], call: Call, rows: Sequence[Any]) -> list[Appended | EverthreadError]:
    """Return the result of each append, in the order of the batch."""
    query, _, turns = call
    found: Sequence[tuple[int, int, int, int]] = [rows[0][0]] if query == "append_one" else rows
    of_turn = {id(turns[row[0] - 1]): row for row in found}
    return [_result(request, *of_turn[id(request)]) for request in batch]


def _in_rounds(batch: Sequence[AppendRequest]) -> tuple[Sequence[AppendRequest], list[int]]:
    """Return the batch sorted by rounds, and where each round ends.

    A round holds each thread once, so appends to one thread follow one another.
    """
    seen: dict[ThreadKey, int] = {}
    rounds: list[list[AppendRequest]] = []
    for request in batch:
        number = seen[request.key] = seen.get(request.key, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(request)
    return [request for each in rounds for request in each], list(accumulate(map(len, rounds)))


def _message_ends(batch: Sequence[AppendRequest], ends: Sequence[int]) -> list[int]:
    """Return where the messages of each round end."""
    counts = list(accumulate(len(request.messages) for request in batch))
    return [counts[end - 1] for end in ends]


def _is_usual(batch: Sequence[AppendRequest]) -> bool:
    """Return whether the batch is one turn that the ``append_one`` statement can write."""
    first = batch[0]
    if len(batch) > 1 or first.skip_to is not None or first.links.early_results or first.links.open_calls:
        return False
    messages = first.messages
    return all(message.format == messages[0].format and message.created_at is None for message in messages)


def _arguments_of_one(request: AppendRequest, now_ms: int | None) -> list[Any]:
    """Return the arguments of the ``append_one`` statement."""
    return [
        now_ms,
        pack(request.key.tenant),
        pack(request.key.thread_id),
        pack(request.append_id),
        size_of(request),
        request.expected_seq,
        request.retention.max_messages,
        request.retention.expire_ms,
        request.overrides,
        None if request.default_title is None else pack(request.default_title),
        [message.payload for message in request.messages],
        pack(request.messages[0].format),
        _ties(request) if request.links.spans else None,
    ]


def _arguments(
    batch: Sequence[AppendRequest], now_ms: int | None, text_of: Callable[[NewMessage], str] | None, language: str
) -> list[Any]:
    """Return the arguments of the ``append`` statement. A list of nothing but ``None`` becomes ``None``."""
    owned = [(owner, message) for owner, request in enumerate(batch, 1) for message in request.messages]
    usual = owned[0][1].format
    return [
        now_ms,
        [pack(request.key.tenant) for request in batch],
        [pack(request.key.thread_id) for request in batch],
        [pack(request.append_id) for request in batch],
        [len(request.messages) for request in batch],
        [size_of(request) for request in batch],
        _some([request.expected_seq for request in batch]),
        _some([request.skip_to for request in batch]),
        _some([request.retention.max_messages for request in batch]),
        _some([request.retention.expire_ms for request in batch]),
        _some([request.overrides or None for request in batch]),
        _some([None if request.default_title is None else pack(request.default_title) for request in batch]),
        [owner for owner, _ in owned],
        [at for request in batch for at in range(len(request.messages))],
        [message.payload for _, message in owned],
        pack(usual),
        _some([None if message.format == usual else pack(message.format) for _, message in owned]),
        _some([None if m.created_at is None else to_milliseconds(m.created_at) for _, m in owned]),
        _some([tie for request in batch for tie in _ties(request)]),
        None if text_of is None else [text_of(message) for _, message in owned],
        language,
        *_links([request.links.early_results for request in batch]),
        *_links([request.links.open_calls for request in batch]),
    ]


def _result(request: AppendRequest, _turn: int, outcome: int, first: int, following: int) -> Appended | EverthreadError:
    if outcome == _WRITTEN:
        return Appended(first, following)
    if outcome == _REPLAYED:
        return Appended(first, following, replayed=True)
    return ConflictError.at_position(request.key, following, request.expected_seq)


def _links(links: Sequence[Sequence[tuple[str, int]]]) -> tuple[list[int], list[bytes], list[int]] | tuple[None, ...]:
    found = [(owner, call_id, at) for owner, each in enumerate(links, 1) for call_id, at in each]
    if not found:
        return None, None, None
    # Call IDs come from models and are not checked; bytes hold any text.
    ids = [call_id.encode("utf-8", "surrogatepass") for _, call_id, _ in found]
    return [owner for owner, _, _ in found], ids, [at for _, _, at in found]


def _ties(request: AppendRequest) -> Sequence[int | None]:
    ties: list[int | None] = [None] * len(request.messages)
    for lo, hi in request.links.spans:
        ties[hi] = lo
    return ties


def _some(values: list[T | None]) -> list[T | None] | None:
    return values if any(value is not None for value in values) else None
