"""Threads in one SQLite file: the embedded default. URL: ``sqlite:///threads.db``."""

from everthread.engines.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
