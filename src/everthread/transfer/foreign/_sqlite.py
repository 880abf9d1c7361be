"""SQLite files of other programs, read without trusting them.

A schema is code: a view or a virtual table of a few bytes can make a query endless, and a generated column can make it
take gigabytes. So only plain tables are read, an authorizer allows nothing else, and each query has a number of steps
that grows with the file. Source: https://www.sqlite.org/security.html
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.transfer.files import MAX_LINE, opened

STEPS = 20_000_000
STEPS_A_BYTE = 200
"""Steps of SQLite's machine that all queries of one import may take: some for each row that the file can hold."""
_STEPS_AT_ONCE = 1000
_CACHE_KIB = 16_384

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION})
_FUNCTIONS = frozenset({"count"})
_REASONS = {
    "SQLITE_INTERRUPT": "reading it takes more steps than its size allows",
    "SQLITE_NOTADB": "it is not a SQLite database",
    "SQLITE_CORRUPT": "the database is damaged",
    "SQLITE_CANTOPEN": "it cannot be opened for reading only",
    "SQLITE_TOOBIG": f"a value has more than {MAX_LINE:,} bytes",
}


class SqliteFile:
    """A file from which some tables are read; all queries share one limit of steps and of bytes.

    Args:
        path: The file.
        tables: The columns that each table must have.
    """

    def __init__(self, path: Path, tables: Mapping[str, Collection[str]]) -> None:
        self.path = path
        self._tables = tables
        self._steps = self._bytes = 0

    def open(self) -> None:
        """Set the limits by the file's size.

        Raises:
            ConfigurationError: It is not a regular file, or cannot be read.
        """
        with opened(self.path) as file:
            size = os.fstat(file.fileno()).st_size
        self._steps = (STEPS + STEPS_A_BYTE * size) // _STEPS_AT_ONCE
        self._bytes = 2 * size

    @contextmanager
    def connected(self) -> Generator[sqlite3.Connection]:
        """Open the file for reading these tables alone. Texts come as bytes.

        Raises:
            ConfigurationError: It has no such plain tables.
            CorruptRecordError: It is not a database, is damaged, or reading it goes beyond a limit.
        """
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                self._bound(database)
                for table, columns in self._tables.items():
                    self._check_table(database, table, columns)
                database.set_authorizer(self._authorize)
                yield database
        except sqlite3.Error as error:
            name = str(getattr(error, "sqlite_errorname", type(error).__name__))
            raise CorruptRecordError(f"{self.path}: {_REASONS.get(name, name)}.") from None
        except UnicodeDecodeError:
            # SQLite's own error quotes the schema, and Python cannot decode it.
            raise CorruptRecordError(f"{self.path}: {_REASONS['SQLITE_CORRUPT']}.") from None

    def spend(self, count: int) -> None:
        """Count bytes that were read: pages of a damaged file may be shared by many rows.

        Raises:
            CorruptRecordError: There are more than the file can hold.
        """
        self._bytes -= count
        if self._bytes < 0:
            raise CorruptRecordError(f"{self.path}: its rows hold more bytes than the file.")

    def _bound(self, database: sqlite3.Connection) -> None:
        database.text_factory = bytes
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_LINE)
        database.set_progress_handler(self._step, _STEPS_AT_ONCE)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA mmap_size = 0")
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _step(self) -> int:
        self._steps -= 1
        return int(self._steps < 0)

    def _check_table(self, database: sqlite3.Connection, table: str, columns: Collection[str]) -> None:
        found = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        if [kind for kind, sql in found if not bytes(sql or b"").upper().startswith(b"CREATE VIRTUAL")] != [b"table"]:
            raise ConfigurationError(f"{self.path} has no table {table}. Views and virtual tables are not read.")
        hidden = {row[1].decode(errors="replace"): row[6] for row in database.execute(f"PRAGMA table_xinfo({table})")}
        missing = [name for name in columns if name not in hidden]
        if missing:
            raise ConfigurationError(f"{self.path}: the table {table} has no column {', '.join(missing)}.")
        if any(hidden.values()):
            raise ConfigurationError(f"{self.path}: the table {table} has generated columns, which are not read.")

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        is_reading = action == sqlite3.SQLITE_READ and first in self._tables and source is None
        is_counting = action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS
        return sqlite3.SQLITE_OK if action in _ALLOWED or is_reading or is_counting else sqlite3.SQLITE_DENY
