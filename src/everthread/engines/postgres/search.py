"""Full-text search: the words that PostgreSQL indexes, the phrases of a query, and indexing of older messages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from everthread.engines._search import hit, text_in
from everthread.engines.postgres.rows import unpack
from everthread.errors import ConfigurationError
from everthread.messages.tokenizer import phrases_of, words_of
from everthread.model import NewMessage, SearchHit, ThreadKey

if TYPE_CHECKING:
    from everthread.engines.postgres.connection import Record
    from everthread.engines.postgres.reconcile import Statement

_CONFIGURATION = re.compile(r"[a-z_][a-z0-9_.]{0,100}")

SIMPLE = "simple"

# PostgreSQL stores at most a megabyte of words per message, and needs up to twice the bytes of the text for them.
_MAX_BYTES = 450_000


class Language:
    """A text search configuration of the server. With ``"simple"``, words are the same as on every engine."""

    def __init__(self, name: object) -> None:
        if not isinstance(name, str) or not _CONFIGURATION.fullmatch(name):
            raise ConfigurationError("search_language is the name of a text search configuration, e.g. english.")
        self.name = name

    def words(self, payload: bytes, format: str) -> str:
        """Return the text of a message that the server splits into words."""
        text = text_in(payload, format)
        if self.name == SIMPLE:
            text = " ".join(words_of(text))
        return text if len(text) * 4 <= _MAX_BYTES else text.encode()[:_MAX_BYTES].decode(errors="ignore")

    def text_of(self, message: NewMessage) -> str:
        """Return `words` of a new message."""
        return self.words(message.payload, message.format)

    def phrases(self, text: str) -> list[str]:
        """Return the phrases that a message must hold. Double quotes are the only syntax."""
        if self.name == SIMPLE:
            return [" ".join(phrase) for phrase in phrases_of(text)]
        parts = enumerate(text.split('"'))
        return [phrase for index, part in parts for phrase in ([part] if index % 2 else part.split())]


def hit_of(tenant: str, row: Record, query: str) -> SearchHit:
    """Return the hit of a row of the statement ``search``."""
    key = ThreadKey(unpack(row["thread_id"]), tenant)
    format = unpack(row["format"])
    return hit(key, row["seq"], row["created_ms"], payload=row["payload"], format=format, query=query)


class Indexing:
    """Indexes messages that have no words in the index, or words of another language: a few at a time.

    The messages themselves record the progress, so it can be stopped at any moment and started again.

    Args:
        run: Runs a named statement, and repeats it if the connection is lost.
        language: The language of the words.
        advance: Called with the number of messages that were just indexed.
    """

    def __init__(self, run: Statement, language: Language, advance: Callable[[int], None]) -> None:
        self._run = run
        self._language = language
        self._advance = advance

    async def count(self) -> int:
        """Return how many messages are left to index."""
        return sum([left async for _, left, _ in self._threads()])

    async def run(self) -> int:
        """Index all messages that are left; return how many there were."""
        total = 0
        while True:
            done = missed = 0
            async for thread, left, stop in self._threads():
                indexed = await self._index(thread, stop)
                done += indexed
                missed += left - indexed
            total += done
            # Rows that another session has locked are skipped: look again, as long as that makes progress.
            if not (missed > 0 and done):
                return total

    async def _threads(self) -> AsyncIterator[tuple[int, int, int]]:
        after = -1
        while rows := await self._run("unindexed", after, self._language.name):
            after = rows[-1][0]
            for thread, left, stop in rows:
                if left:
                    yield thread, left, stop

    async def _index(self, thread: int, stop: int) -> int:
        # Only up to `stop`: a writer without search may add messages as fast as they are indexed here.
        after, done = -1, 0
        while after + 1 < stop:
            rows = await self._run("unindexed_messages", thread, after, self._language.name, stop)
            if not rows:
                break
            after = rows[-1]["seq"]
            texts = [self._language.words(row["payload"], unpack(row["format"])) for row in rows]
            seqs, versions = [row["seq"] for row in rows], [row["version"] for row in rows]
            indexed = len(await self._run("index_messages", thread, seqs, versions, texts, self._language.name))
            self._advance(indexed)
            done += indexed
        return done
