"""A store of another program: the interface that each kind implements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator

from everthread.errors import ConfigurationError
from everthread.operations._targets import Target
from everthread.transfer.model import Openable, Skipped

MAX_THREAD_BYTES = 256 * 1024 * 1024
"""The bytes of the largest thread that is examined: it is in memory."""


class ForeignStore(Openable):
    """A store of another program. ``async with`` opens and closes it."""

    kind: str

    @abstractmethod
    def targets(self) -> AsyncIterator[Target | Skipped]:
        """Yield the threads. A bad one comes as `Skipped`."""

    @abstractmethod
    async def target(self, name: str) -> Target | None:
        """Return the thread of this name as it is now; ``None`` if there is none."""


class ReportOnly(Target):
    """A thread that is reported and never changed."""

    def __init__(self, name: str, payloads: list[bytes], reason: str) -> None:
        self.name = name
        self.payloads = payloads
        self.refusal = reason
        self.is_report_only = True

    async def apply(self, changes: object) -> None:
        raise ConfigurationError(self.refusal)
