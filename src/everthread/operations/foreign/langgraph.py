"""LangGraph's checkpoints in a SQLite file: reported, not repaired.

A checkpoint is a whole state under a digest of its own chain, so changing one row is not safe. The messages of the
newest checkpoint of each thread are examined; its graph can replace them (``update_state``).

Source: langgraph-checkpoint-sqlite 3.1 and ``JsonPlusSerializer`` of langgraph-checkpoint 4.3. The records are read
without that package: nothing in them is run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from everthread.errors import ConfigurationError, InvalidMessageError
from everthread.messages.codec import as_list, as_object, encode
from everthread.operations._targets import Target
from everthread.operations.foreign.sqlite_sessions import connected, tables_of
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore, ReportOnly
from everthread.transfer.model import Skipped

_REASON = "checkpoints of LangGraph are reported, not repaired: replace the messages with update_state"
_THREADS = "SELECT DISTINCT thread_id FROM checkpoints WHERE checkpoint_ns = '' ORDER BY thread_id LIMIT 1000000"
_NEWEST = (
    "SELECT type, checkpoint FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '' "
    "ORDER BY checkpoint_id DESC LIMIT 1"
)
# A constructor's module, class and arguments.
_CONSTRUCTORS = frozenset({2, 4, 5})


class Checkpoints(ForeignStore):
    """The threads of a file."""

    kind = "langgraph"

    def __init__(self, path: Path, is_running: Callable[[int | None], bool]) -> None:
        self._path = path
        self._is_running = is_running

    async def open(self) -> None:
        if not {"checkpoints", "writes"} <= tables_of(self._path):
            raise ConfigurationError(f"{self._path} has no checkpoints of LangGraph.")

    async def targets(self) -> AsyncIterator[Target | Skipped]:
        with connected(self._path) as database:
            names = [name for (name,) in database.execute(_THREADS).fetchall()]
        for name in names:
            try:
                found = await self.target(str(name))
            except ConfigurationError as error:
                found = Skipped(str(name), str(error))
            if found is not None:
                yield found

    async def target(self, name: str) -> Target | None:
        with connected(self._path) as database:
            row = database.execute(_NEWEST, (name,)).fetchone()
        if row is None:
            return None
        kind, data = row
        if kind != "msgpack" or not isinstance(data, bytes):
            raise ConfigurationError(f"its newest checkpoint has the form {str(kind)[:40]!r}, which is not read")
        if len(data) > MAX_THREAD_BYTES:
            raise ConfigurationError(f"it has more than {MAX_THREAD_BYTES:,} bytes")
        target = ReportOnly(name, messages_of(data), _REASON)
        target.is_running = self._is_running(None)
        return target


def messages_of(checkpoint: bytes) -> list[bytes]:
    """Return the messages of a checkpoint in the channel ``messages``, as LangChain's JSON.

    Raises:
        ConfigurationError: The checkpoint cannot be decoded.
    """
    try:
        value: object = msgspec.msgpack.decode(checkpoint, ext_hook=_constructed)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ConfigurationError("its newest checkpoint cannot be decoded") from None
    messages = as_list(as_object(as_object(value).get("channel_values")).get("messages"))
    return [_json(message) for message in messages]


def _constructed(code: int, data: memoryview) -> object:
    if code not in _CONSTRUCTORS:
        return None
    parts = as_list(msgspec.msgpack.decode(data, ext_hook=_constructed))
    if len(parts) < 3:
        return None
    module, fields = parts[0], as_object(parts[2])
    if isinstance(module, str) and module.startswith("langchain_core.messages"):
        return {"type": fields.get("type"), "data": fields}
    return fields or None


def _json(message: object) -> bytes:
    try:
        return encode(message)
    except (InvalidMessageError, RecursionError):
        return b'{"type":"opaque"}'
