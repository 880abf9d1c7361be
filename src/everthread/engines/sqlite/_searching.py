"""The words of messages: as they stand in the index, and as they are asked for."""

from __future__ import annotations

from hashlib import blake2s

from everthread.engines._search import text_in
from everthread.words import phrases_of, words_of


def indexed_words(payload: bytes, format: str) -> str:
    """The words of a message as the index keeps them: normal, with single spaces between."""
    return " ".join(words_of(text_in(payload, format)))


def mark_of(tenant: str) -> str:
    """One word for a tenant. It only narrows a search: the tenant itself is compared beside it."""
    return blake2s(tenant.encode(), digest_size=12).hexdigest()


def match_of(tenant: str, text: str) -> str | None:
    """The query in FTS5's language, or ``None`` where the text has no words.

    https://sqlite.org/fts5.html#full_text_query_syntax. The words hold letters, digits and marks only, and stand in
    quotes, so nothing in a text can be taken for syntax.
    """
    phrases = [f'"{" ".join(phrase)}"' for phrase in phrases_of(text)]
    return f'tenant : "{mark_of(tenant)}" AND words : ({" AND ".join(phrases)})' if phrases else None
