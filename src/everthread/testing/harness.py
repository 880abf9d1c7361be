"""How the kit gets at an engine. What a harness can do is its type, so no test is skipped in silence."""

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
    """One empty place where an engine keeps threads."""

    @abstractmethod
    def open(self, **options: Any) -> Store:
        """A new store, not yet opened, on this place: each call gives another store on the same threads.

        Args:
            options: What every engine takes: ``clock``, ``retention``, ``max_message_bytes``.
        """

    @abstractmethod
    def another(self) -> Self:
        """A harness on another place that is empty and shares nothing with this one."""


class ProcessHarness(Harness):
    """A place that other processes can reach too."""

    @abstractmethod
    def opener(self) -> Callable[[], Store]:
        """Opens a store on this place in whatever process calls it: must be picklable."""


class ServerHarness(ProcessHarness):
    """A place on a server that can be stopped and started again. No other test may use that server meanwhile."""

    @abstractmethod
    def kill_server(self) -> None:
        """Ends the server at once, as a crash would; returns when it is gone."""

    @abstractmethod
    def start_server(self) -> None:
        """Starts it again on the same address and data; returns when it answers."""


class CorruptibleHarness(Harness):
    """A place whose records can be spoilt behind the store's back."""

    @abstractmethod
    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        """Overwrites the payload of one stored message."""


class SecretHarness(Harness):
    """A place that is reached with a password, key or token.

    Attributes:
        secret: The password, key or token.
    """

    secret: str

    @abstractmethod
    def open_unreachable(self) -> Store:
        """A store, not yet opened, that was given the secret, at an address where nothing answers."""


class UrlHarness(ProcessHarness):
    """The harness of an engine that `open_store` finds by URL.

    Args:
        fresh_url: Gives the URL of a new, empty place at each call.
        options: For every store that is opened here.
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
    """A clock for tests: goes on only when it is told to.

    Begins at the present time, because a server that expires threads by itself compares with its own.
    """

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Lets ``seconds`` pass."""
        self.now += seconds
