"""Threads in PostgreSQL: ``SQLAlchemySession`` of openai-agents, and community-agent-framework-postgres.

A repair is one transaction. It first takes the lock that the program's own writers take, and reads the thread again.

Sources: ``sqlalchemy_session.py`` of openai-agents 0.24 (rows by time and number; writers lock the session's row),
``_history_provider.py`` of community-agent-framework-postgres 0.1.2 (rows by number; an advisory lock for a session).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

from everthread.errors import ConfigurationError, ConflictError
from everthread.messages.codec import decode_as_text
from everthread.messages.rules.rows import Row, row_of_payload
from everthread.operations._targets import Change, digest_of
from everthread.operations.foreign.postgres import Database, Place, quoted
from everthread.operations.foreign.rows import Item, RowsTarget
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore
from everthread.operations.repair import LONGEST
from everthread.transfer.model import Skipped

_THREADS = 1_000_000
_SAFE = " !$&'()*+,-./:;=?@_~"


class Shape(NamedTuple):
    """How a program stores threads.

    Attributes:
        table: The name of its table after the prefix.
        names: The columns that name a thread.
        data: The column of a message.
        type: The type of that column.
        order: The order of the rows.
        copied: The columns that a row beside another needs too.
        changed: A statement for the time of the last change, in milliseconds since 1970.
        lock: A statement that takes the lock of the program's writers.
        format: The format of the messages; ``None`` if each shows it.
    """

    table: str
    names: tuple[str, ...]
    data: str
    type: str
    order: str
    copied: tuple[str, ...]
    changed: str
    lock: str
    format: str | None


# Writers of the first store the time of their session's time zone, without the zone.
_UPDATED = """
SELECT (extract(epoch FROM max(updated_at AT TIME ZONE current_setting('TimeZone'))) * 1000)::bigint
FROM {schema}.agent_sessions WHERE {where}
"""
_INSERTED = "SELECT (extract(epoch FROM max(created_at)) * 1000)::bigint FROM {table} WHERE {where}"
_LOCK_ROW = "SELECT 1 FROM {schema}.agent_sessions WHERE {where} FOR UPDATE"
_LOCK_NAME = """
SELECT pg_advisory_xact_lock(
    hashtextextended(concat_ws(chr(31), {scope}, $1::text, $2::text, $3::text, $4::text, $5::text), 0)
)
"""
SHAPES = {
    "openai-agents": Shape(
        table="agent_messages",
        names=("session_id",),
        data="message_data",
        type="text",
        order="created_at, id",
        copied=(),
        changed=_UPDATED,
        lock=_LOCK_ROW,
        format="openai-responses",
    ),
    "agent-framework-postgres": Shape(
        table="history_messages",
        names=("application_id", "tenant_id", "agent_id", "source_id", "session_id"),
        data="message",
        type="jsonb",
        order="id",
        copied=("expires_at",),
        changed=_INSERTED,
        lock=_LOCK_NAME,
        format=None,
    ),
}
"""How each program stores threads."""


class PostgresRows(ForeignStore):
    """The threads of one program in a database."""

    def __init__(self, kind: str, url: str, prefix: str | None, is_running: Callable[[int | None], bool]) -> None:
        self.kind = kind
        self.shape = SHAPES[kind]
        self.database = Database(url, prefix)
        self._is_running = is_running
        self.table = self._where = ""
        self._place = Place(kind, "")

    async def open(self) -> None:
        await self.database.open()
        self._place = await self.database.place_of(self.kind)
        self.table = quoted(self._place.schema, self._place.prefix + self.shape.table)
        self._where = " AND ".join(f"{name} = ${at}" for at, name in enumerate(self.shape.names, 1))

    async def aclose(self) -> None:
        await self.database.aclose()

    async def targets(self) -> AsyncIterator[RowsTarget | Skipped]:
        columns = ", ".join(self.shape.names)
        statement = f"SELECT DISTINCT {columns} FROM {self.table} ORDER BY {columns} LIMIT {_THREADS}"  # noqa: S608
        for parts in await self.database.rows(statement):
            name = parts[0] if len(parts) == 1 else "|".join(quote(part, safe=_SAFE) for part in parts)
            try:
                found = await self.target(name)
            except (ConfigurationError, ConflictError) as error:
                yield Skipped(name, str(error))
            else:
                if found.items:
                    yield found

    async def target(self, name: str) -> PostgresTarget:
        values = [name] if len(self.shape.names) == 1 else [unquote(part) for part in name.split("|")]
        if len(values) != len(self.shape.names):
            raise ConfigurationError(f"{name!r} is no thread of {self.kind}.")
        items = await self.items(values)
        ((changed,),) = await self.database.rows(self._filled(self.shape.changed), *values)
        target = PostgresTarget(self, name, values, items, await self._used(items))
        target.is_running = self._is_running(changed)
        return target

    async def items(self, values: Sequence[str]) -> list[Item]:
        """Return the rows of a thread, in order.

        Raises:
            ConfigurationError: They are too large to be in memory.
        """
        shape = self.shape
        sizes = f"SELECT coalesce(sum(octet_length({shape.data}::text)), 0) FROM {self.table} WHERE {self._where}"  # noqa: S608
        ((size,),) = await self.database.rows(sizes, *values)
        if size > MAX_THREAD_BYTES:
            raise ConfigurationError(f"it has more than {MAX_THREAD_BYTES:,} bytes")
        columns = ", ".join(f"{name}::text" for name in (shape.data, "created_at", *shape.copied))
        found = await self.database.rows(
            f"SELECT id::bigint, {columns} FROM {self.table} WHERE {self._where} "  # noqa: S608
            f"ORDER BY {shape.order} LIMIT {LONGEST + 1}",
            *values,
        )
        return [
            Item(number, (data or "").encode(), created, tuple(zip(shape.copied, more, strict=True)))
            for number, data, created, *more in found
        ]

    async def _used(self, items: Sequence[Item]) -> frozenset[int]:
        """Return the numbers of the table's rows that lie directly between two of a thread."""
        # Rows of one append have adjacent numbers; only small gaps can be free.
        small = [each for one, two in pairwise(items) for each in _gap(one.id, two.id)]
        if not small:
            return frozenset()
        found = await self.database.rows(f"SELECT id::bigint FROM {self.table} WHERE id = ANY($1::bigint[])", small)  # noqa: S608
        return frozenset(number for (number,) in found)

    async def lock(self, values: Sequence[str]) -> None:
        """Take the lock that the program's writers take, until the transaction ends."""
        await self.database.rows(self._filled(self.shape.lock), *values)

    def _filled(self, statement: str) -> str:
        schema, prefix = self._place.schema, self._place.prefix
        scope = ", ".join("'" + each.replace("'", "''") + "'::text" for each in (schema, prefix))
        return statement.format(schema=quoted(schema), table=self.table, where=self._where, scope=scope)


_WIDEST = 50


def _gap(first: int, second: int) -> range:
    return range(first + 1, min(second, first + 1 + _WIDEST))


class PostgresTarget(RowsTarget):
    """A thread."""

    def __init__(
        self, store: PostgresRows, name: str, values: Sequence[str], items: list[Item], used: frozenset[int]
    ) -> None:
        super().__init__(name, items)
        self._store = store
        self._values = values
        self._used = used
        self.is_by_time = store.shape.order != "id"

    def rows(self) -> list[Row]:
        return [row_of_payload(payload, self._store.shape.format) for payload in self.payloads]

    def free(self, first: int, stop: int) -> list[int]:
        return [number for number in range(first, min(stop, first + _WIDEST)) if number not in self._used]

    def following(self) -> list[int | None]:
        # The table's own sequence gives the number.
        return []

    def digest(self, payloads: Sequence[bytes]) -> str:
        return digest_of([_normal(payload) for payload in payloads] if self._is_jsonb else payloads)

    @property
    def _is_jsonb(self) -> bool:
        return self._store.shape.type == "jsonb"

    async def apply(self, changes: Sequence[Change]) -> None:
        ordered = self.in_order(changes)
        store = self._store
        async with store.database.transaction():
            await store.lock(self._values)
            if await store.items(self._values) != self.items:
                raise ConflictError(f"Another program changed the session {self.name!r}: try again.", 0)
            for change in ordered:
                await self._change(change)

    async def _change(self, change: Change) -> None:
        store, shape = self._store, self._store.shape
        if change.new is None:
            await store.database.rows(f"DELETE FROM {store.table} WHERE id = $1", change.row)  # noqa: S608
            return
        new = _text(change.new)
        if change.old is not None:
            statement = f"UPDATE {store.table} SET {shape.data} = $2::text::{shape.type} WHERE id = $1"  # noqa: S608
            await store.database.rows(statement, change.row, new)
            return
        more = {name: change.more.get(name) for name in ("created_at", *shape.copied)}
        more = {name: value for name, value in more.items() if value is not None}
        names = [*shape.names, shape.data, *more, *(["id"] if change.row is not None else [])]
        values = [*self._values, new, *more.values(), *([change.row] if change.row is not None else [])]
        types = {shape.data: f"text::{shape.type}", "id": "bigint", "created_at": "text::timestamptz"}
        types |= {"expires_at": "text::timestamptz"}
        if self.is_by_time:
            types["created_at"] = "text::timestamp"
        marks = ", ".join(f"${at}::{types.get(name, 'text')}" for at, name in enumerate(names, 1))
        statement = f"INSERT INTO {store.table} ({', '.join(names)}) OVERRIDING SYSTEM VALUE VALUES ({marks})"  # noqa: S608
        await store.database.rows(statement, *values)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("A record of the backup is not text.") from None


def _normal(payload: bytes) -> bytes:
    """Return JSON in one form: ``jsonb`` keeps neither the order of names nor spaces."""
    return msgspec.json.encode(decode_as_text(payload), order="deterministic")
