"""The store of an adapter: one that the caller opened, or the URL of one."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from everthread._uncopied import Uncopied
from everthread.adapters.shared_stores import opener
from everthread.contract import Store
from everthread.errors import ConfigurationError
from everthread.wrappers.per_loop import PerLoop


class UsesStore(Uncopied):
    """An object that stores in a store, and closes it if it opened it.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option, or another object.
    """

    def __init__(self, store: Store | str) -> None:
        self._owns_store = isinstance(store, str)
        if isinstance(store, str):
            self._store: Store = PerLoop(opener(store))
        elif isinstance(store, Store):
            self._store = store
        else:
            raise ConfigurationError(
                f"{type(self).__name__} needs a Store or the URL of one, not {type(store).__name__}."
            )

    @property
    def store(self) -> Store:
        """The store behind this object."""
        return self._store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._store.location}>"

    async def aclose(self) -> None:
        """Close the stores that this object opened, in every event loop that runs. May be called again.

        The next use opens a store again.
        """
        if self._owns_store:
            await self._store.aclose()

    async def __aenter__(self) -> Self:
        if self._owns_store:
            await self._store.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
