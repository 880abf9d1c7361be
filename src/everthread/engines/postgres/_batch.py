"""Appends that go together → the arguments of the ``append`` statement, and its rows → results. No connection here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from everthread.engines._base import AppendRequest
from everthread.engines.postgres._text import pack
from everthread.errors import ConflictError, EverthreadError
from everthread.model import Appended, NewMessage, ThreadKey, to_milliseconds

MAX_BATCH_BYTES = 32 * 1024 * 1024
"""Batches are split at this many bytes of payload: a statement's parameters may not reach a gigabyte."""

T = TypeVar("T")

_WRITTEN, _REPLAYED = 0, 1


def split(batch: Sequence[AppendRequest]) -> Iterable[Sequence[AppendRequest]]:
    """Parts of a batch, in order, none of more than `MAX_BATCH_BYTES` unless it is one turn."""
    part: list[AppendRequest] = []
    size = 0
    for request in batch:
        more = size_of(request)
        if part and size + more > MAX_BATCH_BYTES:
            yield part
            part, size = [], 0
        part.append(request)
        size += more
    if part:
        yield part


def size_of(request: AppendRequest) -> int:
    """Bytes of a turn's payloads."""
    return sum(len(message.payload) for message in request.messages)


def in_rounds(batch: Sequence[AppendRequest]) -> tuple[list[AppendRequest], list[int]]:
    """The batch sorted by rounds, and where each ends. A round holds each thread once, so appends to one thread follow
    one another.
    """
    if len(batch) == 1:
        return list(batch), [1]
    seen: dict[ThreadKey, int] = {}
    rounds: list[list[AppendRequest]] = []
    for request in batch:
        number = seen[request.key] = seen.get(request.key, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(request)
    return [request for each in rounds for request in each], list(accumulate(map(len, rounds)))


def message_ends(batch: Sequence[AppendRequest], ends: Sequence[int]) -> list[int]:
    """Where the messages of each round end."""
    counts = list(accumulate(len(request.messages) for request in batch))
    return [counts[end - 1] for end in ends]


def is_usual(batch: Sequence[AppendRequest]) -> bool:
    """Whether it is one turn for which the ``append_one`` statement is enough."""
    if len(batch) > 1 or batch[0].links.early_results or batch[0].links.open_calls:
        return False
    messages = batch[0].messages
    return all(message.format == messages[0].format and message.created_at is None for message in messages)


def arguments_of_one(request: AppendRequest, now_ms: int | None) -> list[Any]:
    """What the ``append_one`` statement takes, in order."""
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


def arguments(
    batch: Sequence[AppendRequest], now_ms: int | None, text_of: Callable[[NewMessage], str] | None, language: str
) -> list[Any]:
    """What the ``append`` statement takes, in order; a list of nothing but ``None`` becomes ``None``."""
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


def results(batch: Sequence[AppendRequest], rows: Iterable[Any]) -> list[Appended | EverthreadError]:
    """What each append did, in the batch's order."""
    found: dict[int, Any] = {row[0]: row for row in rows}
    return [_result(request, *found[number]) for number, request in enumerate(batch, 1)]


def _result(request: AppendRequest, _turn: int, outcome: int, first: int, following: int) -> Appended | EverthreadError:
    if outcome == _WRITTEN:
        return Appended(first, following)
    if outcome == _REPLAYED:
        return Appended(first, following, replayed=True)
    return ConflictError(f"The next position of {request.key} is {following}, not {request.expected_seq}.", following)


def _links(links: Sequence[Sequence[tuple[str, int]]]) -> tuple[list[int], list[bytes], list[int]] | tuple[None, ...]:
    found = [(owner, call_id, at) for owner, each in enumerate(links, 1) for call_id, at in each]
    if not found:
        return None, None, None
    # Frameworks take call ids from models, so they are not checked; bytes hold any text.
    ids = [call_id.encode("utf-8", "surrogatepass") for _, call_id, _ in found]
    return [owner for owner, _, _ in found], ids, [at for _, _, at in found]


def _ties(request: AppendRequest) -> Sequence[int | None]:
    ties: list[int | None] = [None] * len(request.messages)
    for lo, hi in request.links.spans:
        ties[hi] = lo
    return ties


def _some(values: list[T | None]) -> list[T | None] | None:
    return values if any(value is not None for value in values) else None
