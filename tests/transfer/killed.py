"""A process that moves threads and is killed: ``python -m tests.transfer.killed CALLS LATER HOW FROM TO``.

It gets SIGKILL ``LATER`` microseconds after it began its call number ``CALLS`` of a store.
"""

from __future__ import annotations

import asyncio
import sys

from everthread import open_store
from everthread.transfer import copy_threads, export_threads, import_threads
from tests.operations.kills.mortal import MortalStore


async def main(how: str, source: str, target: str) -> None:
    if how == "copy":
        async with open_store(source) as first, open_store(target) as second:
            report = await copy_threads(MortalStore(first), MortalStore(second))
    elif how == "import":
        async with open_store(target) as store:
            report = await import_threads(MortalStore(store), source)
    else:
        async with open_store(source) as store:
            report = await export_threads(MortalStore(store), target, into_folder=how == "export into a folder")
    assert report.is_complete, report


if __name__ == "__main__":
    MortalStore.last, MortalStore.later = int(sys.argv[1]), int(sys.argv[2]) / 1e6
    asyncio.run(main(*sys.argv[3:]))
