"""Sessions of the OpenAI Agents SDK in a SQLite file: its ``SQLiteSession``, and ``SQLAlchemySession`` on SQLite.

Both have the tables ``agent_sessions`` and ``agent_messages``; the number of a row gives its place. A repair is one
transaction that first reads the session again. A row can be added only where a number is free, as at the end: numbers
of other rows never change. Sessions with branches (``AdvancedSQLiteSession``) describe their rows in a further table,
so they are reported, not repaired.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, StoreUnavailableError
from everthread.messages.rules.rows import Row, row_of_payload
from everthread.model import to_milliseconds
from everthread.operations._targets import Change, Target
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore
from everthread.operations.repair import LONGEST
from everthread.transfer.files import MAX_LINE, opened
from everthread.transfer.model import Skipped

_HEAD = b"SQLite format 3\0"
_ROOM = 1000
_ITEMS = (
    "SELECT id, CAST(message_data AS BLOB), CAST(created_at AS TEXT) FROM agent_messages WHERE session_id = ? "
    "ORDER BY id LIMIT ?"
)


class _Item(NamedTuple):
    id: int
    data: bytes
    created: str | None


@contextmanager
def connected(path: Path, *, write: bool = False) -> Generator[sqlite3.Connection]:
    """Open a file of another program. Its schema runs no functions, and texts come as they are.

    Raises:
        ConfigurationError: It is not a SQLite database.
        CorruptRecordError: It is damaged.
        StoreUnavailableError: Another program holds its lock for 30 seconds.
    """
    opened(path).close()
    mode = "rw" if write else "ro"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=30)) as database:
            database.isolation_level = None
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_LINE)
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
    except sqlite3.IntegrityError:
        raise ConflictError(f"Another program writes to {path}: try again.", 0) from None
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", type(error).__name__))
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreUnavailableError(f"Another program holds the lock of {path}: try again.") from None
        if name == "SQLITE_NOTADB":
            raise ConfigurationError(f"{path} is not a SQLite database.") from None
        raise CorruptRecordError(f"{path} cannot be read or written ({name}).") from None


def tables_of(path: Path) -> set[str]:
    """Return the names of the plain tables of a SQLite file; none for another file."""
    with opened(path) as file:
        if file.read(len(_HEAD)) != _HEAD:
            return set()
    with connected(path) as database:
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 10000")
        return {str(name) for (name,) in found}


class SqliteSessions(ForeignStore):
    """The sessions of a file."""

    kind = "openai-agents"

    def __init__(self, path: Path, is_running: Callable[[int | None], bool]) -> None:
        self.path = path
        self._is_running = is_running
        self._has_branches = False

    async def open(self) -> None:
        tables = tables_of(self.path)
        if not {"agent_sessions", "agent_messages"} <= tables:
            raise ConfigurationError(f"{self.path} has no sessions of the OpenAI Agents SDK.")
        self._has_branches = "message_structure" in tables

    async def targets(self) -> AsyncIterator[Target | Skipped]:
        with connected(self.path) as database:
            # In pages, so that no read transaction is open while a session is repaired.
            found = database.execute("SELECT DISTINCT session_id FROM agent_messages ORDER BY session_id LIMIT 1000000")
            names = [name for (name,) in found.fetchall()]
        for name in names:
            if not isinstance(name, str):
                yield Skipped(self.path.name, "a session has an ID that is not text")
                continue
            try:
                yield self._read(name)
            except CorruptRecordError as error:
                yield Skipped(name, str(error))

    async def target(self, name: str) -> Target | None:
        return self._read(name)

    def _read(self, session: str) -> SessionTarget:
        with connected(self.path) as database:
            items = items_of(database, session)
            changed = database.execute(
                "SELECT CAST(updated_at AS TEXT) FROM agent_sessions WHERE session_id = ?", (session,)
            ).fetchone()
            branched = (
                self._has_branches
                and database.execute(
                    "SELECT 1 FROM message_structure WHERE session_id = ? LIMIT 1", (session,)
                ).fetchone()
            )
        target = SessionTarget(self.path, session, items)
        target.is_running = self._is_running(_milliseconds(changed[0] if changed else None))
        if branched:
            target.refusal, target.is_report_only = "it has branches: they are reported, not repaired", True
        return target


def items_of(database: sqlite3.Connection, session: str) -> list[_Item]:
    """Return the items of a session, in order.

    Raises:
        CorruptRecordError: There are too many to be in memory.
    """
    items: list[_Item] = []
    size = 0
    for number, data, created in database.execute(_ITEMS, (session, LONGEST + 1)):
        items.append(_Item(number, data or b"", created))
        size += len(data or b"")
        if size > MAX_THREAD_BYTES:
            raise CorruptRecordError(f"The session {session!r} has more than {MAX_THREAD_BYTES:,} bytes.")
    return items


class SessionTarget(Target):
    """A session."""

    def __init__(self, path: Path, session: str, items: list[_Item]) -> None:
        self._path = path
        self.name = session
        self._items = items
        self.payloads = [item.data for item in items]

    def rows(self) -> list[Row]:
        return [row_of_payload(payload, "openai-responses") for payload in self.payloads]

    def position(self, at: int) -> int:
        return self._items[at].id

    def room(self, before: int | None, after: int | None) -> int:
        return len(self._free(before, after))

    def _free(self, before: int | None, after: int | None) -> list[int]:
        """Return numbers between two items that no row of the table has."""
        first = 1 if before is None else self._items[before].id + 1
        with connected(self._path) as database:
            if after is None:
                used = database.execute("SELECT max(id) FROM agent_messages").fetchone()[0]
                first = max(first, (used or 0) + 1, _sequence(database) + 1)
                return list(range(first, first + _ROOM))
            stop = min(self._items[after].id, first + _ROOM)
            if first >= stop:
                return []
            found = database.execute("SELECT id FROM agent_messages WHERE id >= ? AND id < ?", (first, stop))
            used_ids = {number for (number,) in found}
        return [number for number in range(first, stop) if number not in used_ids]

    def added(self, changes: Sequence[Change]) -> list[Change]:
        numbered: list[Change] = []
        # Each addition follows the records that stay before it, as in the plan.
        removed = {change.at for change in changes if change.new is None}
        given: dict[tuple[int | None, int | None], list[int]] = {}
        for change in changes:
            if change.old is not None:
                item = self._items[change.at]
                numbered.append(msgspec.structs.replace(change, row=item.id, more={"created_at": item.created}))
                continue
            before = next((at for at in range(change.at - 1, -1, -1) if at not in removed), None)
            after = next((at for at in range(change.at, len(self._items)) if at not in removed), None)
            free = given.setdefault((before, after), self._free(before, after))
            numbered.append(msgspec.structs.replace(change, row=free.pop(0)))
        return numbered

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.refusal:
            raise ConfigurationError(self.refusal)
        with connected(self._path, write=True) as database:
            database.execute("BEGIN IMMEDIATE")
            if items_of(database, self.name) != self._items:
                raise ConflictError(f"Another program changed the session {self.name!r}: try again.", 0)
            for change in sorted(changes, key=lambda change: change.new is not None):
                self._change(database, change)
            database.execute("COMMIT")

    def _change(self, database: sqlite3.Connection, change: Change) -> None:
        new = None if change.new is None else _as_text(change.new)
        if new is None:
            database.execute("DELETE FROM agent_messages WHERE id = ?", (change.row,))
        elif change.old is not None:
            database.execute("UPDATE agent_messages SET message_data = ? WHERE id = ?", (new, change.row))
        else:
            created = change.more.get("created_at")
            columns, values = ("", "") if created is None else (", created_at", ", ?")
            database.execute(
                f"INSERT INTO agent_messages (id, session_id, message_data{columns}) VALUES (?, ?, ?{values})",  # noqa: S608
                (change.row, self.name, new, *(() if created is None else (created,))),
            )


def _sequence(database: sqlite3.Connection) -> int:
    """Return the highest number that was ever given, if the table remembers it."""
    try:
        found = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'agent_messages'").fetchone()
    except sqlite3.OperationalError:
        return 0
    return int(found[0]) if found else 0


def _as_text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _milliseconds(text: object) -> int | None:
    try:
        return to_milliseconds(datetime.fromisoformat(str(text)).replace(tzinfo=UTC))
    except ValueError:
        return None
