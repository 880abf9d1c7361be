"""Health checks of a PostgreSQL server, from its catalog; read-only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from everthread.model import HealthCheck

if TYPE_CHECKING:
    from everthread.engines.postgres.connection import Record

_CROWDED = 0.8

_NO_BOUNDARY = (
    "that sends its own SQL from blocking other tenants: give each tenant a database (docs/how-to/tenants.md)."
)


def facts(
    row: Record, *, schema: str, version: int, newest: int, keeps_no_sessions: bool = False
) -> tuple[HealthCheck, ...]:
    """Return the health checks from the row of the statement ``health``.

    Args:
        keeps_no_sessions: There is a pooler between this process and the server.
    """
    schema_fact = HealthCheck("schema", f"{schema}, version {version} of {newest}")
    return (_encryption(row, keeps_no_sessions), *_rights(row, schema), *_of_server(row), schema_fact)


def _encryption(row: Record, keeps_no_sessions: bool) -> HealthCheck:
    # The server knows only its own connection.
    where = ", between the pooler and the server" if keeps_no_sessions else ""
    if row["encrypted"]:
        return HealthCheck("encryption", f"{row['tls'] or 'TLS'}{where}")
    if row["local"]:
        return HealthCheck("encryption", f"none, within {'one' if keeps_no_sessions else 'this'} machine{where}")
    advice = "Messages cross the network as they are: add sslmode=verify-full."
    if keeps_no_sessions:
        advice = "Messages cross the network as they are: set server_tls_sslmode in PgBouncer."
    return HealthCheck("encryption", f"none{where}", "warning", advice)


def _rights(row: Record, schema: str) -> Iterator[HealthCheck]:
    may = "may create tables" if row["may_create"] else "may not create tables"
    advice = "A superuser reaches more than threads, and passes row-level security." if row["is_super"] else ""
    yield HealthCheck("role", f"{row['role']}, {may}", "warning" if row["is_super"] else "ok", advice)
    if row["is_bound"]:
        advice = (
            "It sees and writes only what a policy allows: name its tenant (--tenant). Policies do not keep a role "
        )
        yield HealthCheck("row security", "binds this role", "warning", advice + _NO_BOUNDARY)
    elif row["bound_roles"]:
        advice = "Policies do not keep a role " + _NO_BOUNDARY
        yield HealthCheck("row security", f"binds {row['bound_roles']} roles", "warning", advice)
    if row["creators"]:
        advice = "They can plant functions that other roles run: REVOKE CREATE ON SCHEMA … FROM … (anyone: PUBLIC)."
        yield HealthCheck("schema rights", f"objects may be created by {row['creators']}", "warning", advice)
    if row["missing"]:
        advice = (
            f"For all that a store does: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO …"
        )
        yield HealthCheck("rights", f"without {row['missing']}", "warning", advice)


def _of_server(row: Record) -> Iterator[HealthCheck]:
    yield _server(row)
    sure = row["fsync"] == "on" and row["synchronous_commit"] != "off"
    settings = f"fsync={row['fsync']}, synchronous_commit={row['synchronous_commit']}"
    advice = "" if sure else "The newest appends may be lost in a crash."
    yield HealthCheck("durability", settings, "ok" if sure else "warning", advice)
    used, most = row["connections"], row["max_connections"]
    crowded = used > most * _CROWDED
    advice = "Soon others are refused: lower pool_size, or put PgBouncer between." if crowded else ""
    yield HealthCheck("connections", f"{used} of {most}", "warning" if crowded else "ok", advice)
    yield HealthCheck("size", f"{row['size']:,} bytes, the whole database")


def _server(row: Record) -> HealthCheck:
    version = f"PostgreSQL {row['version']}"
    if row["is_replica"]:
        return HealthCheck("server", f"{version}, a standby", "error", "It takes no writes: connect to the primary.")
    if row["is_read_only"]:
        advice = "default_transaction_read_only is on, for the server, the database or the role. Is its disk full?"
        return HealthCheck("server", f"{version}, takes no writes", "error", advice)
    return HealthCheck("server", version)
