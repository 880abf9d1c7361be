"""Checks of the arguments of public calls, shared by engines and wrappers. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from everthread.capabilities import MAX_RESTORED_SEQ
from everthread.contract import MAX_DOCUMENT_BYTES, MAX_METADATA_BYTES
from everthread.errors import ConfigurationError, InvalidIdentifierError, InvalidMessageError, LimitExceededError
from everthread.messages.codec import encode
from everthread.model import NewMessage, Retention, Rewrite, ThreadKey, check_count

MAX_TITLE_CHARACTERS = 1000
MAX_TURN_MESSAGES = 10_000

SEALED = "everthread-sealed"
"""The prefix of an encrypted title, and the only name in an encrypted value. Engines give such values more room."""


class ReservedName(str):
    """A name that only the library itself may write to; the same text as a plain ``str`` is refused."""

    __slots__ = ()


KEYS_TENANT = ReservedName("everthread:keys")
"""The tenant with the keys of the others; it has no conversations."""

_SEALED_VALUE = f'{{"{SEALED}":'.encode()
# A sealed value is a third larger than it was, and a title's characters may have been of four bytes each.
_SEALED_TITLE_CHARACTERS = MAX_TITLE_CHARACTERS * 6


def is_sealed(value: bytes) -> bool:
    """Return whether a payload or document begins like one that an encrypted store wrote."""
    return value.startswith(_SEALED_VALUE)


def checked_key(key: ThreadKey) -> ThreadKey:
    """Return a key with a plain ``str`` as tenant, which drivers and encoders need."""
    if not isinstance(key, ThreadKey):
        raise InvalidIdentifierError(f"A thread is named by ThreadKey(thread_id, tenant), not {type(key).__name__}.")
    return ThreadKey(key.thread_id, str(key.tenant)) if isinstance(key.tenant, ReservedName) else key


def check_not_reserved(tenant: str) -> None:
    """Refuse the tenant with the keys of the others, unless the library itself names it."""
    if tenant == KEYS_TENANT and not isinstance(tenant, ReservedName):
        raise InvalidIdentifierError(f"The tenant {tenant!r} holds the keys of the others: take another name.")


def writable_key(key: ThreadKey) -> ThreadKey:
    """Return a `checked_key` that callers may write to."""
    checked = checked_key(key)
    check_not_reserved(key.tenant)
    return checked


def checked_turn(key: ThreadKey, messages: Sequence[NewMessage], max_message_bytes: int) -> tuple[NewMessage, ...]:
    """Return the messages of an append, which must be some, not too many and not too large."""
    if not isinstance(messages, Iterable):
        raise InvalidMessageError(f"append takes a sequence of NewMessage, not {type(messages).__name__}.")
    turn = tuple(messages)
    if not turn:
        raise InvalidMessageError(f"There is nothing to append to {key}: give at least one message.")
    if len(turn) > MAX_TURN_MESSAGES:
        error = f"A turn of {len(turn):,} messages for {key}: at most {MAX_TURN_MESSAGES:,} go into one append."
        raise LimitExceededError(error, len(turn), MAX_TURN_MESSAGES)
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


def check_restored(key: ThreadKey, name: str, seq: int, expected_seq: int | None) -> None:
    """Refuse a position that an import cannot set."""
    check_count(seq, name)
    if expected_seq is None:
        raise ConfigurationError(f"{name} needs expected_seq: the next position of {key}.")
    check_count(expected_seq, "expected_seq")
    if seq < expected_seq:
        raise ConfigurationError(f"{name} ({seq}) must not be below expected_seq ({expected_seq}).")
    if seq > MAX_RESTORED_SEQ:
        what = f"Position {seq:,} of {key} is too high: at most {MAX_RESTORED_SEQ:,} can be restored."
        raise LimitExceededError(what, seq, MAX_RESTORED_SEQ)


def checked_changes(key: ThreadKey, changes: Sequence[Rewrite], max_message_bytes: int) -> tuple[Rewrite, ...]:
    """Return the changes of a rewriting, which must be JSON and not too large."""
    if not isinstance(changes, Sequence) or not all(isinstance(change, Rewrite) for change in changes):
        raise InvalidMessageError("rewrite takes a sequence of Rewrite.")
    for change in changes:
        check_count(change.seq, "seq")
    if changes:
        checked_turn(key, [NewMessage(change.new) for change in changes], max_message_bytes)
    return tuple(changes)


def checked_retention(retention: Retention | None) -> Retention | None:
    """Return the retention of a call."""
    if retention is not None and not isinstance(retention, Retention):
        raise ConfigurationError(f"retention must be a Retention, not {type(retention).__name__}.")
    return retention


def checked_title(title: str | None) -> str | None:
    """Return a title, which must be text and not too long."""
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
    """Return metadata as JSON, which must not be too large."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise InvalidMessageError("metadata must be a mapping with a JSON form.")
    encoded = encode(dict(metadata))
    _check_size(encoded, "metadata", MAX_METADATA_BYTES)
    return encoded


def check_document(value: bytes) -> None:
    """Refuse a document that is not JSON or too large."""
    NewMessage(value)
    _check_size(value, "document", MAX_DOCUMENT_BYTES)


def _check_size(value: bytes, what: str, limit: int) -> None:
    limit = limit * 3 // 2 if is_sealed(value) else limit
    if len(value) > limit:
        raise LimitExceededError(f"A {what} of {len(value):,} bytes: at most {limit:,}.", len(value), limit)
