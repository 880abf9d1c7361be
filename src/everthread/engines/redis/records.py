"""Encode the arguments of scripts, and decode their replies and the records of messages and threads. No I/O.

The scripts write these records; ``lua/thread.lua`` describes their form.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, Final

import msgspec

from everthread.engines._listing import Parts, decode_metadata
from everthread.engines.base import AppendRequest, ThreadChange
from everthread.engines.redis.keys import ThreadNames
from everthread.errors import CorruptRecordError, LimitExceededError
from everthread.messages.codec import decode, recognize
from everthread.messages.tool_links import TurnLinks
from everthread.model import Message, MessagePage, NewMessage, Retention, Rewrite, Thread, ThreadKey, to_milliseconds

MAX_TURN_BYTES: Final = 256 * 1024 * 1024
"""Maximum bytes of one append: a server closes a connection with a gigabyte of unread data."""

DONE, ABSENT, CONFLICT, OTHER_OWNER, OTHER_SCHEMA = range(5)
"""The first value of a script's reply."""

_CODES: Final = {"agent-framework": b"a", "chat-completions": b"c", "json": b"j"}
_FORMATS: Final = {code: name for name, code in _CODES.items()}
_FOREIGN: Final = b",0,0,?"
"""The fact of a message that another program wrote, or that has lost its fact."""


class State(msgspec.Struct, array_like=True, frozen=True):
    """The numbers of a thread: the beginning of the state that ``save`` in ``thread.lua`` packs."""

    schema: int
    next: int
    count: int
    dropped: int
    shift: int
    runs: str
    size: int
    created: int
    updated: int
    expires: int | bool


# The script packs the values one after the other, which is an array without its header. The key is the schema; in the
# second, the thread's own retention follows.
_ARRAYS: Final = {1: b"\xdc\x00\x10", 2: b"\xdc\x00\x12"}
_state_decoder = msgspec.msgpack.Decoder(State)


def fact_of(offset: int, message: NewMessage) -> bytes:
    """Return the fact of a message; the script puts its time before a leading comma."""
    code = _CODES.get(message.format) or b"=" + message.format.encode()
    fact = b",%d,%d,%b" % (offset, len(message.payload), code)
    return fact if message.created_at is None else b"%d" % to_milliseconds(message.created_at) + fact


def tail_commands(names: ThreadNames, start: bytes) -> Sequence[Sequence[bytes]]:
    """Return the commands that read all messages from an index on, in one transaction."""
    messages, meta, facts = names.names[:3]
    return (
        (b"HMGET", meta, b"owner", b"state", b"tail"),
        (b"LLEN", messages),
        (b"LRANGE", messages, start, b"-1"),
        (b"LRANGE", facts, start, b"-1"),
    )


def tail_page(key: ThreadKey, names: ThreadNames, reply: Sequence[Any], now_ms: int | None) -> MessagePage | None:
    """Return the page from the replies to `tail_commands`.

    Returns ``None`` if a script has to read the thread: it has another owner, it expired, its state has another
    schema, or another program changed the list.
    """
    (owner, packed, tail), length, payloads, facts = reply
    if owner is None:
        # Only another program has written here, if any.
        return page_of(key, (DONE, 0, length, length - len(payloads), b"", payloads, ()))
    try:
        state = _state_decoder.decode(_ARRAYS[packed[0]] + packed)
    except (msgspec.MsgspecError, LookupError):
        return None
    is_over = now_ms is not None and state.expires is not False and state.expires <= now_ms
    if owner != names.owner or is_over or length != state.count:
        return None
    if payloads and _fingerprint(payloads[-1]) != tail:
        return None
    runs = state.runs.encode()
    head = _positions(state.dropped, 1, runs)[0] if length else state.next
    first = state.dropped + length - len(payloads)
    return page_of(key, (DONE, head, state.next, first, runs, payloads, facts))


def page_of(key: ThreadKey, reply: Sequence[Any]) -> MessagePage:
    """Return the page from the reply of ``read.lua``."""
    if reply[0] == ABSENT:
        return MessagePage((), 0, 0)
    _, head, following, ordinal, runs, payloads, facts = reply
    # If facts were lost, the oldest are missing.
    facts = [*[_FOREIGN] * (len(payloads) - len(facts)), *facts]
    seqs = _positions(ordinal, len(payloads), runs)
    messages = [_message(key, *row) for row in zip(seqs, payloads, facts, strict=True)]
    return MessagePage(tuple(messages), head, following)


def thread_of(key: ThreadKey, reply: Sequence[Any]) -> Thread:
    """Return the thread from the reply of ``get.lua``."""
    _, head, following, count, size, created, updated, revision, expires, title, metadata, own = reply
    parts = Parts(key)
    return Thread(
        key,
        head,
        following,
        count,
        size,
        created,
        updated,
        parts.decode("title", title[1:] if title else None, bytes.decode, None),
        parts.decode("metadata", metadata[1:] if metadata else None, decode_metadata, {}),
        revision,
        None if expires < 0 else expires,
        parts.decode("retention", own or None, _own_retention, None),
        parts.damage,
    )


def _own_retention(text: bytes) -> Retention:
    most, milliseconds = text.split(b",")
    expire_after = timedelta(milliseconds=int(milliseconds)) if milliseconds else None
    return Retention(int(most) if most else None, expire_after)


def _positions(ordinal: int, count: int, runs: bytes) -> Sequence[int]:
    if not runs:
        return range(ordinal, ordinal + count)
    # Each run is its beginning, as ordinal:position.
    begins = [int(run.partition(b":")[0]) for run in runs.split()]
    shifts = [0, *(int(run.partition(b":")[2]) - begin for run, begin in zip(runs.split(), begins, strict=True))]
    return [at + shifts[bisect_right(begins, at)] for at in range(ordinal, ordinal + count)]


def _message(key: ThreadKey, seq: int, payload: bytes, fact: bytes) -> Message:
    created, offset, _, code = fact.split(b",", 3)
    name = _FORMATS.get(code) or _format_of(code, payload, key)
    return Message(seq, payload, name, int(created) if created else None, seq - int(offset))


def _format_of(code: bytes, payload: bytes, key: ThreadKey) -> str:
    if code.startswith(b"="):
        return code[1:].decode()
    try:
        return recognize(decode(payload, key))
    except CorruptRecordError:
        # Another program wrote it. Decoding it raises an error; the other messages stay readable.
        return "json"


def _fingerprint(payload: bytes) -> bytes:
    # As in thread.lua, where positions begin at 1.
    middle = len(payload) // 2
    return payload[max(middle - 1, 0) : middle + 23] + payload[-24:]


def append_arguments(request: AppendRequest) -> list[bytes]:
    """Return the arguments of ``append.lua``.

    Raises:
        LimitExceededError: The turn is larger than `MAX_TURN_BYTES`.
    """
    messages, retention = request.messages, request.retention
    payloads = [message.payload for message in messages]
    size = sum(map(len, payloads))
    if size > MAX_TURN_BYTES:
        raise LimitExceededError(
            f"This turn of {request.key} has {size:,} bytes; an append accepts at most {MAX_TURN_BYTES:,}.",
            size,
            MAX_TURN_BYTES,
        )
    return [
        request.append_id.encode(),
        _expectation(request),
        number(retention.max_messages),
        number(retention.expire_ms),
        b"1" if request.overrides else b"",
        b"" if request.default_title is None else b"=" + request.default_title.encode(),
        _packed_links(request.links),
        b"%d" % size,
        *payloads,
        *[fact_of(offset, message) for offset, message in enumerate(messages)],
    ]


def _expectation(request: AppendRequest) -> bytes:
    expected = number(request.expected_seq)
    return expected if request.skip_to is None else b"%b:%d" % (expected, request.skip_to)


def rewrite_arguments(key: ThreadKey, changes: Sequence[Rewrite]) -> list[bytes]:
    """Return the arguments of ``rewrite.lua``.

    Raises:
        LimitExceededError: Old and new payloads together are larger than `MAX_TURN_BYTES`.
    """
    size = sum(len(change.old) + len(change.new) for change in changes)
    if size > MAX_TURN_BYTES:
        raise LimitExceededError(
            f"Rewriting {size:,} bytes of {key}: at most {MAX_TURN_BYTES:,} in one call.", size, MAX_TURN_BYTES
        )
    return [part for change in changes for part in (b"%d" % change.seq, change.old, change.new)]


def update_arguments(change: ThreadChange) -> list[bytes]:
    """Return the arguments of ``update.lua``."""
    title = b"" if change.title is None else b"=" + change.title.encode()
    metadata = b"" if change.metadata is None else b"=" + change.metadata
    return [title, metadata, number(change.expected_revision), *_retention_arguments(change)]


def number(value: int | None) -> bytes:
    """Return a number as an argument; ``None`` is empty."""
    return b"" if value is None else b"%d" % value


def _packed_links(links: TurnLinks) -> bytes:
    if not (links.spans or links.open_calls or links.early_results):
        return b""
    if not (links.open_calls or links.early_results) and links.spans[-1][1] < 256:
        # 's' and two bytes for each span, which the script reads without making a table.
        return b"s" + bytes(chain.from_iterable(links.spans))
    return msgspec.msgpack.encode((links.spans, _as_text(links.open_calls), _as_text(links.early_results)))


def _as_text(pairs: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    # A model may give a call any ID, also one with a lone surrogate, which has no UTF-8 form.
    return [(call_id.encode(errors="backslashreplace").decode(), at) for call_id, at in pairs]


def _retention_arguments(change: ThreadChange) -> list[bytes]:
    if change.retention is None:
        return [b"", b"", b""]
    own = change.own_retention
    most = b"" if own is None else number(own.max_messages)
    return [b"-" if own is None else b"=", most, number(change.expire_ms)]
