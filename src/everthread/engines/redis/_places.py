"""Where the servers are: the one that a URL names, the primary that sentinels name, or a cluster's servers by slot."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, Protocol

from everthread.engines.redis._keys import SLOTS
from everthread.engines.redis._line import Address
from everthread.errors import ConfigurationError, StoreUnavailableError

HERE: Final[Address] = ("", 0)
"""The server that the URL names, whose place redis-py knows."""


class Places(Protocol):
    """Where the servers are."""

    spread: bool
    """Whether keys lie on several servers by their slots."""

    def of(self, slot: int) -> Address | None:
        """The server of a slot, as far as it is known."""
        ...

    def any(self) -> Address:
        """A server to begin with, once they were found."""
        ...

    def moved(self, slot: int, address: Address) -> None:
        """A server says that another has this slot."""

    def lost(self, address: Address) -> None:
        """A server cannot be reached, or is not what it was."""

    async def find(self) -> None:
        """Looks for the servers, if they are not known or one was lost."""

    async def one_slot_each(self) -> Sequence[int]:
        """Looks for the servers anew, and tells a slot of each."""
        ...


class Asker(Protocol):
    """Asks a server one thing over a connection that is made for it."""

    async def ask(self, address: Address, *command: str) -> Any: ...


class OnePlace:
    """The server that a URL names."""

    spread = False

    def of(self, slot: int) -> Address | None:
        return HERE

    def any(self) -> Address:
        return HERE

    def moved(self, slot: int, address: Address) -> None:
        """Is never said of the only server."""

    def lost(self, address: Address) -> None:
        """It is looked for under the same name again."""

    async def find(self) -> None:
        """There is nothing to look for."""

    async def one_slot_each(self) -> Sequence[int]:
        return (0,)


class SentinelPlaces:
    """The primary that sentinels name.

    Args:
        sentinels: Where they are; one that answers is enough.
        name: What they call the primary.
        asker: Asks them.
    """

    spread = False

    def __init__(self, sentinels: Sequence[Address], name: str, asker: Asker) -> None:
        self._sentinels = list(sentinels)
        self._name = name
        self._asker = asker
        self._primary: Address | None = None

    def of(self, slot: int) -> Address | None:
        return self._primary

    def any(self) -> Address:
        assert self._primary is not None
        return self._primary

    def moved(self, slot: int, address: Address) -> None:
        """Is never said outside a cluster."""

    def lost(self, address: Address) -> None:
        self._primary = None

    async def find(self) -> None:
        if self._primary is not None:
            return
        trouble: Exception | None = None
        for sentinel in self._sentinels:
            try:
                reply = await self._asker.ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            except ConfigurationError:
                raise
            except Exception as error:
                trouble = error
                continue
            if reply is not None:
                # The one that knew is asked first the next time.
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                self._primary = (reply[0].decode(), int(reply[1]))
                return
        if trouble is not None:
            raise trouble
        raise ConfigurationError(f"No sentinel knows a primary of the name {self._name!r}.")

    async def one_slot_each(self) -> Sequence[int]:
        return (0,)


class ClusterPlaces:
    """The primaries of a cluster by slot.

    Args:
        seeds: Servers of the cluster; one that answers is enough.
        asker: Asks them.
    """

    spread = True

    def __init__(self, seeds: Sequence[Address], asker: Asker) -> None:
        self._known = list(seeds)
        self._seeds = seeds
        self._asker = asker
        self._owners: list[Address | None] = [None] * SLOTS
        self._is_stale = True

    def of(self, slot: int) -> Address | None:
        return self._owners[slot]

    def any(self) -> Address:
        return next(filter(None, self._owners), self._known[0])

    def moved(self, slot: int, address: Address) -> None:
        self._owners[slot] = address

    def lost(self, address: Address) -> None:
        self._is_stale = True

    async def find(self) -> None:
        if not self._is_stale:
            return
        trouble: Exception = ConnectionError("no server of the cluster is known")
        # In another order each time, so that one that hangs, or knows old things, does not stay the first.
        random.shuffle(self._known)
        for address in self._known:
            try:
                rows = await self._asker.ask(address, "CLUSTER", "SLOTS")
            except ConfigurationError:
                raise
            except Exception as error:
                trouble = error
                continue
            self._learn(rows, address)
            return
        raise trouble

    async def one_slot_each(self) -> Sequence[int]:
        self._is_stale = True
        await self.find()
        if None in self._owners:
            raise StoreUnavailableError(
                "A part of the cluster's keys has no server now: see CLUSTER SLOTS on one of them."
            )
        return [self._owners.index(owner) for owner in dict.fromkeys(self._owners)]

    def _learn(self, rows: Sequence[Any], asked: Address) -> None:
        # https://redis.io/docs/latest/commands/cluster-slots/
        owners: list[Address | None] = [None] * SLOTS
        known = dict.fromkeys(self._seeds)
        for first, last, *servers in rows:
            addresses = [_address(server[0], server[1], asked) for server in servers]
            owners[first : last + 1] = [addresses[0]] * (last + 1 - first)
            known.update(dict.fromkeys(addresses))
        self._owners, self._known = owners, list(known)
        # Slots that nobody has may soon be somebody's.
        self._is_stale = None in owners


def address_in(redirection: str, sender: Address) -> Address:
    """The server that ``MOVED slot host:port`` or ``ASK slot host:port`` names."""
    host, _, port = redirection.split(" ")[2].rpartition(":")
    return _address(host.encode(), int(port), sender)


def _address(host: bytes | None, port: int, sender: Address) -> Address:
    # Nothing and "?" mean: the one that says so.
    return (host.decode() if host and host != b"?" else sender[0], int(port))
