"""Appends that go together → the arguments of the ``append`` statement, and its rows → results. No connection here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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


def arguments(
    batch: Sequence[AppendRequest], now_ms: int | None, text_of: Callable[[NewMessage], str] | None, language: str
) -> list[Any]:
    """What the statement takes, in order; a list of nothing but ``None`` becomes ``None``, which costs nothing."""
    numbered = list(enumerate(batch, 1))
    owned = [(owner, message) for owner, request in numbered for message in request.messages]
    early = [(owner, *link) for owner, request in numbered for link in request.links.early_results]
    opened = [(owner, *link) for owner, request in numbered for link in request.links.open_calls]
    return [
        now_ms,
        [pack(request.key.tenant) for request in batch],
        [pack(request.key.thread_id) for request in batch],
        [pack(request.append_id) for request in batch],
        _rounds(batch),
        [len(request.messages) for request in batch],
        [size_of(request) for request in batch],
        _some(request.expected_seq for request in batch),
        _some(request.retention.max_messages for request in batch),
        _some(request.retention.expire_ms for request in batch),
        _some(None if request.default_title is None else pack(request.default_title) for request in batch),
        [owner for owner, _ in owned],
        [at for request in batch for at in range(len(request.messages))],
        [message.payload for _, message in owned],
        [pack(message.format) for _, message in owned],
        _some(None if m.created_at is None else to_milliseconds(m.created_at) for _, m in owned),
        _some(tie for request in batch for tie in _ties(request)),
        None if text_of is None else [text_of(message) for _, message in owned],
        language,
        [owner for owner, _, _ in early],
        [_call(call_id) for _, call_id, _ in early],
        [at for _, _, at in early],
        [owner for owner, _, _ in opened],
        [_call(call_id) for _, call_id, _ in opened],
        [at for _, _, at in opened],
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


def _rounds(batch: Sequence[AppendRequest]) -> list[int]:
    # A round holds each thread once: appends to one thread follow one another, within the statement.
    if len(batch) == 1:
        return [1]
    seen: dict[ThreadKey, int] = {}
    rounds: list[int] = []
    for request in batch:
        seen[request.key] = seen.get(request.key, 0) + 1
        rounds.append(seen[request.key])
    return rounds


def _ties(request: AppendRequest) -> Sequence[int | None]:
    ties: list[int | None] = [None] * len(request.messages)
    for lo, hi in request.links.spans:
        ties[hi] = lo
    return ties


def _call(call_id: str) -> bytes:
    # Frameworks take call ids from models, so they are not checked; bytes hold any text.
    return call_id.encode("utf-8", "surrogatepass")


def _some(values: Iterable[T | None]) -> list[T | None] | None:
    listed = list(values)
    return None if all(value is None for value in listed) else listed
