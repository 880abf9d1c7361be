"""The marks that link stored messages to conversations. Imports no framework.

A mark is a field of the stored message beside the framework's own. That of an entry has its ID and the place of the
entry before it. That of the last message of a write has the state of the conversation too, so that one append stores
entries and state. A write without entries stores a *record*: a message of nothing but a mark.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from everthread.errors import CorruptRecordError
from everthread.messages import codec
from everthread.messages.formats.pydantic_ai import MARK, RECORD
from everthread.model import Message, NewMessage, ThreadKey

FORMAT = "pydantic-ai"

_EMPTY = msgspec.json.encode({"kind": RECORD})


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A position in a thread. An empty thread ID, which only stored places have, is the thread of the mark itself."""

    seq: int
    thread: str = ""


class Source(msgspec.Struct, frozen=True, array_like=True):
    """An entry of another thread that a conversation needs, and the token of the document that says so there."""

    seq: int
    thread: str
    token: str


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a conversation.

    Attributes:
        record: The framework's record, as its JSON.
        head: The place of the newest entry.
        branches: The places of the record's branches, in the same order; ``None`` for one that is not stored.
        sources: What this conversation, and the conversations that share entries of its thread, need elsewhere.
        deleted: The conversation is deleted, and others may still share its entries.
    """

    record: msgspec.Raw
    head: Place | None = None
    branches: tuple[Place | None, ...] = ()
    sources: tuple[Source, ...] = ()
    deleted: bool = False


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """The mark of a stored message; without an ID and a state, the message was stored by another program.

    Attributes:
        id: The ID of the entry.
        parent_id: The ID of the entry before it.
        parent: The place of the entry before it.
        erased: The content was erased, because no conversation reaches it.
    """

    id: str = ""
    parent_id: str | None = None
    parent: Place | None = None
    state: State | None = None
    erased: bool = False


class Names(msgspec.Struct, frozen=True):
    """What a record names: its newest entry, the last entries of its branches, and its revision."""

    head_id: str | None = None
    branches: tuple[str, ...] = ()
    revision: str = ""


class Newest(NamedTuple):
    """The state of a thread.

    Attributes:
        state: The newest stored state.
        tail: The messages after it, which another program stored, oldest first.
        next_seq: The position of the next message.
    """

    state: State | None
    tail: tuple[Message, ...]
    next_seq: int


class _Marked(msgspec.Struct):
    everthread: Mark = Mark()


assert _Marked.__struct_fields__ == (MARK,)
_marks = msgspec.json.Decoder(_Marked)
_names = msgspec.json.Decoder(Names)


def mark_of(message: Message, key: ThreadKey) -> Mark:
    """Return the mark of a message; an empty one if another program stored it.

    Raises:
        CorruptRecordError: The message is not JSON.
    """
    try:
        return _marks.decode(message.payload).everthread
    except msgspec.ValidationError:
        return Mark()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Raises the error that names the record, or decodes what only another program writes.
        codec.decode(message, key)
        return Mark()


def names_in(state: State, key: ThreadKey) -> Names:
    """Return the names in the record of a state.

    Raises:
        CorruptRecordError: It is no record.
    """
    try:
        return _names.decode(state.record)
    except msgspec.DecodeError:
        raise CorruptRecordError(f"The newest record of {key} is not one of Pydantic AI: delete the thread.") from None


def marked(payload: bytes, mark: Mark) -> bytes:
    """Return the JSON of a message with a mark."""
    return payload[:-1] + f',"{MARK}":'.encode() + msgspec.json.encode(mark) + b"}"


def record_message(mark: Mark) -> NewMessage:
    """Return a message of nothing but a mark."""
    return NewMessage(marked(_EMPTY, mark), FORMAT)


def erased_payload(mark: Mark, key: ThreadKey) -> bytes:
    """Return the JSON that replaces a message with this mark, without its content."""
    state = mark.state
    if state is not None:
        # Messages of other programs follow the newest entry at their time, which the state names.
        head_id = names_in(state, key).head_id
        state = State(msgspec.Raw(msgspec.json.encode({"head_id": head_id})), state.head)
    return marked(_EMPTY, Mark(state=state, erased=True))


def relative(place: Place, thread: str) -> Place:
    """Return a place as a message of the thread stores it, so that a copied thread stays whole."""
    return Place(place.seq) if place.thread == thread else place


def absolute(place: Place | None, thread: str) -> Place | None:
    """Return a place that a message of the thread stored, with its thread."""
    return place if place is None or place.thread else Place(place.seq, thread)


def plain_id(place: Place) -> str:
    """Return the ID of an entry that another program stored without one."""
    return f"{place.thread}@{place.seq}"


def place_in_id(entry_id: str) -> Place | None:
    """Return the place that such an ID names."""
    thread, _, seq = entry_id.rpartition("@")
    return Place(int(seq), thread) if thread and seq.isascii() and seq.isdecimal() and len(seq) < 17 else None
