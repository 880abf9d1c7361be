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
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('fsync') AS fsync,
    pg_database_size(current_database()) AS size,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    current_setting('max_connections')::int AS max_connections,
    row_security_active(format('%I.%I', $1::text, $2 || 'threads')) AS is_bound,
    (SELECT string_agg(format('%s on %s', privilege, tables), '; ') FROM (
        SELECT privilege, string_agg(name, ', ') AS tables
        FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege,
            unnest(ARRAY['threads', 'messages', 'appends', 'documents', 'erased']) AS name,
            format('%I.%I', $1::text, $2 || name) AS place
        WHERE NOT CASE privilege
            WHEN 'DELETE' THEN has_table_privilege(place, privilege)
            ELSE has_any_column_privilege(place, privilege) END
        GROUP BY privilege
    ) AS rights) AS missing
"""

_CROWDED = 0.8


def facts(row: Record, *, schema: str, version: int, newest: int, keeps_no_sessions: bool = False) -> tuple[Fact, ...]:
    """The facts from the row of `QUERY`; ``keeps_no_sessions``: there is a pooler between."""
    schema_fact = Fact("schema", f"{schema}, version {version} of {newest}")
    return (_encryption(row, keeps_no_sessions), *_rights(row, schema), *_of_server(row), schema_fact)


def _encryption(row: Record, keeps_no_sessions: bool) -> Fact:
    # The server knows of its own connection only.
    where = ", between the pooler and the server" if keeps_no_sessions else ""
    if row["encrypted"]:
        return Fact("encryption", f"{row['tls'] or 'TLS'}{where}")
    if row["local"]:
        return Fact("encryption", f"none, within {'one' if keeps_no_sessions else 'this'} machine{where}")
    advice = "Messages cross the network as they are: add sslmode=verify-full."
    if keeps_no_sessions:
        advice = "Messages cross the network as they are: set server_tls_sslmode in PgBouncer."
    return Fact("encryption", f"none{where}", "warning", advice)


def _rights(row: Record, schema: str) -> Iterator[Fact]:
    may = "may create tables" if row["may_create"] else "may not create tables"
    advice = "A superuser reaches more than threads, and passes row-level security." if row["is_super"] else ""
    yield Fact("role", f"{row['role']}, {may}", "warning" if row["is_super"] else "ok", advice)
    if row["is_bound"]:
        advice = "It may see and write only what a policy allows: name its tenant (--tenant)."
        yield Fact("row security", "binds this role", "ok", advice)
    if row["missing"]:
        advice = (
            f"For all that a store does: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO …"
        )
        yield Fact("rights", f"without {row['missing']}", "warning", advice)


def _of_server(row: Record) -> Iterator[Fact]:
    yield _server(row)
    sure = row["fsync"] == "on" and row["synchronous_commit"] != "off"
    settings = f"fsync={row['fsync']}, synchronous_commit={row['synchronous_commit']}"
    advice = "" if sure else "The newest appends may be lost in a crash."
    yield Fact("durability", settings, "ok" if sure else "warning", advice)
    used, most = row["connections"], row["max_connections"]
    crowded = used > most * _CROWDED
    advice = "Soon others are refused: lower pool_size, or put PgBouncer between." if crowded else ""
    yield Fact("connections", f"{used} of {most}", "warning" if crowded else "ok", advice)
    yield Fact("size", f"{row['size']:,} bytes, the whole database")


def _server(row: Record) -> Fact:
    version = f"PostgreSQL {row['version']}"
    if row["is_replica"]:
        return Fact("server", f"{version}, a standby", "error", "It takes no writes: connect to the primary.")
    if row["is_read_only"]:
        advice = "default_transaction_read_only is on, for the server, the database or the role. Is its disk full?"
        return Fact("server", f"{version}, takes no writes", "error", advice)
    return Fact("server", version)
