"""A process that moves threads and is killed: ``python -m tests.transfer.killed CALLS LATER HOW FROM TO``.

It gets SIGKILL ``LATER`` microseconds after it began its call number ``CALLS`` of a store.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from everthread import open_store
from everthread.transfer import copy_threads, export_threads, import_threads
from everthread.wrappers._forwarding import ABILITIES, ForwardingStore

T = TypeVar("T")


class MortalStore(ForwardingStore):
    """A store whose process ends with one of its calls."""

    carries = ABILITIES
    calls = 0
    last = 0
    later = 0.0

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        MortalStore.calls += 1
        if MortalStore.calls == MortalStore.last:
            if MortalStore.later:
                threading.Thread(target=_die, args=(MortalStore.later,), daemon=True).start()
            else:
                _die(0)
        return await proceed()


def _die(later: float) -> None:
    time.sleep(later)
    os.kill(os.getpid(), signal.SIGKILL)


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
