"""The SQLite engine keeps every guarantee; and what is its own: cost, group commit, other processes, its threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import itertools
import re
import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from everthread import (
    Appended,
    CorruptRecordError,
    NewMessage,
    OutcomeUnknownError,
    Page,
    Retention,
    StoreUnavailableError,
    ThreadKey,
    Truncated,
)
from everthread.contract import REMEMBERED_APPENDS
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite._database import Place, connect_reader, connect_writer
from everthread.engines.sqlite._sql import queries
from everthread.engines.sqlite._threads import Workers
from everthread.testing import (
    Clock,
    CorruptibleHarness,
    CorruptionSuite,
    Harness,
    ImportSuite,
    ProcessSuite,
    RewriteSuite,
    StoreContractSuite,
    UrlHarness,
)
from tests.engines.test_sqlite_files import run_python

KEY = ThreadKey("a")


class SqliteHarness(UrlHarness, CorruptibleHarness):
    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        db = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)
        db.execute(
            "UPDATE messages SET payload = ? WHERE seq = ? AND thread IN "
            "(SELECT id FROM threads WHERE tenant = ? AND thread_id = ?)",
            (payload, seq, key.tenant, key.thread_id),
        )
        db.close()


@pytest.fixture
def harness(tmp_path: Path) -> SqliteHarness:
    names = itertools.count()
    return SqliteHarness(lambda: f"sqlite:///{tmp_path}/{next(names)}.db", synchronous="normal")


class TestSqlite(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self, harness: SqliteHarness) -> Harness:
        return harness


class TestSqliteAcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, harness: SqliteHarness) -> SqliteHarness:
        return harness


class TestSqliteAfterCorruption(CorruptionSuite):
    @pytest.fixture
    def harness(self, harness: SqliteHarness) -> SqliteHarness:
        return harness


def tool_turn(number: int) -> list[NewMessage]:
    call = f"call {number}"
    return [
        NewMessage(b'"question"'),
        NewMessage(b'"call"', calls=(call,)),
        NewMessage(b'"result"', results=(call,)),
        NewMessage(b'"answer"'),
    ]


def look(path: Path, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def log_frames(path: Path) -> list[bool]:
    """The pages in the write-ahead log in their order, and whether each ends a transaction.

    Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    data = path.with_name(path.name + "-wal").read_bytes()
    salts = data[16:24]
    frames = [data[at : at + 24] for at in range(32, len(data), 24 + 4096)]
    return [struct.unpack(">I", frame[4:8])[0] != 0 for frame in frames if frame[8:16] == salts]


@contextlib.contextmanager
def other_writer(path: Path) -> Iterator[None]:
    """Another connection that keeps the lock for as long as the block runs."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    yield
    db.execute("ROLLBACK")
    db.close()


# Cost


async def test_appends_that_wait_together_are_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        before = sum(log_frames(path))
        with other_writer(path):
            # The first to come waits for the lock with whoever came just after it, the others wait behind them.
            first = asyncio.create_task(store.append(KEY, tool_turn(0)))
            await asyncio.sleep(0)
            others = [asyncio.create_task(store.append(ThreadKey(str(n)), tool_turn(n))) for n in range(64)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *others)
        assert sum(log_frames(path)) <= before + 2


async def test_appends_and_other_writes_take_effect_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        with other_writer(tmp_path / "x.db"):
            calls = [
                store.append(KEY, [NewMessage(b"0"), NewMessage(b"1")]),
                store.append(KEY, [NewMessage(b"2")]),
                store.truncate(KEY, stop=2),
                store.append(KEY, [NewMessage(b"3")], expected_seq=3),
                store.delete_thread(KEY),
                store.append(KEY, [NewMessage(b"4")]),
            ]
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks)
        assert results[2:5] == [Truncated(1, 0, 3), Appended(3, 4), True]
        assert [message.payload for message in await store.read(KEY)] == [b"4"]


async def test_what_fails_for_many_calls_together_gives_each_an_error_of_its_own() -> None:
    def fail(_: io.BytesIO, items: Sequence[int]) -> list[int]:
        together.append(len(items))
        raise OutcomeUnknownError("the disk")

    together: list[int] = []
    workers = Workers("test", io.BytesIO)
    may_go = threading.Event()
    busy = asyncio.create_task(workers.call(lambda _: may_go.wait()))
    calls = [asyncio.create_task(workers.call_together(fail, number)) for number in range(9)]
    await asyncio.sleep(0)
    calls.pop().cancel()
    await asyncio.sleep(0)
    may_go.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(error) for error in errors] == ["the disk"] * 8
    assert len(set(map(id, errors))) == 8
    assert together == [8]
    assert await busy
    await workers.stop()


async def test_an_append_writes_as_many_pages_to_a_long_thread_as_to_a_short_one(tmp_path: Path) -> None:
    async def pages_of_20_appends() -> int:
        before = len(log_frames(path))
        for number in range(20):
            await store.append(KEY, tool_turn(number), append_id=f"{before} {number}")
        return len(log_frames(path)) - before

    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as store:
        await store.append(KEY, tool_turn(0))
        short = await pages_of_20_appends()
        for number in range(20):
            await store.append(KEY, tool_turn(number) * 250)
        assert await pages_of_20_appends() <= 1.2 * short


def test_no_statement_on_a_thread_looks_at_more_than_it_asks_for(tmp_path: Path) -> None:
    db = connect_writer(Place(tmp_path / "x.db", "full", 1.0))
    for name, query in queries().items():
        arguments = (None,) * query.count("?") if "?1" not in query else (None, None)
        plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query}", arguments)]
        # A full-text index is looked up (M: by a match, =: by the row), whatever SQLite calls it.
        plan = [step for step in plan if not re.fullmatch(r"SCAN message_words VIRTUAL TABLE INDEX \d+:.*[M=].*", step)]
        assert name == "some_garbage" or not [step for step in plan if step.startswith("SCAN")], (name, plan)
        if name.startswith(("list_", "read_", "nth_", "ties_", "span_around")):
            assert not [step for step in plan if "TEMP B-TREE" in step], (name, plan)
    db.close()


async def test_what_is_remembered_of_appends_is_bounded_and_the_newest_are_there(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    turn = [NewMessage(b"1")]
    async with SqliteStore(path, synchronous="normal", retention=Retention(max_messages=3)) as store:
        count = 2 * REMEMBERED_APPENDS + 50
        await asyncio.gather(*(store.append(KEY, turn, append_id=str(number)) for number in range(count)))
        assert look(path, "SELECT count(*) FROM appends") <= [(2 * REMEMBERED_APPENDS,)]
        assert look(path, "SELECT appends FROM threads") == look(path, "SELECT count(*) FROM appends")
        oldest = count - REMEMBERED_APPENDS
        again = await store.append(KEY, turn, append_id=str(oldest))
        assert (again.first_seq, again.replayed) == (oldest, True)


async def test_trimming_forgets_the_calls_and_spans_of_what_it_drops(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal", retention=Retention(max_messages=8)) as store:
        for number in range(100):
            # One call that is never answered, and one that is answered in the next turn.
            late = NewMessage(b"1", results=(f"late {number - 1}",))
            open_calls = NewMessage(b"1", calls=(f"never {number}", f"late {number}"))
            await store.append(KEY, [NewMessage(b"1"), late, NewMessage(b"1"), open_calls, NewMessage(b"1")])
        assert look(path, "SELECT count(*) FROM spans") >= [(1,)]
        assert len(await store.read(KEY)) <= 8
        assert look(path, "SELECT count(*) FROM spans") <= [(2,)]
        assert look(path, "SELECT count(*) FROM open_calls") <= [(3,)]


# Forgetting


async def test_a_deleted_thread_leaves_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as store:
        await fill(store, "a", 1500)
        assert await store.delete_thread(KEY)
        assert rows_left(path) == {"threads": 0}


async def test_a_deleted_tenant_leaves_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as store:
        await asyncio.gather(*(store.append(ThreadKey(str(n), "t"), tool_turn(n)) for n in range(1200)))
        await store.append(KEY, [NewMessage(b"1")])
        assert await store.delete_tenant("t") == 1200
        assert rows_left(path) == {"threads": 1, "messages": 1}


async def test_what_an_expired_thread_left_goes_with_later_writes_a_part_at_a_time(tmp_path: Path) -> None:
    path, clock = tmp_path / "x.db", Clock()
    async with SqliteStore(path, synchronous="normal", clock=clock) as store:
        await fill(store, "a", 1500)
        await store.append(KEY, tool_turn(0), retention=Retention(expire_after=timedelta(seconds=5)))
        clock.advance(6)
        left = []
        while not left or left[-1] > 1:
            await store.append(ThreadKey("other"), [NewMessage(b"1")], retention=Retention(max_messages=1))
            left.append(look(path, "SELECT count(*) FROM messages")[0][0])
            assert len(left) < 10
        assert left[0] > 500, "all at once: the append that came first waited for it"
        assert rows_left(path) == {"threads": 1, "messages": 1}


async def test_a_thread_begun_anew_after_expiry_never_meets_what_the_old_one_left(tmp_path: Path) -> None:
    clock = Clock()
    async with SqliteStore(tmp_path / "x.db", synchronous="normal", clock=clock) as store:
        await fill(store, "a", 3000)
        await store.append(KEY, tool_turn(0), retention=Retention(expire_after=timedelta(seconds=5)))
        clock.advance(6)
        assert (await store.append(KEY, tool_turn(1), append_id="1")).first_seq == 0
        assert [message.seq for message in await store.read(KEY)] == [0, 1, 2, 3]
        assert await store.list_documents(KEY) == ()


async def fill(store: SqliteStore, thread_id: str, messages: int) -> None:
    key = ThreadKey(thread_id)
    for number in range(0, messages, 20):
        await store.append(key, tool_turn(number) * 5, append_id=str(number))
    await store.append(key, [NewMessage(b"1", calls=("open",))])
    await store.put_document(key, "summary", b"{}")
    await store.update_thread(key, metadata={"a": 1})


def rows_left(path: Path) -> dict[str, int]:
    tables = [str(name) for (name,) in look(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    # Of the full-text index only what it holds counts; its own tables are never empty.
    own = [name for name in tables if "sqlite" not in name and not name.startswith("message_words_")]
    counts = {name: look(path, f"SELECT count(*) FROM {name}")[0][0] for name in own}
    return {name: int(str(n)) for name, n in counts.items() if n or name == "threads"}


# Locks and processes


async def test_another_writer_is_waited_for_and_readers_wait_for_nobody(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, [NewMessage(b"1")])
        other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.append(KEY, [NewMessage(b"2")]))
        for _ in range(20):
            assert len(await store.read(KEY)) == 1
        assert not waiting.done()
        other.execute("COMMIT")
        other.close()
        assert (await waiting).first_seq == 1


async def test_a_lock_that_is_not_given_up_is_a_typed_error_and_nothing_is_written(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db", busy_timeout=0.05) as store:
        await store.append(KEY, [NewMessage(b"1")])
        other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="is locked"):
            await store.append(KEY, [NewMessage(b"2")])
        with pytest.raises(StoreUnavailableError, match="is locked"):
            await store.delete_thread(KEY)
        other.close()
        assert len(await store.read(KEY)) == 1
        assert (await store.append(KEY, [NewMessage(b"2")])).first_seq == 1


def test_fifty_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    script = f"""
        import asyncio, os, sys
        from everthread import NewMessage, ThreadKey, open_store
        import everthread.engines.sqlite, everthread.engines.sqlite._store

        async def main(number):
            async with open_store("sqlite:///{tmp_path}/new/x.db", busy_timeout=50) as store:
                await store.append(ThreadKey("a"), [NewMessage(b"%d" % number)])

        begin, go = os.pipe()
        children = []
        for number in range(50):
            child = os.fork()
            if child == 0:
                os.close(go)
                os.read(begin, 1)  # until the parent closes its end
                try:
                    asyncio.run(main(number))
                except BaseException as error:
                    print(repr(error), file=sys.stderr, flush=True)
                    os._exit(1)
                os._exit(0)
            children.append(child)
        os.close(go)
        sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
    """
    run_python(script)
    values = {row[0] for row in look(tmp_path / "new" / "x.db", "SELECT payload FROM messages")}
    assert values == {b"%d" % number for number in range(50)}


def test_a_forked_child_is_told_to_open_a_store_of_its_own_and_the_parents_goes_on(tmp_path: Path) -> None:
    script = f"""
        import asyncio, os
        from everthread import ConfigurationError, NewMessage, ThreadKey, open_store

        loop = asyncio.new_event_loop()
        store = open_store("sqlite:///{tmp_path}/x.db")
        loop.run_until_complete(store.append(ThreadKey("a"), [NewMessage(b"1")]))
        child = os.fork()
        if child == 0:
            try:
                loop.run_until_complete(store.append(ThreadKey("a"), [NewMessage(b"2")]))
            except ConfigurationError as error:
                loop.run_until_complete(store.aclose())
                del store
                os._exit(0 if "fork" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        loop.run_until_complete(store.append(ThreadKey("a"), [NewMessage(b"3")]))
        page = loop.run_until_complete(store.read(ThreadKey("a")))
        assert [m.payload for m in page] == [b"1", b"3"]
        loop.run_until_complete(store.aclose())
    """
    run_python(script)


# Threads


def test_a_program_that_does_not_close_its_store_ends_and_loses_nothing(tmp_path: Path) -> None:
    script = f"""
        import asyncio
        from everthread import NewMessage, ThreadKey, open_store

        async def main():
            store = open_store("sqlite:///{tmp_path}/x.db")
            await store.append(ThreadKey("a"), [NewMessage(b"1")])
            await store.read(ThreadKey("a"))
            return store

        kept = asyncio.run(main())
    """
    run_python(script)
    assert look(tmp_path / "x.db", "SELECT payload FROM messages") == [(b"1",)]


async def test_the_threads_of_a_store_that_nobody_keeps_end(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    store = SqliteStore(tmp_path / "x.db")
    await store.append(KEY, [NewMessage(b"1")])
    await store.read(KEY)
    started = set(threading.enumerate()) - others
    assert {thread.name for thread in started} == {"everthread-sqlite-writer", "everthread-sqlite-reader"}
    del store
    gc.collect()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()


async def test_closing_finishes_a_deletion_and_breaks_off_what_can_go_on_later(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "x.db", synchronous="normal")
    keys = [ThreadKey(str(number), "acme") for number in range(1500)]
    await asyncio.gather(*(store.append(key, [NewMessage(b"1")]) for key in keys))
    await store.append(KEY, [NewMessage(b'{"role":"user","content":"word"}')] * 9000)
    with other_writer(tmp_path / "x.db"):
        preparing = asyncio.create_task(store.prepare_search())
        deleting = asyncio.create_task(store.delete_tenant("acme"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
    await closing
    assert await deleting == 1500
    with pytest.raises(StoreUnavailableError, match="closed"):
        await preparing
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]
    async with SqliteStore(tmp_path / "x.db") as again:
        assert await again.list_threads("acme") == Page(())
        assert len(await again.search("", "word")) == 20


async def test_many_reads_at_once_share_few_threads(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, tool_turn(0) * 100)
        pages = await asyncio.gather(*(store.read_last(KEY, 50) for _ in range(100)))
        assert all([m.seq for m in page] == list(range(350, 400)) for page in pages)
        assert len(set(threading.enumerate()) - others) <= 5


def test_readers_cannot_write(tmp_path: Path) -> None:
    place = Place(tmp_path / "x.db", "full", 1.0)
    connect_writer(place).close()
    db = connect_reader(place)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM threads")
    db.close()


async def test_an_own_retention_that_cannot_be_read_is_told_and_can_be_set_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        await store.append(KEY, [NewMessage(b"1")])
        for damaged in ("{", '{"max_messages": -1}', "[]"):
            db = sqlite3.connect(path)
            with db:
                db.execute("UPDATE threads SET retention = ?", (damaged,))
            db.close()
            with pytest.raises(CorruptRecordError, match="retention"):
                await store.get_thread(KEY)
            with pytest.raises(CorruptRecordError, match="retention"):
                await store.append(KEY, [NewMessage(b"2")])
            own = Retention(max_messages=3)
            assert (await store.update_thread(KEY, retention=own)).retention == own
        assert (await store.append(KEY, [NewMessage(b"2")])).first_seq == 1
