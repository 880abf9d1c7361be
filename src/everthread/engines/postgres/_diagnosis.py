"""What is known of a PostgreSQL server, from its catalogue; read-only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from everthread.model import Fact

if TYPE_CHECKING:
    from everthread.engines.postgres._connections import Record

QUERY = """
SELECT
    current_setting('server_version') AS version,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,
    (SELECT s.version FROM pg_stat_ssl AS s WHERE pid = pg_backend_pid()) AS tls,
    inet_server_addr() IS NULL OR inet_server_addr() << '127.0.0.0/8' OR inet_server_addr() = '::1' AS local,
    current_user::text AS role,
    has_schema_privilege($1, 'CREATE') AS may_create,
    coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false) AS is_super,
    pg_is_in_recovery() AS is_replica,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('fsync') AS fsync,
    pg_database_size(current_database()) AS size
"""


def facts(row: Record, *, schema: str, version: int, newest: int) -> tuple[Fact, ...]:
    """The facts from the row of `QUERY`."""
    return (*_of_connection(row), *_of_server(row), Fact("schema", f"{schema}, version {version} of {newest}"))


def _of_connection(row: Record) -> Iterator[Fact]:
    if row["encrypted"]:
        yield Fact("encryption", str(row["tls"] or "TLS"))
    elif row["local"]:
        yield Fact("encryption", "none, within this machine")
    else:
        yield Fact("encryption", "none", "warning", "Messages cross the network as they are: add sslmode=verify-full.")
    may = "may create tables" if row["may_create"] else "may not create tables"
    advice = "A superuser reaches more than threads, and passes row-level security." if row["is_super"] else ""
    yield Fact("role", f"{row['role']}, {may}", "warning" if row["is_super"] else "ok", advice)


def _of_server(row: Record) -> Iterator[Fact]:
    replica = row["is_replica"]
    advice = "It takes no writes: connect to the primary." if replica else ""
    version = f"PostgreSQL {row['version']}"
    yield Fact("server", f"{version}{', a standby' if replica else ''}", "error" if replica else "ok", advice)
    sure = row["fsync"] == "on" and row["synchronous_commit"] != "off"
    settings = f"fsync={row['fsync']}, synchronous_commit={row['synchronous_commit']}"
    advice = "" if sure else "The newest appends may be lost in a crash."
    yield Fact("durability", settings, "ok" if sure else "warning", advice)
    yield Fact("size", f"{row['size']:,} bytes, the whole database")
