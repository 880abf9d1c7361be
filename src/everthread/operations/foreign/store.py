"""A store of another program: the interface that each kind implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from everthread.errors import ConfigurationError
from everthread.operations._targets import Target
from everthread.transfer.model import Skipped

MAX_THREAD_BYTES = 256 * 1024 * 1024
"""The bytes of the largest thread that is examined: it is in memory."""


class ForeignStore(ABC):
    """A store of another program. ``async with`` opens and closes it."""

    kind: str

    @abstractmethod
    def targets(self) -> AsyncIterator[Target | Skipped]:
        """Yield the threads. A bad one comes as `Skipped`."""

    @abstractmethod
    async def target(self, name: str) -> Target | None:
        """Return the thread of this name as it is now; ``None`` if there is none."""

    @abstractmethod
    async def open(self) -> None:
        """Open the store for reading.

        Raises:
            ConfigurationError: There is no such store, or it is of another kind.
        """

    async def aclose(self) -> None:
        """Close everything that `open` opened."""
        return

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class ReportOnly(Target):
    """A thread that is reported and never changed."""

    def __init__(self, name: str, payloads: list[bytes], reason: str) -> None:
        self.name = name
        self.payloads = payloads
        self.refusal = reason
        self.is_report_only = True

    async def apply(self, changes: object) -> None:
        raise ConfigurationError(self.refusal)
