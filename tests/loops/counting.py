"""Another process: uses a store per loop in many ways, and prints what is left open afterwards.

Arguments: the URL of an empty place, the kind of loop.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from everthread import NewMessage, Store, ThreadKey, open_store
from everthread.testing.guarantees.event_loops import LOOPS, run
from everthread.wrappers.per_loop import PerLoop

KEY = ThreadKey("t")
PATIENCE_S = 2
MESSAGE = NewMessage(b'{"role": "user"}')


async def use(store: Store) -> None:
    await asyncio.gather(*(store.append(KEY, [MESSAGE]) for _ in range(3)))
    await asyncio.gather(*(store.read_last(KEY, 1) for _ in range(5)))


def left_open() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def settled(expected: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return what is left open once no worker is ending any more: it is as expected, or stays the same for a while."""
    gc.collect()
    seen, since = left_open(), time.monotonic()
    while seen != expected and time.monotonic() - since < PATIENCE_S:
        time.sleep(0.01)
        if left_open() != seen:
            seen, since = left_open(), time.monotonic()
    return seen


def main(url: str, kind: str) -> None:
    make = LOOPS[kind]

    def in_new_loop(work: Coroutine[Any, Any, None]) -> None:
        run(work, make)

    def one_after_another() -> None:
        store = PerLoop(lambda: open_store(url))
        for _ in range(3):
            in_new_loop(use(store))

    def in_threads() -> None:
        store = PerLoop(lambda: open_store(url))
        threads = [threading.Thread(target=lambda: in_new_loop(use(store))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def closed_from_another_loop() -> None:
        store, in_use, may_end = PerLoop(lambda: open_store(url)), threading.Event(), threading.Event()

        async def hold() -> None:
            await use(store)
            in_use.set()
            await asyncio.to_thread(may_end.wait)
            await use(store)

        holder = threading.Thread(target=lambda: in_new_loop(hold()))
        holder.start()
        in_use.wait()
        in_new_loop(store.aclose())
        may_end.set()
        holder.join()

    def dropped_without_closing() -> None:
        async def drop() -> None:
            await use(PerLoop(lambda: open_store(url)))
            gc.collect()

        in_new_loop(drop())

    ways: list[Callable[[], None]] = [one_after_another, in_threads, closed_from_another_loop, dropped_without_closing]
    one_after_another()
    before = settled()
    for way in ways:
        way()
        if (after := settled(before)) != before:
            sys.stdout.write(f"{way.__name__}: {before} became {after}\n")


main(*sys.argv[1:])
