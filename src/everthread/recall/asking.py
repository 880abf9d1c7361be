"""Ask an index: the stored turns with the meaning nearest to a question."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from everthread.contract import Store
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.listing import ALL_THREADS, ThreadFilter
from everthread.model import ThreadKey, check_count, check_identifier, to_milliseconds
from everthread.readable import ignore, read_around
from everthread.recall.embedders import Embedder
from everthread.recall.index import Near, VectorIndex
from everthread.recall.passages import VERSION, passages_of
from everthread.recall.telling_words import messages_with, shared_words, telling_words

MAX_QUESTION_CHARACTERS = 10_000
MAX_RESULTS = 100

_READS_AT_ONCE = 8
_LONGEST_TURN = 200
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
    by_words: bool = True,
) -> tuple[Recalled, ...]:
    """Return the turns of a tenant with the meaning nearest to a question, the nearest first.

    A vector tells little about IDs, numbers and names. So turns with such words of the question come first, if few
    messages have the word: see `everthread.recall.telling_words`.

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
        by_words: Let IDs, numbers and names in the question decide. Costs a search for each of them.

    Raises:
        ConfigurationError: The index is of another model, or a limit is wrong.
        InvalidMessageError: The question is not text, or is too long.
    """
    check_identifier(tenant, "tenant", may_be_empty=True)
    _check(index, embedder, question, limit)
    (vector,) = await embedder.embed([question.encode("utf-8", "replace").decode()])
    asking = _Asking(store, threads, since, until)
    telling = telling_words(question) if by_words else []
    places = await messages_with(store, tenant, telling) if telling else {}
    first = await asking.with_words(places, question, embedder, vector) if places else []
    first = first[:limit]
    named = {(each.key, each.turn) for each in first}
    asked_for = limit * _EXTRA
    while True:
        near = await index.nearest(tenant, vector, asked_for)
        others = [each for each in near if (each.key, each.turn) not in named]
        found = await asking.checked(others, limit - len(first))
        # With filters, few of the nearest may pass: look further, up to a bound.
        if len(first) + len(found) == limit or len(near) < asked_for or asked_for >= limit * _EXTRA**3:
            return (*first, *found)
        asked_for *= _EXTRA


def _check(index: VectorIndex, embedder: Embedder, question: object, limit: int) -> None:
    check_count(limit, "limit", least=1)
    if limit > MAX_RESULTS:
        raise ConfigurationError(f"limit must be at most {MAX_RESULTS}.")
    if index.model != f"{embedder.name}/{VERSION}":
        raise ConfigurationError(f"The index is of the model {index.model}, not of {embedder.name}.")
    if not isinstance(question, str) or not question.strip() or len(question) > MAX_QUESTION_CHARACTERS:
        raise InvalidMessageError(f"A question is text of 1 to {MAX_QUESTION_CHARACTERS:,} characters.")


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
            self._checked[place] = await self._read(near) if self._is_in_time(near.created_ms) else None
        return self._checked[place]

    def _is_in_time(self, at: int | None) -> bool:
        if self._since is None and self._until is None:
            return True
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

    async def with_words(
        self,
        places: Mapping[tuple[ThreadKey, int], Mapping[str, float]],
        question: str,
        embedder: Embedder,
        vector: NDArray[np.float32],
    ) -> list[Recalled]:
        """Return the turns of messages with telling words: more, rarer and more shared words first, then the nearer."""
        words: dict[tuple[ThreadKey, int], dict[str, float]] = {}
        passages: list[Recalled] = []
        for (key, seq), weights in places.items():
            passage = await self._passage_at(key, seq, question)
            if passage is not None:
                if (key, passage.turn) not in words:
                    passages.append(passage)
                words.setdefault((key, passage.turn), {}).update(weights)
        if not passages:
            return []
        vectors = await embedder.embed([passage.snippet for passage in passages])
        scored = [
            (
                sum(words[passage.key, passage.turn].values()) + shared_words(question, passage.snippet),
                msgspec.structs.replace(passage, score=float(each @ vector)),
            )
            for passage, each in zip(passages, vectors, strict=True)
        ]
        return [passage for _, passage in sorted(scored, key=lambda each: (-each[0], -each[1].score))]

    async def _passage_at(self, key: ThreadKey, seq: int, question: str) -> Recalled | None:
        """Return the passage of a message's turn that shares most words, if the message passes the filters."""
        try:
            if not await self._accepts(key):
                return None
            message = next(
                iter(await read_around(self._store, key, start=seq, stop=seq + 1, on_unreadable=ignore)), None
            )
            if message is None or not self._is_in_time(message.created_ms):
                return None
            around = await read_around(self._store, key, start=message.turn, limit=_LONGEST_TURN, on_unreadable=ignore)
        except CorruptRecordError:
            return None
        passages = passages_of([each for each in around if each.turn == message.turn])
        if not passages:
            return None
        best = max(passages, key=lambda each: shared_words(question, each.text))
        return Recalled(key, best.seq, message.turn, message.created_ms, 0.0, best.text)

    async def _accepts(self, key: ThreadKey) -> bool:
        if self._threads == ALL_THREADS:
            return True
        if key not in self._accepted:
            thread = await self._store.get_thread(key)
            self._accepted[key] = thread is not None and self._threads.accepts(thread)
        return self._accepted[key]
