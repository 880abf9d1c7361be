"""Threads on Redis (6.2 or newer) or Valkey; the messages of each are a plain Redis list."""

from everthread.engines.redis.store import RedisStore  # first: it reports a missing driver

from everthread.engines.redis.client.entra import EntraCredentials  # isort: skip
from everthread.engines.redis.client.urls import client_of  # isort: skip

__all__ = ["EntraCredentials", "RedisStore", "client_of"]
