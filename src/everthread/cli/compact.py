"""``everthread compact``: join the small objects of threads, and free the space of deleted messages."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from everthread.cli.json_output import CompactedThreads
from everthread.cli.options import json_option, optional_thread_argument, store_command
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.progress import progress
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store

EXAMPLES = """\b
Examples:
  everthread compact --store s3://bucket/threads
  everthread compact @prod trip-to-rome
  everthread compact @prod --tenant acme --json

\b
Object storage and Cosmos DB compact a thread by themselves every 64 changes. Run
this after many messages were deleted, or before very many are read. It runs
beside readers and writers. After an interruption, run it again.
"""


@store_command(epilog=EXAMPLES)
@optional_thread_argument
@json_option
def compact(*, place: Place, thread_id: str | None, as_json: bool) -> None:
    """Join the small objects of threads in object storage.

    Compacts one thread, or all threads of a tenant.
    """
    done = run(lambda store: _compact(store, place, thread_id), place)
    Output(as_json=as_json).result(f"Compacted {counted(done, 'thread')}.", CompactedThreads(threads=done))


async def _compact(store: Store, place: Place, thread_id: str | None) -> int:
    from everthread.listing import existing_thread
    from everthread.operations.compact import compact_threads, compactable

    if thread_id is not None:
        able = compactable(store)
        await able.compact((await existing_thread(store, place.key(thread_id))).key)
        return 1
    done = 0
    async with aclosing(compact_threads(store, place.tenant)) as threads:
        with progress("Compacting", unit="threads") as advance:
            async for _ in threads:
                done += 1
                advance(1)
    return done
