"""What PostgreSQL keeps twice: found where it drifted from the messages, put right, and never disturbed by writers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from everthread import NewMessage, Retention, Rewrite, SupportsSearch, ThreadKey, new_message, open_store
from everthread.capabilities import SupportsReconciling
from everthread.engines.postgres import PostgresStore, SearchingPostgresStore
from everthread.engines.postgres.search import Indexing, Language
from everthread.model import Inconsistency
from tests.cli.driving import PROGRAM, piped

pytestmark = pytest.mark.slow

KEY = ThreadKey("trip", "a")


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


@pytest.fixture
async def admin(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.partition("?")[0])
    await connection.execute(f"SET search_path = {url.partition('schema=')[2]}")
    yield connection
    await connection.close()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(url) as store:
        assert isinstance(store, PostgresStore)
        yield store


async def drifts(store: SupportsReconciling) -> list[tuple[str, int]]:
    return [(drift.what, drift.count) for drift in await store.reconcile()]


async def found(store: SupportsSearch, text: str, tenant: str = "a") -> list[int]:
    return [hit.seq for hit in await store.search(tenant, text)]


def searching(url: str, **options: str) -> SearchingPostgresStore:
    store = open_store(f"{url}&search=true", **options)
    assert isinstance(store, SearchingPostgresStore)
    return store


class TestReconciling:
    async def test_a_store_in_order_has_no_drift(self, url: str) -> None:
        now = 1_700_000_000.0
        async with open_store(f"{url}&search=true", clock=lambda: now) as store:
            assert isinstance(store, SearchingPostgresStore)
            await store.append(KEY, [said(str(number)) for number in range(9)], retention=Retention(max_messages=7))
            await store.truncate(KEY, start=3, stop=6)
            await store.append(KEY, [said("é" * 99)])
            await store.rewrite(KEY, [Rewrite(9, said("é" * 99).payload, said("longer").payload)])
            await store.put_document(ThreadKey("empty"), "note", b"{}")
            await store.append(ThreadKey("undone"), [said("x")] * 3)
            await store.truncate(ThreadKey("undone"), stop=0)
            await store.append(ThreadKey("gone"), [said("x")])
            await store.delete_thread(ThreadKey("gone"))
            await store.append(ThreadKey("over"), [said("x")], retention=Retention(expire_after=timedelta(seconds=1)))
            now += 5
            await store.append(ThreadKey("over"), [said("x")])
            assert await store.reconcile(repair=True) == ()
            assert [message.seq for message in await store.read(KEY)] == [3, 4, 5, 9]

    async def test_counts_are_put_right(self, store: PostgresStore, admin: asyncpg.Connection) -> None:
        keys = [ThreadKey(name, "a") for name in ("count", "size", "head", "next", "lost", "whole")]
        for key in keys:
            await store.append(key, [said("one"), said("two"), said("three")])
        before = {key: await store.get_thread(key) for key in keys}
        for name, change in (
            ("count", "count = 9"), ("size", "size = 1"), ("head", "head_seq = 1"), ("next", "next_seq = 2"),
        ):  # fmt: skip
            await admin.execute(f"UPDATE threads SET {change} WHERE thread_id = '{name}'")
        await admin.execute(
            "DELETE FROM messages WHERE seq = 0 AND thread = (SELECT id FROM threads WHERE thread_id = 'lost')"
        )
        assert await drifts(store) == [("threads with wrong counts", 5)]
        assert await store.reconcile(repair=True) == (Inconsistency("threads with wrong counts", 5, repaired=True),)
        assert await drifts(store) == []
        for key in keys:
            if key.thread_id != "lost":
                assert await store.get_thread(key) == before[key]
        lost = await store.get_thread(keys[4])
        assert lost is not None
        assert (lost.count, lost.head_seq, lost.next_seq) == (2, 1, 3)
        assert lost.size == sum(len(message.payload) for message in await store.read(keys[4]))
        assert (await store.append(keys[3], [said("four")])).first_seq == 3

    async def test_what_threads_left_behind_is_removed(self, store: PostgresStore, admin: asyncpg.Connection) -> None:
        for name in ("lost", "half", "whole"):
            await store.append(ThreadKey(name), [said("x")] * 3)
            await store.put_document(ThreadKey(name), "note", b"{}")
        await admin.execute("DELETE FROM threads WHERE thread_id <> 'whole'")
        await admin.execute("DELETE FROM messages WHERE thread = (SELECT min(thread) FROM messages)")
        assert await drifts(store) == [("rows of missing threads", 2)]
        assert await drifts(store) == [("rows of missing threads", 2)]
        await store.reconcile(repair=True)
        assert await drifts(store) == []
        for table, left in (("messages", 3), ("appends", 1), ("documents", 1), ("erased", 0)):
            assert await admin.fetchval(f"SELECT count(*) FROM {table}") == left
        assert len(await store.read(ThreadKey("whole"))) == 3

    async def test_all_of_many_threads_are_looked_at(self, store: PostgresStore, admin: asyncpg.Connection) -> None:
        await admin.execute(
            "INSERT INTO threads (tenant, thread_id, count, created_ms, updated_ms) "
            "SELECT 'a', n, CASE WHEN n = 7 THEN 200000 ELSE n % 2 END, 0, 0 FROM generate_series(1, 1200) n"
        )
        await admin.execute(
            "INSERT INTO documents (thread, name, value, revision, updated_ms) "
            "SELECT n, 'note', '{}', 1, 0 FROM generate_series(5000, 7100) n"
        )
        problems = [("threads with wrong counts", 600), ("rows of missing threads", 2101)]
        assert await drifts(store) == problems
        await store.reconcile(repair=True)
        assert await drifts(store) == []

    async def test_writers_at_work_are_no_drift(self, store: PostgresStore, url: str) -> None:
        async with open_store(url, retention=Retention(max_messages=5)) as other:

            async def write(number: int) -> None:
                key = ThreadKey(str(number), "a")
                for turn in range(25):
                    await other.append(key, [said("x"), said("y" * turn)])
                    if turn % 10 == 9:
                        await other.truncate(key, stop=turn)
                    if turn % 12 == 11:
                        await other.delete_thread(key)

            writing = asyncio.gather(*(write(number) for number in range(8)))
            rounds = 0
            while not writing.done() or not rounds:
                assert await store.reconcile(repair=rounds % 2 == 0) == ()
                rounds += 1
            await writing

    async def test_the_doctor_tells_and_mends_it(
        self, store: PostgresStore, admin: asyncpg.Connection, url: str, tmp_path: Path
    ) -> None:
        await store.append(ThreadKey("trip"), [said("to rome")])
        await admin.execute("UPDATE threads SET size = 9")
        doctor = (PROGRAM, "doctor", "--store", f"{url}&search=true", "--repair")

        async def run(*arguments: str) -> tuple[int, str]:
            done = await asyncio.to_thread(piped, "", *arguments, home=tmp_path, program=doctor)
            return done.returncode, done.stdout

        problems = ("threads with wrong counts", "messages that search does not find")
        status, told = await run("--dry-run")
        assert (status, told.splitlines()[:2]) == (1, [f"found 1 {problem}" for problem in problems])
        status, told = await run("--yes", "--backup", str(tmp_path / "backup"))
        assert status == 0
        assert [f"repaired 1 {problem}" in told for problem in problems] == [True, True]
        assert await run("--dry-run") == (0, "")
        async with searching(url) as late:
            assert await found(late, "rome", "") == [0]


class TestIndexing:
    async def test_messages_from_before_search_are_found_afterwards(self, store: PostgresStore, url: str) -> None:
        for tenant in ("a", "b"):
            await store.append(ThreadKey("trip", tenant), [said(f"rome {number}") for number in range(3)])
        async with searching(url) as late:
            await late.append(KEY, [said("rome again")])
            assert await found(late, "rome") == [3]
            assert await drifts(late) == [("messages that search does not find", 6)]
            assert await late.index() == 6
            assert await found(late, "rome") == [3, 2, 1, 0]
            assert await found(late, "rome", "b") == [2, 1, 0]
            assert await late.index() == 0
            assert await drifts(late) == []

    async def test_reconciling_indexes_too(self, store: PostgresStore, url: str) -> None:
        await store.append(KEY, [said("rome")])
        async with searching(url) as late:
            assert await late.reconcile(repair=True) == (
                Inconsistency("messages that search does not find", 1, repaired=True),
            )
            assert await found(late, "rome") == [0]

    async def test_another_language_is_taken_up(self, url: str) -> None:
        async with searching(url) as plain:
            await plain.append(KEY, [said("She was travelling")])
        async with searching(url, search_language="english") as english:
            assert await found(english, "travels") == []
            assert await english.index() == 1
            assert await found(english, "travels") == [0]
        async with searching(url) as plain:
            assert await found(plain, "travelling") == []
            assert await plain.index() == 1
            assert await found(plain, "travelling") == [0]

    async def test_it_goes_on_where_it_was_stopped(self, store: PostgresStore, url: str) -> None:
        for name in ("one", "other"):
            await store.append(ThreadKey(name, "a"), [said("rome")] * 250)
        parts: list[int] = []

        def stop_at_the_third(part: int) -> None:
            parts.append(part)
            if len(parts) == 3:
                raise KeyboardInterrupt

        async with searching(url) as late:
            with pytest.raises(KeyboardInterrupt):
                await late.index(advance=stop_at_the_third)
            assert parts == [200, 50, 200]
            assert await late.index() == 50
            assert len(await late.search("a", "rome", limit=600)) == 500

    async def test_large_messages_are_read_a_few_at_a_time(self, store: PostgresStore, url: str) -> None:
        for _ in range(5):
            await store.append(KEY, [said("x" * 3_000_000)])
        parts: list[int] = []
        async with searching(url) as late:
            await late.index(advance=parts.append)
        assert parts == [3, 2]

    async def test_what_somebody_writes_to_is_passed_over(
        self, store: PostgresStore, admin: asyncpg.Connection, url: str
    ) -> None:
        await store.append(KEY, [said("rome")] * 5)
        async with searching(url) as late:
            async with admin.transaction():
                await admin.execute("SELECT FROM messages WHERE seq = 2 FOR UPDATE")
                assert await late.index() == 4
            assert await late.index() == 1
            assert len(await late.search("a", "rome")) == 5

    async def test_what_was_rewritten_meanwhile_keeps_its_new_words(self, store: PostgresStore, url: str) -> None:
        await store.append(KEY, [said("rome"), said("rome")])
        async with searching(url) as late:

            async def rewriting_first(query: str, *args: object) -> object:
                if query == "index_messages" and args[1] == [0, 1]:
                    change = Rewrite(0, said("rome").payload, said("ostia").payload)
                    assert await store.rewrite(KEY, [change]) == 1
                return await late._connections.append(query, *args)

            indexing = Indexing(rewriting_first, Language("simple"), lambda messages: None)
            assert await indexing.run() == 2
            assert await found(late, "rome") == [1]
            assert await found(late, "ostia") == [0]

    async def test_it_ends_though_somebody_goes_on_writing_without_search(self, store: PostgresStore, url: str) -> None:
        await store.append(KEY, [said("rome")] * 5)
        async with searching(url) as late:

            async def writing_meanwhile(query: str, *args: object) -> object:
                if query == "index_messages":
                    assert (await store.append(KEY, [said("ostia")])).first_seq < 10, "it does not end"
                return await late._connections.append(query, *args)

            indexing = Indexing(writing_meanwhile, Language("simple"), lambda messages: None)
            assert await indexing.run() == 5
            assert await late.index() == 1

    async def test_a_rewriting_store_without_search_leaves_no_old_words(self, store: PostgresStore, url: str) -> None:
        async with searching(url) as late:
            await late.append(KEY, [said("rome")])
            await store.rewrite(KEY, [Rewrite(0, said("rome").payload, said("ostia").payload)])
            assert await found(late, "rome") == []
            assert await late.index() == 1
            assert await found(late, "ostia") == [0]
