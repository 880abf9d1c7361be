"""What scripts are given, made from requests; the scripts' files say what each argument means. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from everthread.engines._base import AppendRequest, ThreadChange
from everthread.engines.redis._records import fact_of
from everthread.errors import LimitExceededError
from everthread.model import Rewrite, ThreadKey
from everthread.retention import TurnLinks

MAX_TURN_BYTES: Final = 256 * 1024 * 1024
"""Most bytes of one append: a server takes a gigabyte of a client before it closes the connection."""


def append_arguments(request: AppendRequest) -> list[bytes]:
    """For ``append.lua``.

    Raises:
        LimitExceededError: The turn is larger than `MAX_TURN_BYTES`.
    """
    messages, retention = request.messages, request.retention
    payloads = [message.payload for message in messages]
    size = sum(map(len, payloads))
    if size > MAX_TURN_BYTES:
        raise LimitExceededError(
            f"A turn of {size:,} bytes for {request.key}: at most {MAX_TURN_BYTES:,} go into one append.",
            size,
            MAX_TURN_BYTES,
        )
    return [
        request.append_id.encode(),
        number(request.expected_seq),
        number(retention.max_messages),
        number(retention.expire_ms),
        b"1" if request.overrides else b"",
        b"" if request.default_title is None else b"=" + request.default_title.encode(),
        _packed_links(request.links),
        b"%d" % size,
        *payloads,
        *[fact_of(offset, message) for offset, message in enumerate(messages)],
    ]


def rewrite_arguments(key: ThreadKey, changes: Sequence[Rewrite]) -> list[bytes]:
    """For ``rewrite.lua``.

    Raises:
        LimitExceededError: Old and new payloads together are larger than `MAX_TURN_BYTES`.
    """
    size = sum(len(change.old) + len(change.new) for change in changes)
    if size > MAX_TURN_BYTES:
        raise LimitExceededError(
            f"Rewriting {size:,} bytes of {key}: at most {MAX_TURN_BYTES:,} at once.", size, MAX_TURN_BYTES
        )
    return [part for change in changes for part in (b"%d" % change.seq, change.old, change.new)]


def update_arguments(change: ThreadChange) -> list[bytes]:
    """For ``update.lua``."""
    title = b"" if change.title is None else b"=" + change.title.encode()
    metadata = b"" if change.metadata is None else b"=" + change.metadata
    return [title, metadata, number(change.expected_revision), *_retention_arguments(change)]


def number(value: int | None) -> bytes:
    """A number, or nothing."""
    return b"" if value is None else b"%d" % value


def _packed_links(links: TurnLinks) -> bytes:
    if not (links.spans or links.open_calls or links.early_results):
        return b""
    return msgspec.msgpack.encode((links.spans, _as_text(links.open_calls), _as_text(links.early_results)))


def _as_text(pairs: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    # A call's id may be any text that a model gave, also with a lone surrogate, which has no UTF-8 form.
    return [(call_id.encode(errors="backslashreplace").decode(), at) for call_id, at in pairs]


def _retention_arguments(change: ThreadChange) -> list[bytes]:
    if change.retention is None:
        return [b"", b"", b""]
    own = change.own_retention
    most = b"" if own is None else number(own.max_messages)
    return [b"-" if own is None else b"=", most, number(change.expire_ms)]
