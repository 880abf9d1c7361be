"""The OpenAI Agents SDK's ``SQLiteSession``: a table of sessions and a table of their items.

Source: openai-agents 0.24, ``agents/memory/sqlite_session.py``. The file is opened for reading only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from everthread.errors import ConfigurationError
from everthread.model import Message, ThreadKey, to_milliseconds
from everthread.transfer.foreign._turns import Numbered
from everthread.transfer.model import Heading, Source, SourceThread

FORMAT = "openai-responses"
_A_PAGE = 200


class OpenAIAgentsSource(Source):
    """The sessions of a file, the least recently active first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions: list[str] = []

    async def open(self) -> None:
        try:
            with closing(_connected(self._path)) as database:
                rows = database.execute("SELECT session_id FROM agent_sessions ORDER BY updated_at, session_id")
                self._sessions = [str(row[0]) for row in rows]
                self.total = int(database.execute("SELECT count(*) FROM agent_messages").fetchone()[0])
        except sqlite3.Error as error:
            raise ConfigurationError(f"{self._path} holds no sessions of the OpenAI Agents SDK: {error}.") from None

    async def threads(self) -> AsyncIterator[SourceThread]:
        for session in self._sessions:
            yield _Session(self._path, session)


class _Session(SourceThread):
    def __init__(self, path: Path, session: str) -> None:
        self._path = path
        self._session = session
        self.heading = Heading(ThreadKey(session))

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered(FORMAT)
        with closing(_connected(self._path)) as database:
            last = -1
            while True:
                rows = database.execute(
                    "SELECT id, message_data, created_at FROM agent_messages WHERE session_id = ? AND id > ? "
                    "ORDER BY id LIMIT ?",
                    (self._session, last, _A_PAGE),
                ).fetchall()
                if not rows:
                    return
                last = int(rows[-1][0])
                yield [numbered.message(str(data).encode(), _milliseconds(at)) for _, data, at in rows]


def _connected(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}.")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _milliseconds(text: object) -> int | None:
    try:
        return to_milliseconds(datetime.fromisoformat(str(text)).replace(tzinfo=UTC))
    except ValueError:
        return None
