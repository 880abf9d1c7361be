"""LangGraph's checkpoints in a SQLite file or a PostgreSQL database: reported, not repaired.

A checkpoint is a whole state under a digest of its own chain, so changing one row is not safe. The messages of the
newest checkpoint of each thread are examined; its graph can replace them (``update_state``).

Sources: langgraph-checkpoint-sqlite 3.1, langgraph-checkpoint-postgres 3.2 (which stores each channel in a row of its
own), and ``JsonPlusSerializer`` of langgraph-checkpoint 4.3. The records are read without these packages: nothing in
them is run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import msgspec

from everthread.errors import ConfigurationError, InvalidMessageError
from everthread.messages.codec import as_list, as_object, encode
from everthread.operations._targets import Target
from everthread.operations.foreign.postgres import Database, quoted
from everthread.operations.foreign.sqlite_sessions import connected, tables_of
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore, ReportOnly
from everthread.transfer.model import Skipped

_REASON = "checkpoints of LangGraph are reported, not repaired: replace the messages with update_state"
_THREADS = "SELECT DISTINCT thread_id FROM checkpoints WHERE checkpoint_ns = '' ORDER BY thread_id LIMIT 1000000"
_NEWEST = (
    "SELECT type, checkpoint FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '' "
    "ORDER BY checkpoint_id DESC LIMIT 1"
)
_CHANNEL = """
SELECT b.type, octet_length(b.blob), CASE WHEN octet_length(b.blob) <= $2 THEN b.blob END
FROM (
    SELECT checkpoint FROM {schema}.checkpoints WHERE thread_id = $1 AND checkpoint_ns = ''
    ORDER BY checkpoint_id DESC LIMIT 1
) c
LEFT JOIN {schema}.checkpoint_blobs b ON b.thread_id = $1 AND b.checkpoint_ns = '' AND b.channel = 'messages'
    AND b.version = c.checkpoint -> 'channel_versions' ->> 'messages'
"""
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
            raise _unread(kind)
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
    channels = as_object(as_object(_decoded(checkpoint)).get("channel_values"))
    return _messages(channels.get("messages", []))


def _decoded(data: bytes) -> object:
    try:
        return msgspec.msgpack.decode(data, ext_hook=_constructed)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ConfigurationError("its newest checkpoint cannot be decoded") from None


def _messages(channel: object) -> list[bytes]:
    if not isinstance(channel, list):
        raise ConfigurationError("its channel messages is no list, and is not read")
    return [_json(message) for message in as_list(cast(object, channel))]


class DatabaseCheckpoints(ForeignStore):
    """The threads of a database."""

    kind = "langgraph"

    def __init__(self, url: str, is_running: Callable[[int | None], bool]) -> None:
        self._database = Database(url)
        self._is_running = is_running
        self._schema = ""

    async def open(self) -> None:
        await self._database.open()
        self._schema = quoted((await self._database.place_of(self.kind)).schema)

    async def aclose(self) -> None:
        await self._database.aclose()

    async def targets(self) -> AsyncIterator[Target | Skipped]:
        for (name,) in await self._database.rows(_THREADS.replace(" checkpoints", f" {self._schema}.checkpoints")):
            try:
                found = await self.target(name)
            except ConfigurationError as error:
                found = Skipped(name, str(error))
            if found is not None:
                yield found

    async def target(self, name: str) -> Target | None:
        rows = await self._database.rows(_CHANNEL.format(schema=self._schema), name, MAX_THREAD_BYTES)
        if not rows:
            return None
        ((kind, size, data),) = rows
        if size is not None and data is None:
            raise ConfigurationError(f"it has more than {MAX_THREAD_BYTES:,} bytes")
        if data is not None and kind != "msgpack":
            raise _unread(kind)
        target = ReportOnly(name, [] if data is None else _messages(_decoded(data)), _REASON)
        target.is_running = self._is_running(None)
        return target


def _unread(kind: object) -> ConfigurationError:
    return ConfigurationError(f"its newest checkpoint has the form {str(kind)[:40]!r}, which is not read")


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
