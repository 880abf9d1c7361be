"""Each call costs just what the table of engines says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from everthread import Retention, Store, ThreadKey, open_store
from everthread.engines._segments.directory import DirectoryStorage
from everthread.engines._segments.log import Fence
from everthread.engines.objects import ObjectStore
from everthread.testing.guarantees._base import KEY, said
from tests.meters import CountedStorage, CountingProxy, Waves, commits
from tests.postgres_server import PostgresServer, fresh_url
from tests.servers import Server
from tools.docs.profiles import CALLS, MEMORY, OBJECTS, POSTGRES, REDIS, SQLITE, Cost, Profile

pytestmark = pytest.mark.slow

TRIMMED = Retention(max_messages=40)

OPERATIONS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "append": lambda store: store.append(KEY, [said("a"), said("b")]),
    "append trimmed": lambda store: store.append(KEY, [said("a"), said("b")], retention=TRIMMED),
    "read_last": lambda store: store.read_last(KEY, 20),
    "read": lambda store: store.read(KEY, start=1, limit=20),
    "get_thread": lambda store: store.get_thread(KEY),
    "list_threads": lambda store: store.list_threads(KEY.tenant, limit=20),
    "update_thread": lambda store: store.update_thread(KEY, title="title"),
    "truncate": lambda store: store.truncate(KEY, stop=41),
    "get_document": lambda store: store.get_document(KEY, "d"),
    "put_document": lambda store: store.put_document(KEY, "d", b"2"),
    "list_documents": lambda store: store.list_documents(KEY, prefix="d", limit=20),
    "delete_thread": lambda store: store.delete_thread(KEY),
}


async def fill(store: Store) -> None:
    """A thread of 42 messages with a document, and 29 others; each kind of call has been made before."""
    for number in range(29):
        await store.append(ThreadKey(f"other {number}", KEY.tenant), [said("x")])
    for number in range(21):
        await store.append(KEY, [said(f"{number}a"), said(f"{number}b")])
    await store.put_document(KEY, "d", b"1")
    other = ThreadKey("warming up", "another tenant")
    await store.append(other, [said("x")], retention=TRIMMED)
    await store.update_thread(other, title="x")
    await store.truncate(other, stop=0)
    await store.read(other, start=1)
    await store.get_document(other, "d")
    await store.get_thread(other)
    await store.put_document(other, "d", b"1")
    await store.list_documents(other)
    await store.delete_thread(other)
    await store.list_threads(KEY.tenant, limit=20)
    await store.read_last(KEY, 20)


@asynccontextmanager
async def counting(watched: CountingProxy | CountedStorage) -> AsyncIterator[Waves]:
    """Counts what goes through ``watched`` meanwhile."""
    waves = watched.waves = Waves()
    letting_through = asyncio.create_task(waves.run())
    try:
        yield waves
    finally:
        watched.waves = None
        letting_through.cancel()


async def measured(store: Store, call: str, watched: CountingProxy | CountedStorage) -> Cost:
    async with counting(watched) as waves:
        await asyncio.wait_for(OPERATIONS[call](store), 30)
        waits = waves.waits
        return Cost(waits, await settled(lambda: waves.requests))


def counted(profile: Profile, call: str) -> Cost:
    claimed = profile.costs[call]
    return Cost(claimed.waits, claimed.requests)


async def settled(count: Callable[[], int]) -> int:
    """A count, when what nobody waits for has been done too: when it stays the same for half a second."""
    seen = -1
    while seen != (now := count()):
        seen = now
        await asyncio.sleep(0.5)
    return seen


def test_each_call_of_the_table_is_measured() -> None:
    assert list(OPERATIONS) == list(CALLS)
    assert all(list(profile.costs) == list(CALLS) for profile in (MEMORY, SQLITE, REDIS, POSTGRES, OBJECTS))


@pytest.mark.parametrize("call", CALLS)
async def test_redis(plain_redis_server: Server, fresh_prefix: str, call: str) -> None:
    async with (
        CountingProxy("127.0.0.1", plain_redis_server.port).running() as proxy,
        open_store(f"redis://127.0.0.1:{proxy.port}", prefix=fresh_prefix) as store,
    ):
        await fill(store)
        assert await measured(store, call, proxy) == counted(REDIS, call)


@pytest.mark.parametrize("call", CALLS)
async def test_postgres(postgres: PostgresServer, call: str) -> None:
    async with CountingProxy("127.0.0.1", postgres.port).running() as proxy:
        url = fresh_url(postgres).replace(str(postgres.port), str(proxy.port))
        async with open_store(url) as store:
            await fill(store)
            assert await measured(store, call, proxy) == counted(POSTGRES, call)


@pytest.mark.parametrize("call", CALLS)
async def test_segments(tmp_path: Path, call: str) -> None:
    storage = CountedStorage(DirectoryStorage(tmp_path, sync=False))
    # No two threads share a millisecond, in which a page would have to read all of them to order them, and no former
    # marker comes due while a call is measured.
    ticks, fence = itertools.count(1_700_000_000), Fence(listing_s=3600)
    async with ObjectStore(storage, clock=lambda: float(next(ticks)), fence=fence) as store:
        await fill(store)
        assert await measured(store, call, storage) == counted(OBJECTS, call)


@pytest.mark.parametrize("call", CALLS)
async def test_sqlite(tmp_path: Path, call: str) -> None:
    async with open_store(f"sqlite:///{tmp_path}/threads.db") as store:
        await fill(store)
        before = commits(tmp_path / "threads.db")
        await OPERATIONS[call](store)
        assert await settled(lambda: commits(tmp_path / "threads.db") - before) == SQLITE.costs[call].requests
