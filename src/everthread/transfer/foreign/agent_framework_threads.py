"""Threads of Agent Framework's betas, saved as JSON: the result of ``await thread.serialize()``, one in a file.

Source: ``AgentThreadState`` and ``ChatMessageStoreState`` of agent-framework-core 1.0.0b251001 to 1.0.0b260210. The
state of the store alone (``await store.serialize()``) is read too.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import Message, ThreadKey
from everthread.transfer.files import BOM, opened
from everthread.transfer.foreign._turns import Numbered, modified
from everthread.transfer.model import Heading, SourceThread
from everthread.transfer.sources import in_pages

SUFFIXES = frozenset({".json"})
MAX_FILE = 256 * 1024 * 1024
"""Largest file in bytes: the whole JSON must be in memory."""


class _StoreState(msgspec.Struct):
    messages: list[msgspec.Raw] | None = None


class _ThreadState(msgspec.Struct):
    service_thread_id: str | None = None
    chat_message_store_state: _StoreState | None = None
    messages: list[msgspec.Raw] | None = None


class ThreadFile(SourceThread):
    """A file with one thread. Its name is the ID of the thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = path.name
        self.heading = Heading(ThreadKey(path.stem), times=modified(path))
        read_state(path)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered()
        for page in in_pages(numbered.message(_in_one_line(bytes(raw))) for raw in read_state(self._path)):
            yield page


def is_thread_file(path: Path) -> bool:
    """Return whether a file is a saved thread."""
    try:
        read_state(path)
    except (CorruptRecordError, ConfigurationError):
        return False
    return True


def read_state(path: Path) -> list[msgspec.Raw]:
    """Return the messages of a saved thread.

    Raises:
        ConfigurationError: The file cannot be read.
        CorruptRecordError: It is not a saved thread, is too long, or holds no messages.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE:
            raise CorruptRecordError(f"{path.name} has {size:,} bytes; a saved thread has at most {MAX_FILE:,}.")
        data = file.read(MAX_FILE).removeprefix(BOM)
    try:
        state = msgspec.json.decode(data, type=_ThreadState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # A validation error names a path in the JSON; a text of the file stands in neither.
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise CorruptRecordError(f"{path.name} is not a saved thread of Agent Framework: {reason}.") from None
    if state.service_thread_id is not None:
        raise CorruptRecordError(f"{path.name} holds no messages: the model's service keeps this thread.")
    messages = state.messages if state.chat_message_store_state is None else state.chat_message_store_state.messages
    if not messages:
        raise CorruptRecordError(f"{path.name} holds no messages. A store of another kind may keep them.")
    return messages


def _in_one_line(payload: bytes) -> bytes:
    """Return the payload without the line breaks of an indented file."""
    if b"\n" not in payload and b"\r" not in payload:
        return payload
    try:
        return msgspec.json.format(payload, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return payload
