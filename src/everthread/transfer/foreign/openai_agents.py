"""The OpenAI Agents SDK's ``SQLiteSession``: a table of sessions and a table of their items.

Source: openai-agents 0.24, ``agents/memory/sqlite_session.py``. The file is opened for reading only, and is not
trusted: see `everthread.transfer.foreign._sqlite`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from everthread.errors import ConfigurationError, CorruptRecordError, InvalidIdentifierError
from everthread.model import Message, ThreadKey, to_milliseconds
from everthread.transfer.foreign._sqlite import SqliteFile
from everthread.transfer.foreign._turns import Numbered
from everthread.transfer.model import Heading, Skipped, Source, SourceThread, known_times
from everthread.transfer.sources import PAGE_BYTES

FORMAT = "openai-responses"
_TABLES = {
    "agent_sessions": ("session_id", "created_at", "updated_at"),
    "agent_messages": ("id", "session_id", "message_data", "created_at"),
}
_ALL_SESSIONS = "SELECT session_id, created_at, updated_at FROM agent_sessions ORDER BY updated_at, session_id"
# Without its condition, SQLite would count pages without counting steps.
_COUNT = "SELECT count(*) FROM agent_messages WHERE id >= ?"
_UNNUMBERED = "SELECT count(*) FROM agent_messages WHERE id IS NULL OR id < ?"
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
# As bytes: a record that is not UTF-8 is reported as one record that cannot be read.
_ITEMS = (
    "SELECT id, CAST(message_data AS BLOB), created_at FROM agent_messages WHERE session_id = ? AND id >= ? "
    "ORDER BY id LIMIT ?"
)
_A_PAGE = 200


class OpenAIAgentsSource(Source):
    """The sessions of a file, the least recently active first."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _TABLES)
        self._sessions: list[tuple[object, object, object]] = []

    async def open(self) -> None:
        self._file.open()
        try:
            with self._file.connected() as database:
                for row in database.execute(_ALL_SESSIONS):
                    self._file.spend(sum(len(value) for value in row if isinstance(value, bytes)))
                    self._sessions.append(row)
                self.total = int(database.execute(_COUNT, (_LOWEST,)).fetchone()[0])
                self._name_unnumbered(database)
        except CorruptRecordError as error:
            raise ConfigurationError(f"There are no sessions of the OpenAI Agents SDK in {error}") from None

    def _name_unnumbered(self, database: sqlite3.Connection) -> None:
        count = int(database.execute(_UNNUMBERED, (_LOWEST,)).fetchone()[0])
        if count:
            what = f"{count:,} rows have no whole number in the column id, so their order is not known"
            self.skipped = (Skipped(f"{self._file.path.name}, agent_messages", what),)

    async def threads(self) -> AsyncIterator[SourceThread | Skipped]:
        for number, (name, begun, last) in enumerate(self._sessions, 1):
            times = known_times(_milliseconds(begun) or 0, _milliseconds(last) or 0)
            try:
                yield _Session(self._file, _identifier(name), times)
            except (InvalidIdentifierError, UnicodeDecodeError) as error:
                why = f"not UTF-8 ({error.reason})" if isinstance(error, UnicodeDecodeError) else str(error)
                yield Skipped(
                    f"{self._file.path.name}, agent_sessions, row {number} by updated_at", f"session_id: {why}"
                )


class _Session(SourceThread):
    def __init__(self, file: SqliteFile, session: str, times: tuple[int, int] | None) -> None:
        self._file = file
        self._session = session
        self.place = file.path.name
        self.heading = Heading(ThreadKey(session), times=times)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered(FORMAT)
        with self._file.connected() as database:
            first = _LOWEST
            while first <= _HIGHEST and (rows := self._rows(database, first)):
                first = rows[-1][0] + 1
                yield [numbered.message(data or b"", _milliseconds(at)) for _, data, at in rows]

    def _rows(self, database: sqlite3.Connection, first: int) -> list[tuple[int, bytes | None, object]]:
        page: list[tuple[int, bytes | None, object]] = []
        size = 0
        with closing(database.execute(_ITEMS, (self._session, first, _A_PAGE))) as found:
            for row in found:
                if not isinstance(row[0], int) or row[0] < (page[-1][0] + 1 if page else first):
                    raise CorruptRecordError(f"{self.place}, agent_messages: the column id does not number the rows.")
                page.append(row)
                self._file.spend(len(row[1] or b""))
                size += len(row[1] or b"")
                if size >= PAGE_BYTES:
                    break
        return page


def _identifier(value: object) -> str:
    if not isinstance(value, bytes):
        raise InvalidIdentifierError(f"not a text but {'nothing' if value is None else type(value).__name__}")
    return value.decode()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _milliseconds(value: object) -> int | None:
    try:
        return to_milliseconds(datetime.fromisoformat(_text(value)).replace(tzinfo=UTC))
    except ValueError:
        return None
