"""Threads in a PostgreSQL database, for many machines at once. URL: ``postgresql://host/database``."""

from everthread._extras import missing_extra

try:
    from everthread.engines.postgres._entra import entra_password
    from everthread.engines.postgres._schema import ddl, row_level_security
    from everthread.engines.postgres._searching import SearchingPostgresStore
    from everthread.engines.postgres._store import PostgresStore
except ImportError as error:
    raise missing_extra("postgres", error) from error

__all__ = ["PostgresStore", "SearchingPostgresStore", "ddl", "entra_password", "row_level_security"]
