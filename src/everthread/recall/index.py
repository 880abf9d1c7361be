"""The interface of vector indexes: what a follower writes, and what a question is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from everthread.model import ThreadKey


class Mark(msgspec.Struct, frozen=True):
    """How far an index follows a thread: the values of `everthread.model.Thread` when it was read last.

    Attributes:
        next_seq: Turns before this position are in the index.
        count: -1 if the thread must be compared with the index again.
    """

    created_ms: int
    head_seq: int
    next_seq: int
    count: int
    size: int


class Entry(msgspec.Struct, frozen=True):
    """A passage and its vector.

    Attributes:
        turn: Position of the turn's first message.
        last: Position of the turn's last message.
        part: The passage's number in the turn.
        seq: Position of the message in which the passage begins.
        created_ms: The time at which that message was stored; ``None`` if unknown.
        digest: Recognizes a changed text.
        vector: Of length 1, with the index's dimensions.
    """

    turn: int
    last: int
    part: int
    seq: int
    created_ms: int | None
    digest: bytes
    vector: NDArray[np.float32]


class Near(msgspec.Struct, frozen=True):
    """An entry near a question, without its vector.

    Attributes:
        score: The inner product of the vectors: 1 for the same direction.
    """

    key: ThreadKey
    turn: int
    last: int
    part: int
    seq: int
    created_ms: int | None
    digest: bytes
    score: float


class VectorIndex(ABC):
    """Vectors of the turns of threads, each tenant apart, of one embedding model.

    Calls of an index whose storage cannot be reached raise `StoreUnavailableError`. An index may be rebuilt from the
    store at any time, so its writes need not survive a power failure, but each must be atomic.
    """

    model: str
    dimensions: int

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what was opened. May be repeated."""

    @abstractmethod
    async def marks(self, keys: Sequence[ThreadKey]) -> Mapping[ThreadKey, Mark]:
        """Return the marks of those threads that have one."""

    @abstractmethod
    async def add(
        self,
        key: ThreadKey,
        entries: Sequence[Entry],
        mark: Mark,
        *,
        expected: Mark | None,
        remove: Collection[tuple[int, int]] = (),
    ) -> bool:
        """Remove entries, add entries and set the mark, in one atomic step, if the mark is ``expected``.

        Args:
            key: The thread.
            entries: Each replaces an entry with the same turn and part.
            mark: The thread's new mark.
            expected: The mark that the caller read; ``None``: the thread has none.
            remove: Turn and part of entries to remove.

        Returns:
            False if the thread has another mark by now; then nothing changed.
        """

    @abstractmethod
    async def entries(self, key: ThreadKey) -> Mapping[tuple[int, int], bytes]:
        """Return the digests of a thread's entries by turn and part."""

    @abstractmethod
    async def remove(self, key: ThreadKey) -> None:
        """Remove a thread's entries and its mark."""

    @abstractmethod
    async def delete_tenant(self, tenant: str) -> int:
        """Remove everything of a tenant, of all models; return the number of removed entries."""

    @abstractmethod
    async def tenants(self) -> Sequence[str]:
        """Return the tenants that have marks."""

    @abstractmethod
    async def threads(self, tenant: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Return the IDs of threads that have a mark, in order, after an ID."""

    @abstractmethod
    async def count(self, tenant: str) -> int:
        """Return the number of a tenant's entries."""

    @abstractmethod
    async def nearest(self, tenant: str, vector: NDArray[np.float32], limit: int) -> Sequence[Near]:
        """Return the entries with the highest scores, at most one a turn, the highest first."""


def best_of_each_turn(found: Iterable[Near], limit: int) -> list[Near]:
    """Return the highest score of each turn, the highest first."""
    best: dict[tuple[ThreadKey, int], Near] = {}
    for near in sorted(found, key=lambda near: -near.score):
        best.setdefault((near.key, near.turn), near)
    return list(best.values())[:limit]
