"""Storages whose operations block: each runs in a thread of the storage's own."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from everthread.engines._segments.storage import Storage
from everthread.errors import EverthreadError, StoreUnavailableError

R = TypeVar("R")


class ThreadedStorage(Storage):
    """Base of storages on blocking calls.

    Attributes:
        threads: How many operations are under way at the same time at most.
    """

    threads: int
    _pool: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="everthread-storage")
        try:
            await self.run(self.prepare)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            # Waits for what cancelled calls have left under way.
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)

    async def run(self, work: Callable[[], R]) -> R:
        """Carries out a blocking operation; its errors come out typed."""
        if self._pool is None:
            raise StoreUnavailableError(f"{self.location} is closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except EverthreadError:
            raise
        except Exception as error:
            raise self.typed(error) from None

    @abstractmethod
    def prepare(self) -> None:
        """Makes sure, in a thread, that the storage can be used."""

    @abstractmethod
    def typed(self, error: Exception) -> Exception:
        """The error of ours for a driver's, or a bug as it is."""
