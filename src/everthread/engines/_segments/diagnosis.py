"""What is known of a storage, and whether it keeps the rules that the log relies on: found by trying them."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from everthread.contract import SupportsDiagnosis
from everthread.engines._segments.engine import SegmentEngine
from everthread.engines._segments.log import Fence
from everthread.engines._segments.names import nonce
from everthread.engines._segments.storage import Listed, Storage
from everthread.errors import ConfigurationError, UnsupportedError
from everthread.model import Fact

PROBES = "p/probes"
"""The folder of what is written to try a storage."""

_RACERS = 8
_SLIGHT_S = 60.0
_OVERWRITTEN = (
    "Writers would overwrite each other: use a storage that knows conditional writes (If-None-Match, If-Match)."
)


class Described(ABC):
    """A storage that can tell something of itself."""

    @abstractmethod
    async def describe(self) -> tuple[Fact, ...]:
        """What is known without writing; holds no secret."""

    @abstractmethod
    async def describe_object(self, folder: str, name: str) -> tuple[Fact, ...]:
        """What an object tells of how this storage keeps objects."""


class DiagnosedEngine(SegmentEngine, SupportsDiagnosis):
    """A segment engine that tells how its storage is."""

    async def diagnose(self) -> tuple[Fact, ...]:
        return await self._call(_described(self._storage))

    async def probe(self) -> tuple[Fact, ...]:
        return await self._call(Probe(self._storage, self._threads.fence).run())


async def _described(storage: Storage) -> tuple[Fact, ...]:
    return await storage.describe() if isinstance(storage, Described) else ()


class Probe:
    """Tries what the log relies on, with objects of its own, which it removes.

    Args:
        storage: What to try.
        fence: How far clocks may be apart.
    """

    def __init__(self, storage: Storage, fence: Fence) -> None:
        self._storage = storage
        self._fence = fence
        self._name = nonce()
        self._trying = ""

    async def run(self) -> tuple[Fact, ...]:
        """What was found; after what it may not do there is nothing more."""
        facts: list[Fact] = []
        try:
            async for fact in self._tried():
                facts.append(fact)
        except ConfigurationError as error:
            return (*facts, Fact("rights", f"may not {self._trying}: {error}", "error"))
        return (Fact("rights", "read, write, list and delete"), *facts)

    async def _tried(self) -> AsyncIterator[Fact]:
        before = time.time()
        self._trying = "write"
        await self._storage.create(PROBES, self._name, b"1")
        self._trying = "read or write"
        yield await self._creation()
        yield await self._replacement()
        self._trying = "list"
        yield await self._listing(before)
        if isinstance(self._storage, Described):
            for fact in await self._storage.describe_object(PROBES, self._name):
                yield fact
        self._trying = "delete"
        await self._removed()

    async def _creation(self) -> Fact:
        again = await self._storage.create(PROBES, self._name, b"2")
        found = await self._storage.get(PROBES, self._name)
        made = await asyncio.gather(
            *(self._storage.create(PROBES, f"{self._name}-race", b"%d" % racer) for racer in range(_RACERS))
        )
        if again or found is None or found.data != b"1" or sum(made) > 1:
            return Fact("conditional create", "is not honoured", "error", _OVERWRITTEN)
        return Fact("conditional create", f"of {_RACERS} at the same time one was first")

    async def _replacement(self) -> Fact:
        before = await self._storage.get(PROBES, self._name)
        tag = "" if before is None else before.tag
        try:
            done = [await self._storage.replace(PROBES, self._name, data, tag) for data in (b"3", b"4")]
        except UnsupportedError as error:
            return Fact("conditional replace", str(error), "error")
        found = await self._storage.get(PROBES, self._name)
        if done != [True, False] or found is None or found.data != b"3":
            return Fact("conditional replace", "is not honoured", "error", _OVERWRITTEN)
        return Fact("conditional replace", "only of what is still the same")

    async def _listing(self, before: float) -> Fact:
        listed = await self._listed()
        if listed is None:
            return Fact("listing", "does not show what was just written", "error", "Strong consistency is needed.")
        return self._clock(listed.modified_s, before, time.time())

    async def _listed(self) -> Listed | None:
        async for chunk in self._storage.list(PROBES):
            for listed in chunk:
                if listed.name == self._name:
                    return listed
        return None

    def _clock(self, modified_s: float, before: float, after: float) -> Fact:
        # Services tell whole seconds.
        apart = modified_s - after if modified_s > after else min(modified_s + 1 - before, 0.0)
        most = self._fence.grace_s - self._fence.trust_s
        value = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
        advice = f"Synchronise the clocks (NTP): {most / 60:.0f} minutes apart, turns may be lost."
        if abs(apart) >= most:
            return Fact("storage clock", value, "error", advice)
        if abs(apart) >= _SLIGHT_S:
            return Fact("storage clock", value, "warning", advice)
        return Fact("storage clock", "as this machine's")

    async def _removed(self) -> None:
        """Removes what was written here, and what earlier probes left that were killed."""
        names = {self._name, f"{self._name}-race"}
        async for chunk in self._storage.list(PROBES):
            names.update(each.name for each in chunk if time.time() - each.modified_s > self._fence.grace_s)
        await self._storage.delete(PROBES, names)
