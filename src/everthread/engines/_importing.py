"""What engines that take threads in share: checking arguments."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime

from everthread._arguments import checked_key
from everthread.contract import SupportsImport
from everthread.engines._base import BaseEngine
from everthread.errors import ConfigurationError
from everthread.model import Thread, ThreadKey, to_milliseconds


class Importing(BaseEngine, SupportsImport):
    """Gives an engine with the hook `_restore_times` the ability to take threads in with their times."""

    async def restore_times(self, key: ThreadKey, *, created_at: datetime, updated_at: datetime) -> Thread:
        for name, value in (("created_at", created_at), ("updated_at", updated_at)):
            if not isinstance(value, datetime):
                raise ConfigurationError(f"{name} must be a datetime, not {type(value).__name__}.")
        created_ms, updated_ms = to_milliseconds(created_at), to_milliseconds(updated_at)
        if not 0 <= created_ms <= updated_ms:
            raise ConfigurationError("updated_at must not be before created_at, nor created_at before 1970.")
        return await self._call(self._restore_times(checked_key(key), created_ms, updated_ms))

    @abstractmethod
    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        """Sets both times, and moves an expiry by as much as the last activity."""
