"""Checks of what public calls are given, shared by the engines and by what stands around them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from everthread.codec import encode
from everthread.contract import MAX_DOCUMENT_BYTES
from everthread.errors import (
    ConfigurationError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
)
from everthread.model import NewMessage, Retention, Rewrite, ThreadKey, check_count

MAX_TITLE_CHARACTERS = 1000
MAX_TURN_MESSAGES = 10_000

SEALED = "everthread-sealed"
"""What an encrypted title, and the one name in an encrypted value, begins with (`everthread.wrappers.encrypted`)."""

KEYS_TENANT = "everthread:keys"
"""The tenant that holds the keys of the others; no conversation can be in it."""

_SEALED_VALUE = f'{{"{SEALED}":'.encode()
# A sealed value is a third larger than it was, and a title's characters may have been of four bytes each.
_SEALED_TITLE_CHARACTERS = MAX_TITLE_CHARACTERS * 6
_SEALED_BYTES = MAX_DOCUMENT_BYTES * 3 // 2


def is_sealed(value: bytes) -> bool:
    """Whether a payload or document is one that an encrypted store wrote, by its beginning."""
    return value.startswith(_SEALED_VALUE)


def checked_key(key: ThreadKey) -> ThreadKey:
    """Refuses what is not the name of a thread."""
    if not isinstance(key, ThreadKey):
        raise InvalidIdentifierError(f"A thread is named by ThreadKey(thread_id, tenant), not {type(key).__name__}.")
    return key


def checked_turn(key: ThreadKey, messages: Sequence[NewMessage], max_message_bytes: int) -> tuple[NewMessage, ...]:
    """Refuses what cannot be appended: nothing, too much, too large, or no messages at all."""
    if not isinstance(messages, Iterable):
        raise InvalidMessageError(f"append takes a sequence of NewMessage, not {type(messages).__name__}.")
    turn = tuple(messages)
    if not turn:
        raise InvalidMessageError(f"There is nothing to append to {key}: give at least one message.")
    if len(turn) > MAX_TURN_MESSAGES:
        raise LimitExceededError(
            f"A turn of {len(turn):,} messages for {key}: at most {MAX_TURN_MESSAGES:,} go into one append.",
            len(turn),
            MAX_TURN_MESSAGES,
        )
    for message in turn:
        if not isinstance(message, NewMessage):
            raise InvalidMessageError(
                f"append takes NewMessage, not {type(message).__name__}: see everthread.new_message."
            )
        if len(message.payload) > max_message_bytes:
            raise LimitExceededError(
                f"A message of {len(message.payload):,} bytes for {key}: this store takes at most "
                f"{max_message_bytes:,} (setting max_message_bytes). Keep large media elsewhere.",
                len(message.payload),
                max_message_bytes,
            )
    return turn


def checked_changes(key: ThreadKey, changes: Sequence[Rewrite], max_message_bytes: int) -> tuple[Rewrite, ...]:
    """Refuses what cannot be rewritten: no `Rewrite` objects, no positions, no JSON, or too much of it."""
    if not isinstance(changes, Sequence) or not all(isinstance(change, Rewrite) for change in changes):
        raise InvalidMessageError("rewrite takes a sequence of Rewrite.")
    for change in changes:
        check_count(change.seq, "seq")
    if changes:
        checked_turn(key, [NewMessage(change.new) for change in changes], max_message_bytes)
    return tuple(changes)


def checked_retention(retention: Retention | None) -> Retention | None:
    """Refuses what is no retention."""
    if retention is not None and not isinstance(retention, Retention):
        raise ConfigurationError(f"retention must be a Retention, not {type(retention).__name__}.")
    return retention


def checked_title(title: str | None) -> str | None:
    """Refuses a title that is too long or not text; an encrypted one may take the room that it needs."""
    if title is None:
        return None
    if not isinstance(title, str):
        raise InvalidMessageError(f"title must be a str, not {type(title).__name__}.")
    limit = _SEALED_TITLE_CHARACTERS if title.startswith(f"{SEALED}:") else MAX_TITLE_CHARACTERS
    if len(title) > limit:
        raise LimitExceededError(f"A title of {len(title):,} characters: at most {limit:,}.", len(title), limit)
    encode(title)  # refuses lone surrogates
    return title


def checked_metadata(metadata: Mapping[str, object] | None) -> bytes | None:
    """Metadata as JSON; refuses what has no such form or is too large."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise InvalidMessageError("metadata must be a mapping with a JSON form.")
    encoded = encode(dict(metadata))
    _check_size(encoded, "metadata")
    return encoded


def check_document(value: bytes) -> None:
    """Refuses a document that is not JSON or too large."""
    NewMessage(value)
    _check_size(value, "document")


def _check_size(value: bytes, what: str) -> None:
    limit = _SEALED_BYTES if is_sealed(value) else MAX_DOCUMENT_BYTES
    if len(value) > limit:
        raise LimitExceededError(f"A {what} of {len(value):,} bytes: at most {limit:,}.", len(value), limit)
