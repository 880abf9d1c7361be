"""`SearchingPostgresStore`: a PostgreSQL store that also finds messages by their words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from everthread.engines._search import Position, Searching, hit, text_of
from everthread.engines.postgres._store import PostgresStore
from everthread.engines.postgres._text import pack, unpack
from everthread.errors import ConfigurationError
from everthread.model import MAX_SEQ, SearchHit, ThreadKey

if TYPE_CHECKING:
    from everthread.engines.postgres._connections import Record

_CONFIGURATION = re.compile(r"[a-z_][a-z0-9_.]{0,100}")


class SearchingPostgresStore(Searching, PostgresStore):
    """Full-text search with a GIN index, which each append keeps up to date in its one statement.

    Args:
        url: As for `PostgresStore`.
        search_language: A text search configuration of the server, e.g. ``"english"``: it says what
            is taken for the same word. The default ``"simple"`` suits mixed languages. It is used for
            writing and for searching, so use one and the same for a database.
        options: As for `PostgresStore`.
    """

    def __init__(self, url: str, *, search_language: str = "simple", **options: Any) -> None:
        super().__init__(url, **options)
        if not isinstance(search_language, str) or not _CONFIGURATION.fullmatch(search_language):
            raise ConfigurationError("search_language is the name of a text search configuration, e.g. english.")
        self._language = search_language
        self._text_of = text_of

    async def _search(
        self, tenant: str, text: str, limit: int, after: Position | None
    ) -> Sequence[tuple[SearchHit, Position]]:
        below = (MAX_SEQ, MAX_SEQ, MAX_SEQ) if after is None else after
        rows = await self._fetch("search", pack(tenant), text, self._language, self._now_ms(), limit, *below)
        return [(_hit(tenant, row, text), (row["created_ms"], row["thread"], row["seq"])) for row in rows]


def _hit(tenant: str, row: Record, query: str) -> SearchHit:
    key = ThreadKey(unpack(row["thread_id"]), tenant)
    format = unpack(row["format"])
    return hit(key, row["seq"], row["created_ms"], payload=row["payload"], format=format, query=query)
