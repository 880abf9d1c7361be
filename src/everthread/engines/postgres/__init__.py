"""Threads in a PostgreSQL database, for many machines at once. URL: ``postgresql://host/database``."""

from everthread.engines.postgres._store import PostgresStore

__all__ = ["PostgresStore"]
