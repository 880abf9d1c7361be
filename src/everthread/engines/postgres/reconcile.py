"""Compare redundant data with the messages, in bounded parts, so that no other call waits long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from everthread.model import Inconsistency

if TYPE_CHECKING:
    from everthread.engines.postgres.connection import Record

Statement = Callable[..., Awaitable["Sequence[Record]"]]
"""Runs a named statement, which may be repeated."""

_PURGED_AT_ONCE = 1000


async def drifts(run: Statement, *, repair: bool) -> AsyncIterator[Inconsistency]:
    """Yield the inconsistencies of all threads that this role may see."""
    wrong = remains = 0
    async for ids in _found(run, "reckon"):
        wrong += len(ids)
        if repair:
            await run("recount", ids)
    yield Inconsistency("threads with wrong counts", wrong, repaired=repair)
    async for ids in _found(run, "remains"):
        remains += len(ids)
        if repair:
            await run("discard", ids)
    while repair and remains and (await run("purge", _PURGED_AT_ONCE, None))[0][0]:
        pass
    yield Inconsistency("rows of missing threads", remains, repaired=repair)


async def _found(run: Statement, query: str) -> AsyncIterator[list[int]]:
    after = -1
    while rows := await run(query, after):
        after = rows[-1][0]
        if ids := [thread for thread, is_wrong in rows if is_wrong]:
            yield ids
