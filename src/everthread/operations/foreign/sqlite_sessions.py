"""Sessions of the OpenAI Agents SDK in a SQLite file: its ``SQLiteSession``, and ``SQLAlchemySession`` on SQLite.

Both have the tables ``agent_sessions`` and ``agent_messages``. The first orders rows by their number, the second by
their time and then their number. A repair is one transaction that first reads the session again; numbers and times of
other rows never change. Sessions with branches (``AdvancedSQLiteSession``) describe their rows in a further table, so
they are reported, not repaired.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, StoreUnavailableError
from everthread.messages.rules.rows import Row, row_of_payload
from everthread.model import to_milliseconds
from everthread.operations._targets import Change, Target
from everthread.operations.foreign.rows import ROOM, Item, RowsTarget
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore
from everthread.operations.repair import LONGEST
from everthread.transfer.files import MAX_LINE, opened
from everthread.transfer.model import Skipped

_HEAD = b"SQLite format 3\0"
_ITEMS = "SELECT id, CAST(message_data AS BLOB), CAST(created_at AS TEXT) FROM agent_messages WHERE session_id = ? "
_BY_NUMBER, _BY_TIME = "ORDER BY id LIMIT ?", "ORDER BY created_at, id LIMIT ?"


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
        self._has_branches = self._is_by_time = False

    async def open(self) -> None:
        tables = tables_of(self.path)
        if not {"agent_sessions", "agent_messages"} <= tables:
            raise ConfigurationError(f"{self.path} has no sessions of the OpenAI Agents SDK.")
        self._has_branches = "message_structure" in tables
        with connected(self.path) as database:
            columns = database.execute("PRAGMA table_info(agent_messages)").fetchall()
        # Only SQLAlchemySession declares it NOT NULL.
        self._is_by_time = any(name == "created_at" and is_required for _, name, _, is_required, *_ in columns)

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
            items = items_of(database, session, is_by_time=self._is_by_time)
            changed = database.execute(
                "SELECT CAST(updated_at AS TEXT) FROM agent_sessions WHERE session_id = ?", (session,)
            ).fetchone()
            branched = (
                self._has_branches
                and database.execute(
                    "SELECT 1 FROM message_structure WHERE session_id = ? LIMIT 1", (session,)
                ).fetchone()
            )
        target = SessionTarget(self.path, session, items, is_by_time=self._is_by_time)
        target.is_running = self._is_running(_milliseconds(changed[0] if changed else None))
        if branched:
            target.refusal, target.is_report_only = "it has branches: they are reported, not repaired", True
        return target


def items_of(database: sqlite3.Connection, session: str, *, is_by_time: bool) -> list[Item]:
    """Return the items of a session, in order.

    Raises:
        CorruptRecordError: There are too many to be in memory.
    """
    items: list[Item] = []
    size = 0
    order = _BY_TIME if is_by_time else _BY_NUMBER
    for number, data, created in database.execute(_ITEMS + order, (session, LONGEST + 1)):
        items.append(Item(number, data or b"", created))
        size += len(data or b"")
        if size > MAX_THREAD_BYTES:
            raise CorruptRecordError(f"The session {session!r} has more than {MAX_THREAD_BYTES:,} bytes.")
    return items


class SessionTarget(RowsTarget):
    """A session."""

    def __init__(self, path: Path, session: str, items: list[Item], *, is_by_time: bool) -> None:
        super().__init__(session, items)
        self._path = path
        self.is_by_time = is_by_time

    def rows(self) -> list[Row]:
        return [row_of_payload(payload, "openai-responses") for payload in self.payloads]

    def free(self, first: int, stop: int) -> list[int]:
        with connected(self._path) as database:
            found = database.execute("SELECT id FROM agent_messages WHERE id >= ? AND id < ?", (first, stop))
            used = {number for (number,) in found}
        return [number for number in range(first, stop) if number not in used]

    def following(self) -> list[int | None]:
        with connected(self._path) as database:
            used = database.execute("SELECT max(id) FROM agent_messages").fetchone()[0]
            first = max(used or 0, _sequence(database)) + 1
        return list(range(first, first + ROOM))

    async def apply(self, changes: Sequence[Change]) -> None:
        ordered = self.in_order(changes)
        with connected(self._path, write=True) as database:
            database.execute("BEGIN IMMEDIATE")
            if items_of(database, self.name, is_by_time=self.is_by_time) != self.items:
                raise ConflictError(f"Another program changed the session {self.name!r}: try again.", 0)
            for change in ordered:
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
