"""Convert rows of PostgreSQL to messages and threads, and texts in both directions. Uses no connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from everthread.engines._listing import Parts, decode_metadata
from everthread.engines.base import ThreadChange
from everthread.model import Message, MessagePage, Retention, Thread, ThreadKey

if TYPE_CHECKING:
    from everthread.engines.postgres.connection import Record

_ESCAPED = re.compile("\1[\1\2]")


def pack(text: str) -> str:
    """Escape U+0000, which PostgreSQL's ``text`` cannot hold; the order of texts stays the same.

    U+0000 becomes U+0001 U+0001, and U+0001 becomes U+0001 U+0002.
    """
    if "\0" not in text and "\1" not in text:
        return text
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


def unpack(text: str) -> str:
    """Return the original text of a packed one."""
    if "\1" not in text:
        return text
    return _ESCAPED.sub(lambda found: "\0" if found[0] == "\1\1" else "\1", text)


def page_of(rows: Sequence[Record]) -> MessagePage:
    """Return the page of rows that each begin with the thread's positions."""
    if not rows:
        return MessagePage((), 0, 0)
    head_seq, next_seq, first = rows[0][:3]
    messages = () if first is None else tuple(_message(*row) for row in rows)
    return MessagePage(messages, head_seq, next_seq)


def _message(_head: int, _next: int, seq: int, payload: bytes, format: str, created_ms: int, turn: int) -> Message:
    return Message(seq, payload, unpack(format), created_ms, turn)


def thread_of(tenant: str, row: Record) -> Thread:
    """Return the thread of a row in the order of ``queries.sql``."""
    thread_id, head_seq, next_seq, count, size, created, updated, title, metadata, revision, expires = row[:11]
    has_retention, own_most, own_expire = row[11:14]
    key = ThreadKey(unpack(thread_id), tenant)
    parts = Parts(key)
    return Thread(
        key,
        head_seq,
        next_seq,
        count,
        size,
        created,
        updated,
        None if title is None else unpack(title),
        parts.decode("metadata", metadata, decode_metadata, {}),
        revision,
        expires,
        parts.decode("retention", (own_most, own_expire) if has_retention else None, _retention, None),
        parts.damage,
    )


def retention_of(change: ThreadChange) -> tuple[bool, bool, int | None, int | None, int | None]:
    """Return the arguments of ``update_thread`` for a change of retention."""
    if change.retention is None:
        return False, False, None, None, None
    own = change.own_retention or Retention()
    return True, change.own_retention is not None, own.max_messages, own.expire_ms, change.expire_ms


def _retention(stored: tuple[int | None, int | None]) -> Retention:
    most, milliseconds = stored
    return Retention(most, None if milliseconds is None else timedelta(milliseconds=milliseconds))
