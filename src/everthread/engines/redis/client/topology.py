"""The addresses of the servers: of a single server, or of the primaries of a cluster by slot."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from everthread.engines.redis.client.calls import Address
from everthread.engines.redis.client.dialing import Dialer
from everthread.engines.redis.keys import SLOTS
from everthread.errors import ConfigurationError, StoreUnavailableError

HERE: Final[Address] = ("", 0)
"""The server in the URL; redis-py knows its address."""

ANYWHERE: Final = SLOTS
"""Stands for a slot in calls that any server can answer."""


class Topology:
    """Knows the servers. This base class knows a single server, at the address in the URL."""

    spread = False
    """True if the keys are on several servers, by their slots."""

    def of(self, slot: int) -> Address | None:
        """Return the server of a slot, if it is known."""
        return HERE

    def moved(self, slot: int, address: Address) -> None:
        """Note a server's redirection of a slot."""

    def lost(self, address: Address) -> None:
        """Note that a server cannot be reached, or changed its role."""

    async def find(self) -> None:
        """Look for the servers if they are not known or one was lost."""

    async def one_slot_each(self) -> Sequence[int]:
        """Look for the servers again and return a slot of each."""
        return (0,)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever a server is replaced; return if nothing reports that."""


class ClusterTopology(Topology):
    """The primaries of a cluster by slot. Servers that lost a slot report so themselves.

    Args:
        seeds: Servers of the cluster; one that answers is enough.
        dialer: Connects to them.
    """

    spread = True

    def __init__(self, seeds: Sequence[Address], dialer: Dialer) -> None:
        self._known = list(seeds)
        self._seeds = seeds
        self._dialer = dialer
        self._owners: list[Address | None] = [None] * (SLOTS + 1)
        self._is_stale = True

    def of(self, slot: int) -> Address | None:
        return self._owners[slot]

    def moved(self, slot: int, address: Address) -> None:
        self._owners[slot] = address

    def lost(self, address: Address) -> None:
        self._is_stale = True

    async def find(self) -> None:
        if not self._is_stale:
            return
        trouble: Exception = ConnectionError("no server of the cluster is known")
        # In random order, so that a server that hangs, or has stale data, does not stay the first.
        random.shuffle(self._known)
        for address in self._known:
            try:
                rows = await self._dialer.ask(address, "CLUSTER", "SLOTS")
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
                "Some slots of the cluster have no server now: see CLUSTER SLOTS on one of its servers."
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
        # Slots without a server may get one soon.
        self._is_stale = None in owners
        self._owners, self._known = [*owners, next(filter(None, owners), asked)], list(known)


def address_in(redirection: str, sender: Address) -> Address:
    """Return the server in ``MOVED slot host:port`` or ``ASK slot host:port``."""
    host, _, port = redirection.split(" ")[2].rpartition(":")
    return _address(host.encode(), int(port), sender)


def _address(host: bytes | None, port: int, sender: Address) -> Address:
    # An empty host and "?" mean the sender.
    return (host.decode() if host and host != b"?" else sender[0], int(port))
