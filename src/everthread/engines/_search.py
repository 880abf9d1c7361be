"""What engines that search share: checking arguments, cursors, the text that is searched, and snippets of it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence

from everthread.capabilities import SupportsSearch
from everthread.engines._cursors import Signed, read_cursor, written_cursor
from everthread.engines.base import MAX_PAGE, Engine
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.messages.codec import View, decode, shorten, view_of
from everthread.model import Page, SearchHit, ThreadKey, check_count, check_identifier

MAX_QUERY_CHARACTERS = 1000

MAX_TEXT_CHARACTERS = 100_000
"""How much of a message's text is searched: indexes have limits, and one huge message must not fail its append."""

_SNIPPET = 160
_WORD = re.compile(r"\w+")

Position = tuple[int, int, int]
"""Where a hit stands among all: its time, its thread by the engine's own number, its position."""


class Searching(Engine, SupportsSearch):
    """Gives an engine with the hook `_search` the ability to search."""

    async def search(self, tenant: str, text: str, *, limit: int = 20, cursor: str | None = None) -> Page[SearchHit]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        check_count(limit, "limit", least=1)
        if not isinstance(text, str) or len(text) > MAX_QUERY_CHARACTERS:
            raise InvalidMessageError(f"A search is for text of at most {MAX_QUERY_CHARACTERS:,} characters.")
        after = None if cursor is None else _read_cursor(cursor, tenant, text)
        limit = min(limit, MAX_PAGE)
        found = await self._call(self._search, tenant, _plain(text), limit, after)
        more = written_cursor((tenant, _plain(text), found[-1][1])) if len(found) == limit else None
        return Page(tuple(hit for hit, _ in found), more)

    @abstractmethod
    async def _search(
        self, tenant: str, text: str, limit: int, after: Position | None
    ) -> Sequence[tuple[SearchHit, Position]]:
        """Return hits in descending order of their positions, below ``after``."""


def text_in(payload: bytes, format: str) -> str:
    """Return the text by which a stored message is found: nothing if it cannot be decoded."""
    view = _view(payload, format)
    return "" if view is None else _plain(view.text[:MAX_TEXT_CHARACTERS])


def hit(key: ThreadKey, seq: int, created_ms: int | None, *, payload: bytes, format: str, query: str) -> SearchHit:
    """Return a hit, from the stored message."""
    seen = _view(payload, format)
    if seen is None:
        return SearchHit(key, seq, "", created_ms, damage=f"The record at position {seq} of {key} is not JSON.")
    return SearchHit(key, seq, snippet(seen.text, query), created_ms, seen.role)


def snippet(text: str, query: str) -> str:
    """Return some of a text around the first word of a query that is in it, on one line."""
    words = sorted(map(re.escape, _WORD.findall(query)), key=len, reverse=True)
    found = re.search("|".join(words), text, re.IGNORECASE) if words else None
    if found is None or found.start() <= _SNIPPET // 2:
        return shorten(text, _SNIPPET)
    return shorten("…" + text[found.start() - _SNIPPET // 4 :], _SNIPPET)


def _view(payload: bytes, format: str) -> View | None:
    try:
        return view_of(decode(payload), format)
    except CorruptRecordError:
        # Damaged, or nested deeper than this Python decodes: such a message is stored, and not found.
        return None


def _plain(text: str) -> str:
    # No index takes NUL or lone surrogates, and no user searches for them.
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _read_cursor(cursor: str, tenant: str, text: str) -> Position:
    of, query, position = read_cursor(cursor, tuple[str, str, tuple[Signed, Signed, Signed]], "search")
    if (of, query) != (tenant, _plain(text)):
        raise ConfigurationError("This cursor is of another search: start again without one.")
    return position
