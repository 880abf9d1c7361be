"""Records of other programs → messages: positions by their order, and turns that begin with what a user says."""

from __future__ import annotations

from everthread import codec
from everthread.errors import CorruptRecordError
from everthread.model import Message

LONGEST_TURN = 500
"""Messages after which a turn ends, whatever follows: one append must hold it."""


class Numbered:
    """Makes messages of records, one after the other."""

    def __init__(self, format: str | None = None) -> None:
        self._format = format
        self._seq = 0
        self._turn = 0
        self._was_user = False

    def message(self, payload: bytes, created_ms: int | None = None) -> Message:
        """The next record's message."""
        try:
            value = codec.decode(payload)
        except CorruptRecordError:
            value = None
        name = self._format or codec.recognise(value)
        is_user = codec.view_of(value, name).role == "user"
        if (is_user and not self._was_user) or self._seq - self._turn >= LONGEST_TURN:
            self._turn = self._seq
        self._was_user = is_user
        self._seq += 1
        return Message(self._seq - 1, payload, name, created_ms, self._turn)


def session_thread(session_id: str) -> str:
    """The thread id under which ``EverthreadHistoryProvider`` finds a session of Agent Framework 1.x.

    It keeps ids that begin with ``~`` for messages of other sources.
    """
    return f"~{session_id}" if session_id.startswith("~") else session_id


def decoded_segment(segment: str, mark: str) -> str:
    """The identifier that Agent Framework made part of a key or a file's name.

    Source: ``_storage_key_segment`` of agent-framework-core 1.23. Of the longest it keeps a digest only; these stay
    as they are.
    """
    from base64 import b32decode

    encoded = segment.removeprefix(mark)
    if encoded == segment or encoded.startswith("sha256-"):
        return segment
    try:
        return b32decode(encoded.upper() + "=" * (-len(encoded) % 8)).decode()
    except ValueError:
        return segment
