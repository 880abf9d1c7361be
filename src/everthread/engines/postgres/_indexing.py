"""Takes the words of messages that were stored without: a few at a time, beside readers and writers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from everthread.engines.postgres._text import unpack

if TYPE_CHECKING:
    from everthread.engines.postgres._reconciling import Statement


class Indexing:
    """Adds what is missing in the index for search, or there in another language.

    What is left to do is known from the messages themselves, so it may be stopped at any moment and begun again.

    Args:
        run: Runs a named statement, again if need be.
        words_of: The words of a payload of a format.
        language: In which they are taken.
        advance: Told how many more messages were indexed.
    """

    def __init__(
        self, run: Statement, words_of: Callable[[bytes, str], str], language: str, advance: Callable[[int], None]
    ) -> None:
        self._run = run
        self._words_of = words_of
        self._language = language
        self._advance = advance

    async def count(self) -> int:
        """How many messages are left to index."""
        return sum([left async for _, left, _ in self._threads()])

    async def run(self) -> int:
        """Indexes what is left now; says how many messages that were."""
        total = 0
        while True:
            done = missed = 0
            async for thread, left, stop in self._threads():
                indexed = await self._index(thread, stop)
                done += indexed
                missed += left - indexed
            total += done
            # Messages that somebody was just writing to were passed over: once more, unless he still is.
            if not (missed > 0 and done):
                return total

    async def _threads(self) -> AsyncIterator[tuple[int, int, int]]:
        after = -1
        while rows := await self._run("unindexed", after, self._language):
            after = rows[-1][0]
            for thread, left, stop in rows:
                if left:
                    yield thread, left, stop

    async def _index(self, thread: int, stop: int) -> int:
        # Only up to where the thread was: a writer without search may add messages as fast as they are indexed here.
        after, done = -1, 0
        while after + 1 < stop:
            rows = await self._run("unindexed_messages", thread, after, self._language, stop)
            if not rows:
                break
            after = rows[-1]["seq"]
            texts = [self._words_of(row["payload"], unpack(row["format"])) for row in rows]
            seqs, versions = [row["seq"] for row in rows], [row["version"] for row in rows]
            indexed = len(await self._run("index_messages", thread, seqs, versions, texts, self._language))
            self._advance(indexed)
            done += indexed
        return done
