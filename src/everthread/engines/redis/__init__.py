"""Threads on Redis (6.2 or newer) or Valkey: the messages of each are a plain Redis list that anyone can read."""

from everthread.engines.redis._store import RedisStore  # first: it says what to install where the driver is missing

from everthread.engines.redis._entra import EntraCredentials  # isort: skip

__all__ = ["EntraCredentials", "RedisStore"]
