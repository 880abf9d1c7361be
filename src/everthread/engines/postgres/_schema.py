"""Numbered migrations: applied once, whoever comes first, and printed for whoever applies them by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import asyncpg

from everthread.engines.postgres._sql import (
    check_name,
    functions,
    ledger,
    migrations,
    noted,
    queries,
    row_level_security_script,
)
from everthread.engines.postgres._text import pack
from everthread.errors import ConfigurationError, SchemaError
from everthread.model import check_identifier

if TYPE_CHECKING:
    from everthread.engines.postgres._connections import Connection, Pool


def ddl(schema: str = "everthread", table_prefix: str = "", *, since: int = 0) -> str:
    """The SQL that makes the tables and functions, for a database whose applications may not.

    Args:
        schema: As in the store's URL.
        table_prefix: As in the store's URL.
        since: The version that is there already (the highest in the table ``migrations``).
    """
    check_name(schema, "schema")
    check_name(table_prefix, "table_prefix", may_be_empty=True)
    steps = _steps(schema, table_prefix, since)
    return "\n".join(["BEGIN;", _create_schema(schema), ledger(schema, table_prefix), *steps, "COMMIT;"]) + "\n"


def row_level_security(role: str, tenant: str, schema: str = "everthread", table_prefix: str = "") -> str:
    """The SQL that lets a role reach one tenant's threads only, whatever it sends.

    The role must not own the tables, nor be a superuser or have ``BYPASSRLS``.
    """
    if not role or "\0" in role:
        raise ConfigurationError("role is the name of a role of the database.")
    check_name(schema, "schema")
    check_name(table_prefix, "table_prefix", may_be_empty=True)
    role_sql = '"' + role.replace('"', '""') + '"'
    tenant_sql = "'" + pack(check_identifier(tenant, "tenant", may_be_empty=True)).replace("'", "''") + "'"
    return row_level_security_script(role_sql, tenant_sql, schema, table_prefix)


def newest_version() -> int:
    """The version of the tables that this release needs."""
    return migrations("", "")[-1].version


async def prepare(pool: Pool, schema: str, prefix: str, *, migrate: bool) -> None:
    """Checks the database, and brings its schema up to date where it is older or missing.

    Raises:
        ConfigurationError: The database does not hold UTF-8.
        SchemaError: The schema is newer; or older and may not be changed here.
    """
    async with pool.acquire() as connection:
        if (encoding := await connection.fetchval("SHOW server_encoding")) != "UTF8":
            raise ConfigurationError(f"The database's encoding is {encoding}; everthread needs UTF8.")
        newest = newest_version()
        version = await _version(connection, schema, prefix)
        if version > newest:
            raise SchemaError(
                f"The tables in schema {schema} are of version {version}; this release of everthread knows {newest}: "
                "install a newer one."
            )
        if version < newest:
            if not migrate:
                raise _outdated(schema, version, newest)
            try:
                await _migrate(connection, schema, prefix)
            except asyncpg.InsufficientPrivilegeError:
                raise _outdated(schema, version, newest) from None


async def _migrate(connection: Connection, schema: str, prefix: str) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        # Whoever starts at the same time waits here, and then finds the work done.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", crc32(f"everthread {schema}.{prefix}".encode()))
        if not await connection.fetchval("SELECT true FROM pg_namespace WHERE nspname = $1", schema):
            await connection.execute(_create_schema(schema))
        await connection.execute(ledger(schema, prefix))
        version = await _version(connection, schema, prefix)
        for step in _steps(schema, prefix, version):
            await connection.execute(step)


def _steps(schema: str, prefix: str, since: int) -> list[str]:
    missing = [step for step in migrations(schema, prefix) if step.version > since]
    tables = [step.text + noted(step, schema, prefix) for step in missing]
    return [*tables, functions(schema, prefix)] if missing else []


async def _version(connection: Connection, schema: str, prefix: str) -> int:
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{schema}.{prefix}migrations"):
        return 0
    return await connection.fetchval(queries(schema, prefix)["schema_version"]) or 0


def _create_schema(schema: str) -> str:
    return f"CREATE SCHEMA IF NOT EXISTS {schema};\n"


def _outdated(schema: str, version: int, newest: int) -> SchemaError:
    there = f"The tables in schema {schema} are of version {version}" if version else f"There are no tables in {schema}"
    since = f"since={version}" if version else ""
    return SchemaError(
        f"{there}; version {newest} is needed. Open the store once with a user that may create them, or run the SQL "
        f"that everthread.engines.postgres.ddl({since}) gives."
    )
