"""Threads on Redis (6.2 or newer) or Valkey: the messages of each are a plain Redis list that anyone can read."""

from everthread.engines.redis._store import RedisStore

__all__ = ["RedisStore"]
