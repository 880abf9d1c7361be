"""Access of the kit to an engine. A harness has its abilities as types, so no test is skipped silently."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from everthread.contract import Store
from everthread.model import ThreadKey
from everthread.opening import open_store


class Harness(ABC):
    """One empty place where an engine stores threads.

    Attributes:
        lists_late: Whether a listing may miss a new append of another store, until that store lists too.
    """

    lists_late = False

    @abstractmethod
    def open(self, **options: Any) -> Store:
        """Return a new store on this place, not yet opened. Each call returns another store on the same threads.

        Args:
            options: The options of every engine: ``clock``, ``retention``, ``max_message_bytes``, ``read_only``.
        """

    @abstractmethod
    def another(self) -> Self:
        """Return a harness on another empty place, which shares nothing with this one."""


class ProcessHarness(Harness):
    """A place that other processes can reach too."""

    @abstractmethod
    def opener(self) -> Callable[[], Store]:
        """Return a picklable function that makes a store on this place in the process that calls it."""


class ServerHarness(ProcessHarness):
    """A place on a server that can be stopped and started again. No other test may use that server at the same time."""

    @abstractmethod
    def kill_server(self) -> None:
        """End the server immediately, as a crash would. Return when the process has ended."""

    @abstractmethod
    def start_server(self) -> None:
        """Start the server again on the same address and data. Return when it answers."""


class CorruptibleHarness(Harness):
    """A place with records that a test can damage without the store."""

    @abstractmethod
    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        """Overwrite the payload of one stored message."""

    @abstractmethod
    async def corrupt_metadata(self, key: ThreadKey) -> None:
        """Replace the stored metadata of a thread by something that is not a JSON object."""


class MeteredHarness(Harness):
    """A place that counts the bytes which stores exchange with it. No other test may use it at the same time."""

    @abstractmethod
    async def traffic(self) -> int:
        """Return the number of bytes that all stores on this place have sent and received so far."""


class SecretHarness(Harness):
    """A place that is reached with a password, key or token.

    Attributes:
        secret: The password, key or token.
    """

    secret: str

    @abstractmethod
    def open_unreachable(self) -> Store:
        """Return a store with the secret, not yet opened, at an address that does not answer."""


class UrlHarness(ProcessHarness):
    """The harness of an engine that `open_store` finds by URL.

    Args:
        fresh_url: Returns the URL of a new, empty place at each call.
        options: The options of every store.
    """

    def __init__(self, fresh_url: Callable[[], str], **options: Any) -> None:
        self._fresh_url = fresh_url
        self._options = options
        self.url = fresh_url()

    def open(self, **options: Any) -> Store:
        return open_store(self.url, **{**self._options, **options})

    def another(self) -> Self:
        return type(self)(self._fresh_url, **self._options)

    def opener(self) -> Callable[[], Store]:
        return partial(open_store, self.url, **self._options)


class Clock:
    """A clock for tests, which only `advance` moves.

    It starts at the present time, because a server that expires threads uses its own clock.
    """

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward by ``seconds``."""
        self.now += seconds
