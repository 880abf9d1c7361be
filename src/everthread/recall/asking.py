"""Ask an index: the stored turns with the meaning nearest to a question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec

from everthread.contract import Store
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.listing import ALL_THREADS, ThreadFilter
from everthread.model import ThreadKey, check_count, check_identifier, to_milliseconds
from everthread.readable import ignore, read_around
from everthread.recall.embedders import Embedder
from everthread.recall.index import Near, VectorIndex
from everthread.recall.passages import VERSION, passages_of

MAX_QUESTION_CHARACTERS = 10_000
MAX_RESULTS = 100

_READS_AT_ONCE = 8
_EXTRA = 3
"""How many times more turns are asked for than wanted: some may be gone, or not pass a filter."""


class Recalled(msgspec.Struct, frozen=True):
    """A turn that a question found.

    Attributes:
        seq: The position in the thread of the message in which ``snippet`` begins.
        turn: The position of the turn's first message.
        created_ms: The time at which the message was stored, in milliseconds since 1970; ``None`` if unknown.
        score: How near the meanings are, at most 1. Scores of different models cannot be compared.
        snippet: The passage: at most 900 characters of the turn.
    """

    key: ThreadKey
    seq: int
    turn: int
    created_ms: int | None
    score: float
    snippet: str

    def __repr__(self) -> str:
        # Without the snippet, which is content.
        return f"Recalled({self.key}, seq={self.seq}, score={self.score:.3f})"


async def recall(
    store: Store,
    index: VectorIndex,
    embedder: Embedder,
    question: str,
    *,
    tenant: str = "",
    limit: int = 10,
    threads: ThreadFilter = ALL_THREADS,
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[Recalled, ...]:
    """Return the turns of a tenant with the meaning nearest to a question, the nearest first.

    Each turn is read from the store again: one that is gone or was changed since it was indexed is never returned. So
    the index decides only which turns are looked at.

    Args:
        store: The store.
        index: The index that a `Follower` of this store writes.
        embedder: The model of the index.
        question: Any text of up to 10,000 characters.
        tenant: The owner of the threads.
        limit: The most turns, at most 100.
        threads: Selects threads, by what they store.
        since: Only messages that were stored then or later.
        until: Only messages that were stored before.

    Raises:
        ConfigurationError: The index is of another model, or a limit is wrong.
        InvalidMessageError: The question is not text, or is too long.
    """
    check_identifier(tenant, "tenant", may_be_empty=True)
    check_count(limit, "limit", least=1)
    if limit > MAX_RESULTS:
        raise ConfigurationError(f"limit must be at most {MAX_RESULTS}.")
    if index.model != f"{embedder.name}/{VERSION}":
        raise ConfigurationError(f"The index is of the model {index.model}, not of {embedder.name}.")
    if not isinstance(question, str) or not question.strip() or len(question) > MAX_QUESTION_CHARACTERS:
        raise InvalidMessageError(f"A question is text of 1 to {MAX_QUESTION_CHARACTERS:,} characters.")
    (vector,) = await embedder.embed([question.encode("utf-8", "replace").decode()])
    asking = _Asking(store, threads, since, until)
    asked_for = limit * _EXTRA
    while True:
        near = await index.nearest(tenant, vector, asked_for)
        found = await asking.checked(near, limit)
        # With filters, few of the nearest may pass: look further, up to a bound.
        if len(found) == limit or len(near) < asked_for or asked_for >= limit * _EXTRA**3:
            return tuple(found)
        asked_for *= _EXTRA


class _Asking:
    """Checks turns against the store, and remembers those that were checked."""

    def __init__(self, store: Store, threads: ThreadFilter, since: datetime | None, until: datetime | None) -> None:
        self._store = store
        self._threads = threads
        self._since = None if since is None else to_milliseconds(since)
        self._until = None if until is None else to_milliseconds(until)
        self._accepted: dict[ThreadKey, bool] = {}
        self._checked: dict[tuple[ThreadKey, int, int], Recalled | None] = {}

    async def checked(self, near: Sequence[Near], limit: int) -> list[Recalled]:
        found: list[Recalled] = []
        for start in range(0, len(near), _READS_AT_ONCE):
            some = near[start : start + _READS_AT_ONCE]
            found += [each for each in await asyncio.gather(*map(self._check, some)) if each is not None]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _check(self, near: Near) -> Recalled | None:
        place = (near.key, near.turn, near.part)
        if place not in self._checked:
            self._checked[place] = await self._read(near) if self._is_in_time(near) else None
        return self._checked[place]

    def _is_in_time(self, near: Near) -> bool:
        if self._since is None and self._until is None:
            return True
        at = near.created_ms
        return at is not None and (self._since or 0) <= at and (self._until is None or at < self._until)

    async def _read(self, near: Near) -> Recalled | None:
        try:
            if not await self._accepts(near.key):
                return None
            turn = await read_around(self._store, near.key, start=near.turn, stop=near.last + 1, on_unreadable=ignore)
        except CorruptRecordError:
            return None
        for each in passages_of([message for message in turn if message.turn == near.turn]):
            if each.part == near.part and each.digest == near.digest:
                return Recalled(near.key, each.seq, near.turn, near.created_ms, near.score, each.text)
        return None

    async def _accepts(self, key: ThreadKey) -> bool:
        if self._threads == ALL_THREADS:
            return True
        if key not in self._accepted:
            thread = await self._store.get_thread(key)
            self._accepted[key] = thread is not None and self._threads.accepts(thread)
        return self._accepted[key]
