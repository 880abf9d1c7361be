"""Statements, functions and numbered migrations for a schema and a prefix of the tables.

The first process applies the migrations, or `ddl` prints them for an administrator.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from zlib import crc32

import asyncpg
import msgspec

from everthread.errors import ConfigurationError, MissingSchemaError, SchemaError, StoreUnavailableError

if TYPE_CHECKING:
    from everthread.engines.postgres.connection import Connection, Pool

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_OURS = re.compile(r"(?<![@\w])@(?=[a-z])")
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,39}")

_CREATE = "CREATE SCHEMA IF NOT EXISTS {schema};\n"
_LEDGER = """\
CREATE TABLE IF NOT EXISTS @migrations (
    version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT pg_catalog.now());
"""

# Roles that may create objects in another schema cannot plant functions that a migration then calls.
_PINNED = "SET LOCAL search_path = pg_catalog, pg_temp;"

_RUN = (
    "Open the store once with a user that may create them, or run the SQL that "
    "everthread.engines.postgres.ddl({since}) gives."
)
_TABLES = ("threads", "messages", "appends", "documents", "erased")


@cache
def queries(schema: str, prefix: str) -> dict[str, str]:
    """Return every named statement."""
    parts = _NAME.split(_text("queries.sql"))
    bare = (_COMMENT.sub("", text).strip().rstrip(";") for text in parts[2::2])
    return {name: _placed(text, schema, prefix) for name, text in zip(parts[1::2], bare, strict=True)}


class Migration(msgspec.Struct, frozen=True):
    """A step to a version of the tables. Its SQL also records that it was applied."""

    version: int
    sql: str


def migrations(schema: str, prefix: str) -> list[Migration]:
    """Return all steps, beginning with an empty database. Their versions ascend, with gaps."""
    found: list[Migration] = []
    for name in _names("migrations"):
        version = int(name.partition("_")[0])
        noted = f"INSERT INTO @migrations (version, name) VALUES ({version}, '{name}');\n"  # noqa: S608
        found.append(Migration(version, _placed(_text(f"migrations/{name}") + noted, schema, prefix)))
    return found


def functions(schema: str, prefix: str) -> str:
    """Return the SQL that creates all functions again. It runs after each migration, so each function has one source.

    Functions of the previous release with other arguments remain, for its processes.
    """
    return _placed("\n".join(_text(f"functions/{name}") for name in _names("functions")), schema, prefix)


def check_name(name: object, what: str, *, may_be_empty: bool = False) -> str:
    """Return a schema or prefix that needs no quoting: at most 40 lower-case letters, digits and ``_``.

    Raises:
        ConfigurationError: The name would need quoting.
    """
    if isinstance(name, str) and (_IDENTIFIER.fullmatch(name) or (may_be_empty and not name)):
        return name
    raise ConfigurationError(f"{what} is at most 40 lower-case letters, digits and _, and begins with no digit.")


def _names(folder: str) -> list[str]:
    entries = files("everthread.engines.postgres").joinpath(folder).iterdir()
    return sorted(entry.name for entry in entries if entry.name.endswith(".sql"))


@cache
def _text(path: str) -> str:
    return files("everthread.engines.postgres").joinpath(path).read_text("utf-8")


def _placed(text: str, schema: str, prefix: str) -> str:
    return _OURS.sub(f"{schema}.{prefix}", text)


def ddl(schema: str = "everthread", table_prefix: str = "", *, since: int = 0) -> str:
    """Return the SQL that creates the tables and functions, for a database in which applications may not create them.

    Args:
        schema: As in the store's URL.
        table_prefix: As in the store's URL.
        since: The version of the existing tables: the highest in the table ``migrations``. The functions are always
            created again.
    """
    check_name(schema, "schema")
    check_name(table_prefix, "table_prefix", may_be_empty=True)
    begin = ["BEGIN;", _PINNED, _CREATE.format(schema=schema)]
    return "\n".join([*begin, *_steps(schema, table_prefix, since), "COMMIT;\n"])


def newest_version() -> int:
    """Return the version of the tables that this release needs."""
    return migrations("", "")[-1].version


async def prepare(pool: Pool, schema: str, prefix: str, *, migrate: bool, read_only: bool, patience: float) -> None:
    """Check the database, and migrate its schema if it is older or missing.

    Args:
        migrate: Whether stores that are not read-only may change the schema.
        read_only: Change nothing.
        patience: Seconds to wait for another migration. The wait for a lock on a
            table takes at most a third of it, because calls on the table queue behind that wait.

    Raises:
        ConfigurationError: The encoding of the database is not UTF-8.
        MissingSchemaError: There are no tables, and only ``read_only`` prevents this user from creating them.
        SchemaError: The schema is newer; or it is older and may not be changed here.
        StoreUnavailableError: Another session holds a lock that a migration needs. Nothing was changed.
    """
    async with pool.acquire() as connection:
        if (encoding := await connection.fetchval("SHOW server_encoding")) != "UTF8":
            raise ConfigurationError(f"The database's encoding is {encoding}; everthread needs UTF8.")
        newest = newest_version()
        version, missing, lacks_functions = await _state(connection, schema, prefix)
        if not _fits(version, missing):
            # Another process may have made the schema between the two statements.
            version, missing, lacks_functions = await _state(connection, schema, prefix)
        if version > newest:
            raise SchemaError(
                f"The tables in schema {schema} are of version {version}; this release of everthread knows {newest}: "
                "install a newer one."
            )
        if not _fits(version, missing):
            raise _torn(schema, prefix, version, missing)
        if lacks_functions or version < newest:
            if (
                read_only
                and migrate
                and not version
                and await connection.fetchval(queries(schema, prefix)["may_create"], schema)
            ):
                raise MissingSchemaError(str(_outdated(schema, version, newest)))
            if read_only or not migrate:
                raise _outdated(schema, version, newest)
            try:
                await _migrate(connection, schema, prefix, patience)
            except asyncpg.InsufficientPrivilegeError:
                raise _outdated(schema, version, newest) from None
            except asyncpg.LockNotAvailableError:
                raise await _blocked(connection, schema, prefix) from None


async def _state(connection: Connection, schema: str, prefix: str) -> tuple[int, list[str], bool]:
    """Return the applied version, the missing tables, and whether a function is missing."""
    version = await _version(connection, schema, prefix)
    names = re.findall(r"^CREATE OR REPLACE FUNCTION (?:\w+\.)(\w+)", functions("x", ""), re.MULTILINE)
    lacking = await connection.fetchrow(queries(schema, prefix)["missing"], schema, prefix, _TABLES, names)
    assert lacking is not None, "the query returns one row"
    return version, lacking["tables"], lacking["functions"]


def _fits(version: int, missing: list[str]) -> bool:
    return not missing if version else len(missing) == len(_TABLES)


def _torn(schema: str, prefix: str, version: int, missing: list[str]) -> SchemaError:
    anew = "To begin without threads, drop the other tables and run the SQL of everthread.engines.postgres.ddl()."
    lost = f"{', '.join(missing)} of version {version}" if version else f"{prefix}migrations, which has the version,"
    return SchemaError(f"In schema {schema} {lost} is missing: restore it from a backup. {anew}")


async def _migrate(connection: Connection, schema: str, prefix: str, patience: float) -> None:
    milliseconds = int(patience * 1000)
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {milliseconds}; SET LOCAL statement_timeout = 0; {_PINNED}")
        # Processes that start at the same time wait here, and then find the work done.
        await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", _lock_number(schema, prefix))
        await connection.execute(f"SET LOCAL lock_timeout = {max(milliseconds // 3, 1)}")
        if not await connection.fetchval("SELECT true FROM pg_catalog.pg_namespace WHERE nspname = $1", schema):
            await connection.execute(_CREATE.format(schema=schema))
        version, _, lacks_functions = await _state(connection, schema, prefix)
        if version == newest_version() and not lacks_functions:
            return
        for step in _steps(schema, prefix, version):
            await connection.execute(step)


def _lock_number(schema: str, prefix: str) -> int:
    return crc32(f"everthread {schema}.{prefix}".encode())


async def _blocked(connection: Connection, schema: str, prefix: str) -> StoreUnavailableError:
    found = await connection.fetchrow(
        queries(schema, prefix)["blocking"], schema, prefix, _lock_number(schema, prefix), _TABLES
    )
    if found is None:
        return StoreUnavailableError(f"A session locked the tables in schema {schema} during a migration. Try again.")
    # The server shows state and time only to roles that may see them.
    known = "" if found["state"] is None else f" ({found['state']}, its transaction began {found['seconds']} s ago)"
    return StoreUnavailableError(
        f"The migration of schema {schema} waits for a lock that process {found['pid']} of the server holds{known}; "
        "nothing was changed. Open the store again when its transaction has ended, or end it: "
        f"SELECT pg_terminate_backend({found['pid']})."
    )


def _steps(schema: str, prefix: str, since: int) -> list[str]:
    missing = [step.sql for step in migrations(schema, prefix) if step.version > since]
    # Functions are always created again: one may have been dropped.
    return [_placed(_LEDGER, schema, prefix), *missing, functions(schema, prefix)]


async def _version(connection: Connection, schema: str, prefix: str) -> int:
    if not await connection.fetchval("SELECT pg_catalog.to_regclass($1) IS NOT NULL", f"{schema}.{prefix}migrations"):
        return 0
    return await connection.fetchval(queries(schema, prefix)["schema_version"]) or 0


def _outdated(schema: str, version: int, newest: int) -> SchemaError:
    if version == newest:
        there = f"Functions in schema {schema} are missing"
        return SchemaError(f"{there}. {_RUN.format(since=f'since={version}')}")
    there = (
        f"The tables in schema {schema} are of version {version}"
        if version
        else f"There are no tables in the schema {schema}"
    )
    since = f"since={version}" if version else ""
    return SchemaError(f"{there}; version {newest} is needed. {_RUN.format(since=since)}")
