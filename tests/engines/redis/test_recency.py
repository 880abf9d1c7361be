"""The recency index of a cluster: notes of activity, inconsistencies, and their repair."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import redis as redis_py

from everthread import (
    Store,
    StoreUnavailableError,
    ThreadKey,
    open_store,
)
from everthread.capabilities import SupportsReconciling, capability
from everthread.engines.redis.keys import ThreadNames, slot_of
from everthread.engines.redis.recency import Recency
from everthread.engines.redis.scripts import NOTE, Script
from tests.cli.driving import PROGRAM, piped
from tests.engines.redis.fronts import front, once
from tests.engines.redis.turns import KEY, said
from tests.redis_topologies import (
    Cluster,
    ask,
    cluster_of_one,
)
from tests.servers import Server

pytestmark = pytest.mark.slow


async def test_the_next_activity_repairs_a_lost_index(cluster: Cluster, fresh_prefix: str) -> None:
    index = ThreadNames(fresh_prefix, KEY).index
    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        await store.append(KEY, [said("a")], append_id="a")
        assert len(await store.list_threads()) == 1
        ask(cluster.owner(slot_of(index)).port, "DEL", index.decode())
        assert len(await store.list_threads()) == 0
        assert (await store.append(KEY, [said("a")], append_id="a")).replayed
        assert len(await store.list_threads()) == 1


async def test_a_listing_removes_index_entries_without_a_thread(cluster: Cluster, fresh_prefix: str) -> None:
    index = ThreadNames(fresh_prefix, KEY).index
    server = cluster.owner(slot_of(index))
    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        await store.append(KEY, [said("a")])
        await store.list_threads()
        ask(server.port, "ZADD", index.decode(), "5", "never was")
        assert [thread.key for thread in await store.list_threads()] == [KEY]
        await store.list_threads()
        assert ask(server.port, "ZCARD", index.decode()) == 1


DYING = """
import asyncio, sys
from datetime import UTC, datetime
from everthread import ThreadKey, new_message, open_store

async def main(url, thread_id, last_deed):
    async with open_store(url) as store:
        key = ThreadKey(thread_id)
        if last_deed == "append":
            await store.append(key, [new_message({"role": "user", "content": "last words"})])
        elif last_deed == "document":
            await store.put_document(key, "d", b"1")
        elif last_deed == "restore":
            await store.restore_times(key, created_at=datetime(2020, 1, 1), updated_at=datetime(2020, 1, 2))
        else:
            await store.delete_thread(key)
        print("done", flush=True)
        sys.stdin.readline()  # nothing else of this process gets its turn, so no note is sent

asyncio.run(main(*sys.argv[1:]))
"""


def die_before_the_note(url: str, key: ThreadKey, last_deed: str) -> None:
    """Another process does something to a thread, and is killed when it is done and before the index knows."""
    command = [sys.executable, "-c", DYING, url, key.thread_id, last_deed]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"done\n"
        finally:
            process.kill()


async def drifts(store: Store, *, repair: bool = False) -> list[tuple[str, int, bool]]:
    assert capability(store, SupportsReconciling)
    return [(drift.what, drift.count, drift.repaired) for drift in await store.reconcile(repair=repair)]


async def listed(store: Store) -> list[tuple[str, int]]:
    return [(thread.key.thread_id, thread.updated_ms) for thread in await store.list_threads()]


@pytest.mark.parametrize("last_deed", ["append", "document"])
async def test_reconcile_lists_threads_whose_process_died(cluster: Cluster, fresh_prefix: str, last_deed: str) -> None:
    url = f"{cluster.url}?prefix={fresh_prefix}"
    # One of each form of a thread's keys, and on different servers.
    keys = [ThreadKey(name) for name in ("plain", "{tag}ged", "a}b", "*?[x]", "é")]
    async with open_store(url) as store:
        await store.append(ThreadKey("listed"), [said("a")])
        await store.append(ThreadKey("another's", "tenant"), [said("a")])
        before = await listed(store)
        for key in keys:
            await asyncio.to_thread(die_before_the_note, url, key, last_deed)
        assert await listed(store) == before
        assert await drifts(store) == [("threads that no listing shows", 5, False)]
        assert await listed(store) == before
        assert await drifts(store, repair=True) == [("threads that no listing shows", 5, True)]
        assert await drifts(store) == []
        threads = {thread.key: thread for thread in await store.list_threads()}
        assert set(threads) == {ThreadKey("listed"), *keys}
        for key in keys:
            assert threads[key] == await store.get_thread(key)


@pytest.mark.parametrize("last_deed", ["append", "restore"])
async def test_reconcile_corrects_the_time_of_a_listed_thread(
    cluster: Cluster, fresh_prefix: str, last_deed: str
) -> None:
    url = f"{cluster.url}?prefix={fresh_prefix}"
    other = ThreadKey("other")
    async with open_store(url) as store:
        for key in (KEY, other):
            await store.append(key, [said("a")])
        await store.list_threads()
        await asyncio.to_thread(die_before_the_note, url, KEY if last_deed == "append" else other, last_deed)
        assert await drifts(store, repair=True) == [("threads that are listed with another time", 1, True)]
        assert [name for name, _ in await listed(store)] == ["conversation", "other"]
        threads = [await store.get_thread(key) for key in (KEY, other)]
        assert await listed(store) == [(thread.key.thread_id, thread.updated_ms) for thread in threads if thread]
        assert await drifts(store) == []


async def test_doctor_repairs_the_index_of_a_cluster(cluster: Cluster, fresh_prefix: str, tmp_path: Path) -> None:
    url = f"{cluster.url}?prefix={fresh_prefix}"
    index = ThreadNames(fresh_prefix, KEY).index
    doctor = (PROGRAM, "doctor", "--store", url, "--repair")
    async with open_store(url) as store:
        await store.append(ThreadKey("gone"), [said("a")])
        await store.list_threads()
        await asyncio.to_thread(die_before_the_note, url, ThreadKey("gone"), "delete")
        await asyncio.to_thread(die_before_the_note, url, KEY, "append")
        dry = await asyncio.to_thread(piped, "", "--dry-run", home=tmp_path, program=doctor)
        assert (dry.returncode, dry.stdout) == (1, "found 1 threads that no listing shows\n")
        done = await asyncio.to_thread(piped, "", "--yes", home=tmp_path, program=doctor)
        assert done.returncode == 0, done.stderr
        assert [name for name, _ in await listed(store)] == ["conversation"]
    assert ask(cluster.owner(slot_of(index)).port, "ZCARD", index.decode()) == 1


async def test_a_reconciliation_that_loses_its_server_raises_an_error(fresh_prefix: str) -> None:
    with cluster_of_one() as server:
        async with front(server.port, once(b"SCAN")) as lossy:
            url = f"redis://127.0.0.1:{lossy.port}?spread=true&prefix={fresh_prefix}"
            async with open_store(url) as store:
                await store.append(KEY, [said("a")])
                with pytest.raises(StoreUnavailableError):
                    await drifts(store)
                assert lossy.lost == 1
                assert await drifts(store) == []


def names(thread_id: str) -> ThreadNames:
    return ThreadNames("prefix", ThreadKey(thread_id), spread=True)


async def test_two_restored_times_become_one_note() -> None:
    sent: list[list[bytes]] = []

    async def run(_: Script, __: bytes, notes: list[bytes]) -> None:
        sent.append(notes)

    recency = Recency(run)
    recency.was_restored(names("thread"), 5, 10)
    recency.was_restored(names("thread"), 7, 5)
    recency.was_restored(names("other"), 7, 5)
    recency.was_active(names("other"), 8)
    await recency.settled()
    assert sent == [[b"7-10", b"thread", b"8", b"other"]]
    await recency.close()


async def test_an_older_deletion_keeps_the_note_of_an_append() -> None:
    sent: list[list[bytes]] = []

    async def run(_: Script, __: bytes, notes: list[bytes]) -> None:
        sent.append(notes)

    recency = Recency(run)
    recency.was_active(names("again"), 10)
    recency.was_gone(names("again"), 6)
    recency.was_active(names("gone"), 10)
    recency.was_gone(names("gone"), 11)
    await recency.settled()
    assert sent == [[b"10", b"again", b"-11", b"gone"]]
    await recency.close()


@pytest.mark.parametrize(("gone_at", "left"), [("9", 1), ("10", 1), ("11", 0)])
def test_a_late_note_of_a_deletion_keeps_a_restarted_thread(
    plain_redis_server: Server, fresh_prefix: str, gone_at: str, left: int
) -> None:
    with redis_py.Redis(port=plain_redis_server.port) as client:
        client.eval(NOTE.source, 1, fresh_prefix, "10", "thread", f"-{gone_at}", "thread")
        assert client.zcard(fresh_prefix) == left
