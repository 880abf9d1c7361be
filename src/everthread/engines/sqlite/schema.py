"""The statements of ``queries.sql``, and the numbered migrations: check who owns a database, and migrate it."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from everthread.engines.sqlite.location import DatabaseFile
from everthread.errors import ConfigurationError, SchemaError

APPLICATION_ID = 0x65767472
"""Marks the file as everthread's ("evtr"); `file` and sqlite3's shell show it."""

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_FOLDER = files("everthread.engines.sqlite")


@cache
def queries() -> dict[str, str]:
    """Return every named statement."""
    parts = _NAME.split(_FOLDER.joinpath("queries.sql").read_text("utf-8"))
    return {name: _COMMENT.sub("", text).strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def migrations() -> tuple[tuple[str, ...], ...]:
    """Return the statements of each migration. The first one migrates an empty file to version 1."""
    scripts = sorted(_FOLDER.joinpath("migrations").iterdir(), key=lambda script: script.name)
    return tuple(_statements(script) for script in scripts if script.name.endswith(".sql"))


def _statements(script: Traversable) -> tuple[str, ...]:
    # Not executescript(): it commits first, and a migration must share its transaction with the version's check.
    found = [""]
    for line in script.read_text("utf-8").splitlines(keepends=True):
        found[-1] += line
        if sqlite3.complete_statement(found[-1]):
            found.append("")
    return tuple(statement.strip() for statement in found[:-1])


def check_owner(db: sqlite3.Connection, file: DatabaseFile) -> None:
    """Raise `ConfigurationError` for the database of another application."""
    if pragma(db, "application_id") == APPLICATION_ID:
        return
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    # Another process may be creating the file: then it is still empty, or has its mark by now.
    if tables and pragma(db, "application_id") != APPLICATION_ID:
        raise ConfigurationError(
            f"{file.url} is the database of another application; nothing was changed. Choose another path."
        )


def migrate(db: sqlite3.Connection, file: DatabaseFile) -> None:
    """Create the schema, or bring it up to date, in one transaction."""
    newest = len(migrations())
    if schema_version(db, file, newest) == newest:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations()[schema_version(db, file, newest) :]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={newest}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def schema_version(db: sqlite3.Connection, file: DatabaseFile, newest: int) -> int:
    """Return the version of the schema; raises `SchemaError` if it is above ``newest``."""
    version = pragma(db, "user_version")
    if version > newest:
        raise SchemaError(
            f"{file.url} has schema version {version}; this release knows {newest}. Upgrade: pip install -U everthread"
        )
    return version


def pragma(db: sqlite3.Connection, name: str) -> int:
    """Return the value of a PRAGMA."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
