"""Cursors: opaque text that says where the next page begins. Callers may send anything, so each is checked."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, TypeVar

import msgspec

from everthread.errors import ConfigurationError, InvalidIdentifierError
from everthread.model import MAX_SEQ, Thread, check_identifier

Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
Signed = Annotated[int, msgspec.Meta(ge=-MAX_SEQ, le=MAX_SEQ)]
"""A number that every database takes: no cursor needs a larger one."""

T = TypeVar("T")


def written_cursor(parts: object) -> str:
    """Return the cursor that holds these values."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def read_cursor(cursor: str, shape: type[T], giver: str) -> T:
    """Return the values of a cursor.

    Args:
        cursor: The caller's text.
        shape: The type of the values.
        giver: The call that returns such cursors, for the error.

    Raises:
        ConfigurationError: No call of this kind returned it.
    """
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, binascii.Error, ValueError, TypeError, RecursionError):
        raise ConfigurationError(f"This is not a cursor that {giver} gave: start again without one.") from None


def listing_cursor(tenant: str, last: Thread) -> str:
    """Return the cursor of the page that follows a thread."""
    return written_cursor((tenant, last.updated_ms, last.key.thread_id))


def read_listing_cursor(cursor: str, tenant: str) -> tuple[int, str]:
    """Return the time and the ID of the thread that a page follows.

    Raises:
        ConfigurationError: `listing_cursor` did not return it for this tenant.
    """
    of, updated_ms, thread_id = read_cursor(cursor, tuple[str, Milliseconds, str], "list_threads")
    if of != tenant:
        raise ConfigurationError("This cursor is of another tenant's listing: start again without one.")
    try:
        return updated_ms, check_identifier(thread_id, "thread id")
    except InvalidIdentifierError:
        raise ConfigurationError("This is not a cursor that list_threads gave: start again without one.") from None
