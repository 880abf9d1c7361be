"""What a storage must do so that a log can be kept in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence

import msgspec


class Found(msgspec.Struct, frozen=True):
    """An object's bytes, and the tag that changes with every write of other bytes."""

    data: bytes
    tag: str


class Listed(msgspec.Struct, frozen=True):
    """An object in a listing: its name in its folder, when it was last written (seconds since 1970), its size."""

    name: str
    modified_s: float
    size: int


class Storage(ABC):
    """Named objects in folders, on a server, in an account or in a directory.

    Every operation is atomic for one object: readers see the whole old or the whole new one. What a write has
    acknowledged, every later read and listing sees (strong consistency). Folders and names consist of
    lower-case letters, digits and ``. _ ~ -``, folders also of ``/``, so that no storage needs to escape them.

    Raises:
        StoreUnavailableError: The storage cannot be reached, or throttles for longer than the retries last. A
            write may have landed all the same.
        ConfigurationError: Credentials are refused, or the bucket, container or database does not exist.
    """

    max_object_bytes: int
    """The largest object that it takes."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the objects are, for people; holds no secret."""

    @abstractmethod
    async def open(self) -> None:
        """Connects, and makes sure that objects can be listed."""

    @abstractmethod
    async def close(self) -> None:
        """Frees what `open` took."""

    @abstractmethod
    async def create(self, folder: str, name: str, data: bytes) -> bool:
        """Writes an object if none has this name; says whether it did."""

    @abstractmethod
    async def put(self, folder: str, name: str, data: bytes) -> None:
        """Writes an object, whether or not one has this name."""

    @abstractmethod
    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        """Writes an object if the one of this name still has this tag; says whether it did."""

    @abstractmethod
    async def get(self, folder: str, name: str) -> Found | None:
        """An object, or ``None``."""

    @abstractmethod
    async def delete(self, folder: str, names: Collection[str]) -> None:
        """Removes objects; those that do not exist are no error."""

    @abstractmethod
    def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        """The objects of a folder whose names are above ``after``, ascending, in chunks of a request each."""


class Browsable(ABC):
    """A storage that can tell which folders it has, for those who look through everything."""

    @abstractmethod
    def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        """The names of the folders in a folder, in chunks; one may come more than once."""
