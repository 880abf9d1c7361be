"""`SearchingPostgresStore`: a PostgreSQL store that also finds messages by their words."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from everthread.engines._search import Position, Searching, hit, text_in
from everthread.engines.postgres._indexing import Indexing
from everthread.engines.postgres._store import PostgresStore
from everthread.engines.postgres._text import pack, unpack
from everthread.errors import ConfigurationError
from everthread.model import MAX_SEQ, Drift, Rewrite, SearchHit, ThreadKey
from everthread.words import phrases_of, words_of

if TYPE_CHECKING:
    from everthread.engines.postgres._connections import Record

_CONFIGURATION = re.compile(r"[a-z_][a-z0-9_.]{0,100}")

_SIMPLE = "simple"

# PostgreSQL keeps at most a megabyte of words for a message, and takes up to twice the bytes of the text for it.
_MAX_BYTES = 450_000


class SearchingPostgresStore(Searching, PostgresStore):
    """Full-text search with a GIN index, which each append keeps up to date in its one statement.

    Args:
        url: As for `PostgresStore`.
        search_language: A text search configuration of the server, e.g. ``"english"``: it says what
            is taken for the same word. With the default, ``"simple"``, words are the same as on
            every engine (`everthread.words`), which suits mixed languages. After a change of it call `index`.
        options: As for `PostgresStore`.
    """

    def __init__(self, url: str, *, search_language: str = _SIMPLE, **options: Any) -> None:
        super().__init__(url, **options)
        if not isinstance(search_language, str) or not _CONFIGURATION.fullmatch(search_language):
            raise ConfigurationError("search_language is the name of a text search configuration, e.g. english.")
        self._language = search_language
        self._text_of = lambda message: self._words(message.payload, message.format)

    async def index(self, *, advance: Callable[[int], None] = lambda messages: None) -> int:
        """Makes messages findable that were stored while search was off, or in another ``search_language``.

        It goes through all tenants, a few messages at a time, in bounded memory; readers and writers go on meanwhile.
        It may be stopped at any moment: called again, it goes on with what is left.

        Args:
            advance: Told of each part how many messages it was.

        Returns:
            How many messages were indexed.
        """
        return await self._call(self._indexing(advance).run())

    def _indexing(self, advance: Callable[[int], None] = lambda messages: None) -> Indexing:
        return Indexing(self._repeat, self._words, self._language, advance)

    async def _drifts(self, *, mend: bool) -> AsyncIterator[Drift]:
        async for drift in super()._drifts(mend=mend):
            yield drift
        indexing = self._indexing()
        left = await (indexing.run() if mend else indexing.count())
        yield Drift("messages that search does not find", left, mended=mend)

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        seqs = [change.seq for change in changes]
        rows = await self._fetch("formats", pack(key.tenant), pack(key.thread_id), self._now_ms(), seqs)
        formats: dict[int, str] = {row["seq"]: row["format"] for row in rows}
        there = [change for change in changes if change.seq in formats]
        texts = [self._words(change.new, unpack(formats[change.seq])) for change in there]
        return await self._rewrite_with_words(key, there, [formats[change.seq] for change in there], texts)

    async def _search(
        self, tenant: str, text: str, limit: int, after: Position | None
    ) -> Sequence[tuple[SearchHit, Position]]:
        below = (MAX_SEQ, MAX_SEQ, MAX_SEQ) if after is None else after
        rows = await self._fetch(
            "search", pack(tenant), self._phrases(text), self._language, self._now_ms(), limit, *below
        )
        return [(_hit(tenant, row, text), (row["created_ms"], row["thread"], row["seq"])) for row in rows]

    def _words(self, payload: bytes, format: str) -> str:
        text = text_in(payload, format)
        if self._language == _SIMPLE:
            text = " ".join(words_of(text))
        return text if len(text) * 4 <= _MAX_BYTES else text.encode()[:_MAX_BYTES].decode(errors="ignore")

    def _phrases(self, text: str) -> list[str]:
        if self._language == _SIMPLE:
            return [" ".join(phrase) for phrase in phrases_of(text)]
        # Other configurations know best what a word is; only quotes have a meaning here.
        parts = enumerate(text.split('"'))
        return [phrase for index, part in parts for phrase in ([part] if index % 2 else part.split())]


def _hit(tenant: str, row: Record, query: str) -> SearchHit:
    key = ThreadKey(unpack(row["thread_id"]), tenant)
    format = unpack(row["format"])
    return hit(key, row["seq"], row["created_ms"], payload=row["payload"], format=format, query=query)
