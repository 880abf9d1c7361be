"""Measure export, import and copy of 100,000 messages: python -m bench.moving

For each engine, messages a second and the most memory of the process that does it, beside a bare script: the
engine's driver alone, which moves payloads in pages of 1,000 and checks, compares and orders nothing. The two take
turns, each in a process of its own, so that what else runs on the machine meets both. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import redis as redis_py

from bench.workload import turn
from everthread import ThreadKey, open_store
from everthread.transfer import copy_threads, export_threads, import_threads
from tests.servers import redis_server, scratch_folder

PAGE = 1000
ENGINES = ("sqlite", "redis")
WAYS = ("export", "import", "copy")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.moving", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="how many are moved")
    parser.add_argument("--threads", type=int, default=100, help="in how many threads they lie")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with scratch_folder() as folder, redis_server() as server:
        for engine in ENGINES:
            place = Places(engine, folder, server.port)
            asyncio.run(fill(place.url("source"), options.messages // 4, options.threads))
            once(place, "export", "ours", "source", "import")
            fill_bare(place, options.messages // 4)
            once(place, "export", "bare", "source", "import")
            for way in WAYS:
                show(engine, way, measured(place, way, options.rounds), options.messages)


class Places:
    """The locations of the stores of a run: URLs for everthread, and the arguments of the bare driver."""

    def __init__(self, engine: str, folder: Path, port: int) -> None:
        self.engine = engine
        self._folder = folder
        self._port = port

    def url(self, name: str) -> str:
        if self.engine == "sqlite":
            return f"sqlite:///{self._folder}/{name}.db"
        return f"redis://127.0.0.1:{self._port}/0?prefix={name}"

    def bare(self, name: str) -> str:
        if self.engine == "sqlite":
            return f"sqlite:{self._folder}/bare-{name}.db"
        return f"redis:{self._port}:{name}"

    def file(self, name: str) -> str:
        return str(self._folder / f"{self.engine}-{name}.jsonl")


async def fill(url: str, turns: int, threads: int) -> None:
    async with open_store(url) as store:
        for first in range(0, turns, 500):
            numbers = range(first, min(first + 500, turns))
            await asyncio.gather(*(store.append(ThreadKey(f"t{n % threads}"), turn(n).messages) for n in numbers))


def fill_bare(place: Places, turns: int) -> None:
    payloads = (payload for number in range(turns) for payload in turn(number).payloads)
    with bare(place.bare("source")) as store:
        for page in pages(payloads):
            store.add(page)


def measured(place: Places, way: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for number in range(rounds):
        for who, results in found.items():
            results.append(once(place, way, who, "source", f"{way}{number}"))
    return found


def once(place: Places, way: str, who: str, source: str, target: str) -> tuple[float, float]:
    """Return the seconds and MB of one run in a process of its own."""
    url = place.url if who == "ours" else place.bare
    first = place.file(f"{who}-import") if way == "import" else url(source)
    second = place.file(f"{who}-{target}") if way == "export" else url(target)
    command = [sys.executable, "-m", "bench.moving", "--one", way, who, first, second]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def show(engine: str, way: str, found: dict[str, list[tuple[float, float]]], messages: int) -> None:
    seconds = {who: statistics.median(each[0] for each in runs) for who, runs in found.items()}
    memory = {who: statistics.median(each[1] for each in runs) for who, runs in found.items()}
    print(
        f"{engine:7} {way:7} {messages / seconds['ours']:9,.0f} messages/s  {memory['ours']:5.0f} MB   "
        f"bare {messages / seconds['bare']:9,.0f}/s {memory['bare']:5.0f} MB   "
        f"{seconds['ours'] / seconds['bare']:.1f} × its time",
        flush=True,
    )


# What runs in a process of its own


def one(way: str, who: str, first: str, second: str) -> None:
    began = time.perf_counter()
    if who == "ours":
        asyncio.run(ours(way, first, second))
    else:
        BARE[way](first, second)
    seconds = time.perf_counter() - began
    # Linux counts kilobytes, macOS bytes.
    unit = 1_000_000 if sys.platform == "darwin" else 1_000
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


async def ours(way: str, first: str, second: str) -> None:
    if way == "export":
        async with open_store(first) as store:
            report = await export_threads(store, second)
    elif way == "import":
        async with open_store(second) as store:
            report = await import_threads(store, first)
    else:
        async with open_store(first) as store, open_store(second) as target:
            report = await copy_threads(store, target)
    assert report.is_complete, report


class BareSqlite:
    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS messages (payload BLOB)")

    def pages(self) -> Iterator[Sequence[bytes]]:
        cursor = self._db.execute("SELECT payload FROM messages ORDER BY rowid")
        while rows := cursor.fetchmany(PAGE):
            yield [row[0] for row in rows]

    def add(self, page: Sequence[bytes]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO messages VALUES (?)", [(payload,) for payload in page])
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


class BareRedis:
    def __init__(self, port: int, name: str) -> None:
        self._client = redis_py.Redis(port=port)
        self._name = f"bare:{name}"

    def pages(self) -> Iterator[Sequence[bytes]]:
        start = 0
        while found := cast(list[bytes], self._client.lrange(self._name, start, start + PAGE - 1)):
            yield found
            start += PAGE

    def add(self, page: Sequence[bytes]) -> None:
        self._client.rpush(self._name, *page)

    def close(self) -> None:
        self._client.close()


@contextmanager
def bare(place: str) -> Generator[Any]:
    engine, _, rest = place.partition(":")
    port, _, name = rest.partition(":")
    with closing(BareSqlite(rest) if engine == "sqlite" else BareRedis(int(port), name)) as store:
        yield store


def bare_export(place: str, path: str) -> None:
    with bare(place) as store, Path(path).open("wb") as file:
        for page in store.pages():
            file.writelines(payload + b"\n" for payload in page)


def bare_import(path: str, place: str) -> None:
    with bare(place) as store, Path(path).open("rb") as file:
        for page in pages(file):
            for line in page:
                json.loads(line)
            store.add([line[:-1] for line in page])


def bare_copy(source: str, target: str) -> None:
    with bare(source) as first, bare(target) as second:
        for page in first.pages():
            second.add(page)


BARE: dict[str, Callable[[str, str], None]] = {"export": bare_export, "import": bare_import, "copy": bare_copy}


def pages(payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
    iterator = iter(payloads)
    while page := list(islice(iterator, PAGE)):
        yield page


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        main()
