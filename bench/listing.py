"""Measure `everthread threads` with 1,000 and with 100,000 threads in the store: python -m bench.listing

A page of 20 threads in this process, and the whole command with its start. The two stores take turns, so
that what else runs on the machine meets both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path

import asyncpg

from everthread import Store, ThreadKey, new_message, open_store
from tests.postgres_server import fresh_url, postgres_server
from tests.servers import redis_server, scratch_folder

FEW, MANY = 1_000, 100_000
PAGE = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.listing", description=__doc__)
    parser.add_argument("--many", type=int, default=MANY, help="how many threads the larger store has")
    options = parser.parse_args()
    with ExitStack() as stack:
        for name, pair in stack.enter_context(places()).items():
            fill_both(pair, options.many)
            show(name, "a page of 20, in the process", asyncio.run(time_pages(pair)), options.many)
            show(name, "the command, with its start", time_commands(pair), options.many)


@contextmanager
def places() -> Iterator[dict[str, tuple[str, str]]]:
    """Yield the URLs of two stores for each engine."""
    with scratch_folder() as folder, redis_server() as server, postgres_server() as postgres:
        redis = f"redis://127.0.0.1:{server.port}/0?prefix="
        yield {
            "sqlite": (f"sqlite:///{folder}/few.db", f"sqlite:///{folder}/many.db"),
            "redis": (f"{redis}few", f"{redis}many"),
            "postgres": (fresh_url(postgres), fresh_url(postgres)),
        }


def fill_both(pair: tuple[str, str], many: int) -> None:
    """Fill the two stores in another process, because child processes begin with the memory of this one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for url, count in zip(pair, (FEW, many), strict=True):
            pool.submit(_fill, url, count).result()


def _fill(url: str, count: int) -> None:
    asyncio.run(fill(url, count))


async def fill(url: str, count: int) -> None:
    async with open_store(url) as store:
        for first in range(0, count, 1000):
            await asyncio.gather(*(begin(store, number) for number in range(first, first + 1000)))
    if url.startswith("postgresql"):
        # As autovacuum does within a minute: without statistics the planner guesses, each time another way.
        connection = await asyncpg.connect(url.partition("?")[0])
        await connection.execute("VACUUM ANALYZE")
        await connection.close()


async def begin(store: Store, number: int) -> None:
    message = new_message({"role": "user", "content": f"question {number}"})
    await store.append(ThreadKey(f"thread-{number}"), [message], default_title=f"Trip {number}")


async def time_pages(pair: tuple[str, str]) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    async with open_store(pair[0]) as few, open_store(pair[1]) as many:
        for _ in range(300):
            for store, found in zip((few, many), times, strict=True):
                began = time.perf_counter()
                await store.list_threads(limit=PAGE)
                found.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def time_commands(pair: tuple[str, str]) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    program = str(Path(sys.executable).with_name("everthread"))
    for _ in range(11):
        for url, found in zip(pair, times, strict=True):
            began = time.perf_counter()
            command = [program, "threads", "-n", str(PAGE), "--store", url]
            subprocess.run(command, check=True, capture_output=True, env=os.environ)
            found.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def show(engine: str, what: str, medians: tuple[float, float], many: int) -> None:
    few, more = (median * 1000 for median in medians)
    sizes = f"{FEW:,}: {few:7.2f} ms   {many:,}: {more:7.2f} ms"
    print(f"{engine:8} {what:30} {sizes}   ratio {more / few:.2f}", flush=True)


if __name__ == "__main__":
    main()
