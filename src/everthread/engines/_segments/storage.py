"""The storage interface that a log needs."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from everthread.errors import EverthreadError, OutcomeUnknownError, StoreUnavailableError
from everthread.model import HealthCheck

R = TypeVar("R")


class NotWrittenError(StoreUnavailableError):
    """A write failed and certainly stored nothing. Sending it again immediately would fail again."""


@contextlib.contextmanager
def after_write(*, has_landed: bool = True) -> Generator[None]:
    """Raise `OutcomeUnknownError` if the storage fails after a call has written something.

    Args:
        has_landed: False if the block contains the write itself, so that a `NotWrittenError` still means no write.
    """
    try:
        yield
    except StoreUnavailableError as error:
        if isinstance(error, OutcomeUnknownError) or (isinstance(error, NotWrittenError) and not has_landed):
            raise
        raise OutcomeUnknownError(f"{error} The write may have landed: repeat it, or read what is stored.") from None


class Found(msgspec.Struct, frozen=True):
    """An object's bytes, and the tag that changes with every write of other bytes."""

    data: bytes
    tag: str


class Listed(msgspec.Struct, frozen=True):
    """An object in a listing: its name, the time of its last write (seconds since 1970) and its size."""

    name: str
    modified_s: float
    size: int


class Storage(ABC):
    """Named objects in folders, on a server, in an account or in a directory.

    Every operation is atomic for one object: readers see the whole old or the whole new one. Later reads and listings
    see every acknowledged write (strong consistency). Folders and names consist of lower-case letters, digits and
    ``. _ ~ -``, folders also of ``/``, so that no storage needs to escape them.

    Raises:
        StoreUnavailableError: The storage cannot be reached, or throttles for longer than the retries last. A
            write may have landed all the same, unless it is a `NotWrittenError`.
        ConfigurationError: Credentials are refused, or the bucket, container or database does not exist.
    """

    max_object_bytes: int

    @property
    @abstractmethod
    def location(self) -> str:
        """The URL of the storage, without secrets."""

    @abstractmethod
    async def open(self, *, read_only: bool = False) -> None:
        """Connect, and make sure that objects can be listed; ``read_only``: create nothing.

        Raises:
            ConfigurationError: The location does not exist.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close what `open` opened."""

    def release(self) -> None:  # noqa: B027 (a storage may have nothing to release)
        """Release connections and threads without an event loop."""

    @abstractmethod
    async def create(self, folder: str, name: str, data: bytes) -> bool:
        """Write an object if its name is free; return whether it was."""

    @abstractmethod
    async def put(self, folder: str, name: str, data: bytes) -> None:
        """Write an object, whether or not its name is free."""

    @abstractmethod
    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        """Write an object if the stored one still has this tag; return whether it had."""

    @abstractmethod
    async def get(self, folder: str, name: str) -> Found | None:
        """Return an object, or ``None``."""

    @abstractmethod
    async def delete(self, folder: str, names: Collection[str]) -> None:
        """Delete objects; missing ones are no error."""

    async def flush(self, folder: str, names: Collection[str]) -> None:  # noqa: B027 (services acknowledge nothing else)
        """Make sure that objects which another process wrote survive a loss of power.

        That process may have died after its write became visible and before it was durable.
        """

    @abstractmethod
    def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        """Yield the objects of a folder with names above ``after``, ascending, one request a chunk."""

    @abstractmethod
    def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        """Yield the names of the folders in a folder, in chunks; a name may come more than once."""

    async def describe(self) -> tuple[HealthCheck, ...]:
        """Return health checks that need no write, without secrets."""
        return ()

    async def describe_object(self, folder: str, name: str) -> tuple[HealthCheck, ...]:
        """Return health checks of how the storage keeps this object."""
        return ()


class ThreadedStorage(Storage):
    """Base of storages with blocking operations.

    Attributes:
        threads: The maximum number of concurrent operations.
    """

    threads: int
    _pool: ThreadPoolExecutor | None = None

    async def open(self, *, read_only: bool = False) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="everthread-storage")
        try:
            await self.run(lambda: self.prepare(read_only=read_only))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            # Cancelled calls may have left operations in progress.
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)

    def release(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    async def run(self, work: Callable[[], R]) -> R:
        """Run a blocking operation; translate its errors."""
        if self._pool is None:
            raise StoreUnavailableError(f"{self.location} is closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except EverthreadError:
            raise
        except Exception as error:
            raise self.typed(error) from None

    @abstractmethod
    def prepare(self, *, read_only: bool) -> None:
        """Make sure that the storage can be used; runs in the pool."""

    @abstractmethod
    def typed(self, error: Exception) -> Exception:
        """Translate a driver's error; return any other error unchanged."""
