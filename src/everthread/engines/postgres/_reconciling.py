"""What PostgreSQL keeps twice, compared with the messages: a bounded part at a time, so that nobody waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from everthread.model import Drift

if TYPE_CHECKING:
    from everthread.engines.postgres._connections import Record

Statement = Callable[..., Awaitable["Sequence[Record]"]]
"""Runs a named statement with arguments; may be given one that is repeated."""

_PURGED_AT_ONCE = 1000


async def drifts(run: Statement, *, mend: bool) -> AsyncIterator[Drift]:
    """What has drifted apart of all threads that this role may see."""
    wrong = remains = 0
    async for ids in _found(run, "reckon"):
        wrong += len(ids)
        if mend:
            await run("recount", ids)
    yield Drift("threads whose counts do not fit", wrong, mended=mend)
    async for ids in _found(run, "remains"):
        remains += len(ids)
        if mend:
            await run("discard", ids)
    while mend and remains and (await run("purge", _PURGED_AT_ONCE, None))[0][0]:
        pass
    yield Drift("remains of threads that are not there", remains, mended=mend)


async def _found(run: Statement, query: str) -> AsyncIterator[list[int]]:
    after = -1
    while rows := await run(query, after):
        after = rows[-1][0]
        if ids := [thread for thread, is_wrong in rows if is_wrong]:
            yield ids
