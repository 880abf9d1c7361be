"""What a store keeps twice is compared with its messages, and put right where it drifted apart."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from redis.asyncio import Redis

from everthread import NewMessage, Retention, ThreadKey, new_message, open_store
from everthread.capabilities import SupportsReconciling, capability
from everthread.engines.redis import RedisStore
from everthread.engines.sqlite import SqliteStore
from everthread.model import Inconsistency
from everthread.operations.repair import repair
from everthread.wrappers import ForwardingStore
from tests.cli.driving import PROGRAM, piped
from tests.places import empty_place
from tests.servers import Server

KEY = ThreadKey("trip", "a")


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


async def drifts(store: SupportsReconciling, tenant: str = "a") -> list[tuple[str, int]]:
    return [(drift.what, drift.count) for drift in await store.reconcile(tenant)]


async def test_a_file_in_order_has_no_inconsistency(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, [said("one"), said("two"), said("three")])
        await store.search("a", "one")
        await store.put_document(KEY, "note", b"{}")
        await store.append(ThreadKey("gone", "a"), [said("x")] * 600)
        await store.truncate(KEY, start=1, stop=2)
        await store.delete_thread(ThreadKey("gone", "a"))
        await store.put_document(ThreadKey("empty", "a"), "note", b"{}")
        assert await store.reconcile(repair=True) == ()
        assert [message.seq for message in await store.read(KEY)] == [1]


async def test_counts_remains_and_index_of_a_file_are_put_right(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        await store.append(KEY, [said("one"), said("two"), said("three")])
        await store.append(ThreadKey("lost", "a"), [said("one")])
        await store.append(ThreadKey("whole", "a"), [said("one")])
        await store.search("a", "one")
        before = await store.get_thread(ThreadKey("whole", "a"))
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("DROP TRIGGER forget_words")
        db.execute("DELETE FROM messages WHERE seq = 0 AND thread = 1")
        db.execute("DELETE FROM threads WHERE thread_id = 'lost'")
        found = await drifts(store)
        assert [count for _, count in found] == [1, 1, 1]
        assert await drifts(store) == found
        await store.reconcile(repair=True)
        assert await drifts(store) == []
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert (thread.count, thread.head_seq) == (2, 1)
        assert thread.size == sum(len(message.payload) for message in await store.read(KEY))
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (3,)
        db.close()
        assert [hit.key.thread_id for hit in await store.search("a", "one")] == ["whole"]
        assert await store.get_thread(ThreadKey("whole", "a")) == before


@pytest.mark.parametrize("engine", ["sqlite", "redis", "postgres", "objects"])
async def test_a_busy_store_is_found_in_order(request: pytest.FixtureRequest, engine: str) -> None:
    url = empty_place(request, engine)
    async with open_store(url) as store, open_store(url) as examined:
        assert capability(examined, SupportsReconciling)
        await asyncio.gather(*(store.append(ThreadKey(str(number), "a"), [said("x")] * 3) for number in range(5)))
        is_done = asyncio.Event()

        async def write(key: ThreadKey) -> None:
            number = 0
            while not is_done.is_set():
                number += 1
                await store.append(key, [said("y")] * 2, retention=Retention(max_messages=40))
                if number % 5 == 0:
                    await store.truncate(key, stop=(await store.read_last(key, 1)).next_seq - 1)

        writers = [asyncio.create_task(write(ThreadKey(str(number), "a"))) for number in range(5)]
        try:
            for _ in range(5):
                assert await examined.reconcile("a") == ()
                assert [outcome async for outcome in repair(examined, "a")] == []
        finally:
            is_done.set()
            await asyncio.gather(*writers)
        assert await examined.reconcile("a") == ()


async def test_a_thread_that_is_written_to_has_no_wrong_count(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, [said("x")])

        class Busy(ForwardingStore):
            async def read(self, key, *, start=0, stop=None, limit=None):
                await store.append(key, [said("y")])
                return await store.read(key, start=start, stop=stop, limit=limit)

        assert [outcome async for outcome in repair(Busy(store), "a")] == []


async def test_threads_that_redis_does_not_list_are_listed_again(plain_redis_server: Server, fresh_prefix: str) -> None:
    port = plain_redis_server.port
    keys = [ThreadKey(name, "a") for name in ("plain", "a:b", "*?[x]", "é")]
    async with Redis(port=port) as client, RedisStore.from_client(client, prefix=fresh_prefix) as store:
        for key in keys:
            await store.append(key, [said("x")])
        await store.append(ThreadKey("other", "b"), [said("x")])
        before = sorted((await store.list_threads("a")).items, key=lambda thread: thread.key)
        assert await drifts(store) == []
        await client.delete(f"{{{fresh_prefix}@a}}:recent")
        assert await drifts(store) == [("threads that no listing shows", 4)]
        assert len(await store.list_threads("a")) == 0
        assert await store.reconcile("a", repair=True) == (
            Inconsistency("threads that no listing shows", 4, repaired=True),
        )
        assert sorted((await store.list_threads("a")).items, key=lambda thread: thread.key) == before
        assert await drifts(store) == []


async def test_lists_that_another_program_wrote_are_listed_too(
    plain_redis_server: Server, fresh_prefix: str, tmp_path: Path
) -> None:
    port = plain_redis_server.port
    url = f"redis://127.0.0.1:{port}?prefix={fresh_prefix}"
    row = '{"type":"chat_message","role":{"type":"role","value":"user"},"contents":[{"type":"text","text":"Hello"}]}'
    async with Redis(port=port) as client, open_store(url) as store:
        await client.rpush(f"{fresh_prefix}:thread_1", row, row)
        doctor = (PROGRAM, "doctor", "--store", url, "--repair")
        dry = piped("", "--dry-run", home=tmp_path, program=doctor)
        assert (dry.returncode, dry.stdout) == (1, "found 1 threads that no listing shows\n")
        assert len(await store.list_threads()) == 0
        done = piped("", "--yes", "--backup", str(tmp_path / "backup"), home=tmp_path, program=doctor)
        assert done.returncode == 0, done.stderr
        assert [(thread.key.thread_id, thread.count) for thread in await store.list_threads()] == [("thread_1", 2)]
        assert await client.lrange(f"{fresh_prefix}:thread_1", 0, -1) == [row.encode()] * 2
