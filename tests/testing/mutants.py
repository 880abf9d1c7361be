"""Memory engines that each break one guarantee, and a report of the kit on one of them.

python -m tests.testing.mutants DoublesARetry
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Self

import msgspec

from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.messages.tool_links import NO_LINKS
from everthread.testing import Harness, conformance_report


class DoublesARetry(MemoryStore):
    """Stores a repeated append again."""

    async def _append(self, request):
        return await super()._append(msgspec.structs.replace(request, append_id=self._new_id()))


class LosesAnAppend(MemoryStore):
    """Overwrites the messages of another writer that appended at the same time."""

    async def _append(self, request):
        log = self._threads.get(request.key)
        before = [] if log is None else list(log.messages)
        await asyncio.sleep(0)
        if (log := self._threads.get(request.key)) is not None:
            log.messages[:] = before
        return await super()._append(request)


class IgnoresExpectedSeq(MemoryStore):
    """Appends although another writer was first."""

    async def _append(self, request):
        return await super()._append(msgspec.structs.replace(request, expected_seq=None))


class ListsOldestFirst(MemoryStore):
    """Lists the threads in the wrong order."""

    async def _list_threads(self, tenant, limit, after):
        threads, more = await super()._list_threads(tenant, limit, after)
        return threads[::-1], more


class TrimsBlindly(MemoryStore):
    """Cuts tool results from their calls."""

    async def _append(self, request):
        return await super()._append(msgspec.structs.replace(request, links=NO_LINKS))


class MutantHarness(Harness):
    def __init__(self, kind: Callable[..., Store]) -> None:
        self.kind = kind
        self.threads: Threads = {}

    def open(self, **options: Any) -> Store:
        return self.kind(self.threads, **options)

    def another(self) -> Self:
        return type(self)(self.kind)


if __name__ == "__main__":
    kind = globals()[sys.argv[1]]
    sys.stdout.buffer.write(conformance_report(lambda folder: MutantHarness(kind)).to_json())
