"""Locks, processes and threads that share a file."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from pathlib import Path

import pytest

from everthread import (
    NewMessage,
    Page,
    StoreUnavailableError,
    ThreadKey,
)
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite.connection import connect_reader, connect_writer
from everthread.engines.sqlite.location import DatabaseFile
from tests.engines.sqlite.database import KEY, look, other_writer, run_at_the_same_time, run_python, tool_turn


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


async def test_a_lock_held_too_long_is_a_typed_error(tmp_path: Path) -> None:
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
        from everthread import NewMessage, ThreadKey, open_store
        import everthread.engines.sqlite, everthread.engines.sqlite.store

        async def main(number):
            async with open_store("sqlite:///{tmp_path}/new/x.db", busy_timeout=50) as store:
                await store.append(ThreadKey("a"), [NewMessage(b"%d" % number)])
    """
    run_at_the_same_time(script, processes=50)
    values = {row[0] for row in look(tmp_path / "new" / "x.db", "SELECT payload FROM messages")}
    assert values == {b"%d" % number for number in range(50)}


def test_a_forked_child_must_open_its_own_store(tmp_path: Path) -> None:
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
        thread.join(timeout=60)
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
    place = DatabaseFile(tmp_path / "x.db", "full", 1.0)
    connect_writer(place).close()
    db = connect_reader(place)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM threads")
    db.close()
