"""The OpenAI Agents SDK's ``SQLiteSession``: a table of sessions and a table of their items.

Source: openai-agents 0.24, ``agents/memory/sqlite_session.py``. The file is opened for reading only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import Message, ThreadKey, to_milliseconds
from everthread.transfer.foreign._turns import Numbered
from everthread.transfer.model import Heading, Source, SourceThread, known_times

FORMAT = "openai-responses"
_A_PAGE = 200


class OpenAIAgentsSource(Source):
    """The sessions of a file, the least recently active first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions: list[tuple[str, int, int]] = []

    async def open(self) -> None:
        try:
            with closing(_connected(self._path)) as database:
                rows = database.execute(
                    "SELECT session_id, created_at, updated_at FROM agent_sessions ORDER BY updated_at, session_id"
                )
                self._sessions = [
                    (str(name), _milliseconds(begun) or 0, _milliseconds(last) or 0) for name, begun, last in rows
                ]
                self.total = int(database.execute("SELECT count(*) FROM agent_messages").fetchone()[0])
        except sqlite3.Error as error:
            raise ConfigurationError(f"{self._path} holds no sessions of the OpenAI Agents SDK: {error}.") from None

    async def threads(self) -> AsyncIterator[SourceThread]:
        for session, begun_ms, last_ms in self._sessions:
            yield _Session(self._path, session, known_times(begun_ms, last_ms))


class _Session(SourceThread):
    def __init__(self, path: Path, session: str, times: tuple[int, int] | None) -> None:
        self._path = path
        self._session = session
        self.heading = Heading(ThreadKey(session), times=times)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered(FORMAT)
        with closing(_connected(self._path)) as database:
            last = -1
            while rows := self._rows(database, last):
                last = rows[-1][0]
                yield [numbered.message(data, _milliseconds(at)) for _, data, at in rows]

    def _rows(self, database: sqlite3.Connection, last: int) -> list[tuple[int, bytes, object]]:
        # As bytes, since what is no UTF-8 is to be told as one record that cannot be read.
        query = (
            "SELECT id, CAST(message_data AS BLOB), created_at FROM agent_messages WHERE session_id = ? AND id > ? "
            "ORDER BY id LIMIT ?"
        )
        try:
            return database.execute(query, (self._session, last, _A_PAGE)).fetchall()
        except sqlite3.Error as error:
            raise CorruptRecordError(f"{self._path.name} cannot be read: {error}.") from None


def _connected(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}.")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _milliseconds(text: object) -> int | None:
    try:
        return to_milliseconds(datetime.fromisoformat(str(text)).replace(tzinfo=UTC))
    except ValueError:
        return None
