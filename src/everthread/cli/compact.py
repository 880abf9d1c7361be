"""``everthread compact``: joins the small objects of threads, and frees what dropped messages still take up."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from everthread.cli.common import Output, Place, complete_store, counted, json_option, progress, run, store_command

if TYPE_CHECKING:
    from everthread.contract import Store

EXAMPLES = """\b
Examples:
  everthread compact --store s3://bucket/threads
  everthread compact @prod trip-to-rome
  everthread compact @prod --tenant acme --json

\b
For object storage and Cosmos DB, which do so by themselves every 64 changes of a
thread: after much was dropped, or before reading very much. Runs beside readers
and writers. Stopped at any moment, it is simply run again.
"""


@store_command(epilog=EXAMPLES)
@click.argument("thread_id", metavar="[THREAD]", required=False, shell_complete=complete_store)
@json_option
def compact(*, place: Place, thread_id: str | None, as_json: bool) -> None:
    """Join the small objects of threads in object storage.

    Of one thread, or of all of a tenant.
    """
    done = run(lambda store: _compact(store, place, thread_id), place)
    Output(as_json=as_json).result(f"Compacted {counted(done, 'thread')}.", {"threads": done})


async def _compact(store: Store, place: Place, thread_id: str | None) -> int:
    from everthread.compacting import compact_threads, compactable
    from everthread.errors import ThreadNotFoundError

    if thread_id is not None:
        key = place.key(thread_id)
        able = compactable(store)
        if await store.get_thread(key) is None:
            raise ThreadNotFoundError(f"There is no {key}.")
        await able.compact(key)
        return 1
    done = 0
    async with aclosing(compact_threads(store, place.tenant)) as threads:
        with progress("Compacting", unit="threads") as advance:
            async for _ in threads:
                done += 1
                advance(1)
    return done
