"""What lies beside the messages in Redis, and how it is read: facts, positions, and the state of a thread.

The scripts write these records; their form is described in ``lua/thread.lua``. No I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, cast

import msgspec

from everthread.codec import decode, recognise
from everthread.engines.redis._keys import ThreadNames
from everthread.errors import CorruptRecordError
from everthread.model import Message, MessagePage, NewMessage, Retention, Thread, ThreadKey, to_milliseconds

DONE, ABSENT, CONFLICT, OTHER_OWNER, OTHER_SCHEMA = range(5)
"""What a script's reply begins with."""

_CODES: Final = {"agent-framework": b"a", "chat-completions": b"c", "json": b"j"}
_FORMATS: Final = {code: name for name, code in _CODES.items()}
_FOREIGN: Final = b",0,0,?"
"""The fact of a message that another program wrote, or whose fact was lost."""


class State(msgspec.Struct, array_like=True, frozen=True):
    """The numbers of a thread; the beginning of what ``save`` packs."""

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


# The script packs the values one after the other, which is an array without its beginning. The first is the schema:
# in the second, a retention of the thread's own follows.
_ARRAYS: Final = {1: b"\xdc\x00\x10", 2: b"\xdc\x00\x12"}
_state_decoder = msgspec.msgpack.Decoder(State)


def fact_of(offset: int, message: NewMessage) -> bytes:
    """What is noted beside a message; where it begins with a comma, the script puts its time before it."""
    code = _CODES.get(message.format) or b"=" + message.format.encode()
    fact = b",%d,%d,%b" % (offset, len(message.payload), code)
    return fact if message.created_at is None else b"%d" % to_milliseconds(message.created_at) + fact


def tail_commands(names: ThreadNames, start: bytes) -> Sequence[Sequence[bytes]]:
    """The commands that read everything from an index on, to be carried out in one step."""
    messages, meta, facts = names.names[:3]
    return (
        (b"HMGET", meta, b"owner", b"state", b"tail"),
        (b"LLEN", messages),
        (b"LRANGE", messages, start, b"-1"),
        (b"LRANGE", facts, start, b"-1"),
    )


def tail_page(key: ThreadKey, names: ThreadNames, reply: Sequence[Any], now_ms: int | None) -> MessagePage | None:
    """The page from the replies to `tail_commands`.

    Returns ``None`` where a script has to look: the thread is another's, its time is over, its state is of
    another schema, or another program changed the list.
    """
    (owner, packed, tail), length, payloads, facts = reply
    if owner is None:
        # Only another program has written here, or nobody.
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
    """The page from the reply of ``read.lua``."""
    if reply[0] == ABSENT:
        return MessagePage((), 0, 0)
    _, head, following, ordinal, runs, payloads, facts = reply
    # Where facts were lost, the oldest are missing.
    facts = [*[_FOREIGN] * (len(payloads) - len(facts)), *facts]
    seqs = _positions(ordinal, len(payloads), runs)
    messages = [_message(key, *row) for row in zip(seqs, payloads, facts, strict=True)]
    return MessagePage(tuple(messages), head, following)


def thread_of(key: ThreadKey, reply: Sequence[Any]) -> Thread:
    """The thread from the reply of ``get.lua``."""
    _, head, following, count, size, created, updated, revision, expires, title, metadata, own = reply
    return Thread(
        key,
        head,
        following,
        count,
        size,
        created,
        updated,
        title[1:].decode() if title else None,
        cast(Mapping[str, object], msgspec.json.decode(metadata[1:])) if metadata else {},
        revision,
        None if expires < 0 else expires,
        _own_retention(own),
    )


def _own_retention(text: bytes) -> Retention | None:
    if not text:
        return None
    most, milliseconds = text.split(b",")
    expire_after = timedelta(milliseconds=int(milliseconds)) if milliseconds else None
    return Retention(int(most) if most else None, expire_after)


def _positions(ordinal: int, count: int, runs: bytes) -> Sequence[int]:
    if not runs:
        return range(ordinal, ordinal + count)
    # Each run says where it begins, as ordinal:position.
    begins = [int(run.partition(b":")[0]) for run in runs.split()]
    shifts = [0, *(int(run.partition(b":")[2]) - begin for run, begin in zip(runs.split(), begins, strict=True))]
    return [place + shifts[bisect_right(begins, place)] for place in range(ordinal, ordinal + count)]


def _message(key: ThreadKey, seq: int, payload: bytes, fact: bytes) -> Message:
    created, offset, _, code = fact.split(b",", 3)
    name = _FORMATS.get(code) or _format_of(code, payload, key)
    return Message(seq, payload, name, int(created) if created else None, seq - int(offset))


def _format_of(code: bytes, payload: bytes, key: ThreadKey) -> str:
    if code.startswith(b"="):
        return code[1:].decode()
    try:
        return recognise(decode(payload, key))
    except CorruptRecordError:
        # Another program wrote it. Whoever decodes it is told which one; the others can still be read.
        return "json"


def _fingerprint(payload: bytes) -> bytes:
    # As in thread.lua, whose positions begin at 1.
    middle = len(payload) // 2
    return payload[max(middle - 1, 0) : middle + 23] + payload[-24:]
