"""Threads in a PostgreSQL database, shared by many machines. URL: ``postgresql://host/database``."""

from everthread._extras import missing_extra

try:
    from everthread.engines.postgres.entra import entra_password
    from everthread.engines.postgres.schema import ddl
    from everthread.engines.postgres.store import PostgresStore, SearchingPostgresStore
except ImportError as error:
    raise missing_extra("postgres", error) from error

__all__ = ["PostgresStore", "SearchingPostgresStore", "ddl", "entra_password"]
