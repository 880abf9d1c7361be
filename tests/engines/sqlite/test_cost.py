"""Transactions, pages and rows that calls cost."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from everthread import (
    Appended,
    ConflictError,
    CorruptRecordError,
    NewMessage,
    OutcomeUnknownError,
    Retention,
    ThreadKey,
    ThreadNotFoundError,
    Truncated,
)
from everthread.contract import REMEMBERED_APPENDS
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite.connection import connect_writer
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.schema import queries
from everthread.engines.sqlite.workers import Workers
from tests.engines.sqlite.database import KEY, log_frames, look, other_writer, tool_turn


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


async def test_concurrent_changes_of_all_kinds_are_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        await store.append(KEY, tool_turn(0))
        before = sum(log_frames(path))
        with other_writer(path):
            first = asyncio.create_task(store.put_document(KEY, "first", b"0"))
            await asyncio.sleep(0)
            others = [
                asyncio.create_task(change)
                for number in range(10)
                for change in (
                    store.append(KEY, tool_turn(number)),
                    store.update_thread(KEY, title=str(number)),
                    store.put_document(KEY, str(number), b"1"),
                )
            ]
            await asyncio.sleep(0)
        await asyncio.gather(first, *others)
        assert sum(log_frames(path)) <= before + 2


async def test_a_change_that_fails_does_not_fail_those_of_its_transaction(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        await store.append(ThreadKey("damaged"), [NewMessage(b"0")])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE threads SET retention = '{'")
        with other_writer(path):
            first = asyncio.create_task(store.append(KEY, [NewMessage(b"0")]))
            await asyncio.sleep(0)
            others = [
                asyncio.create_task(change)
                for change in (
                    store.append(ThreadKey("damaged"), [NewMessage(b"1")], append_id="once"),
                    store.update_thread(ThreadKey("missing"), title="none"),
                    store.append(KEY, [NewMessage(b"1")]),
                    store.truncate(KEY, stop=0, expected_seq=9),
                    store.append(KEY, [NewMessage(b"2")]),
                )
            ]
            await asyncio.sleep(0)
        assert await first == Appended(0, 1)
        results = await asyncio.gather(*others, return_exceptions=True)
        assert list(map(type, results)) == [CorruptRecordError, ThreadNotFoundError, Appended, ConflictError, Appended]
        assert [message.payload for message in await store.read(KEY)] == [b"0", b"1", b"2"]
        assert [message.payload for message in await store.read(ThreadKey("damaged"))] == [b"0"]


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


async def test_calls_that_fail_together_get_separate_errors() -> None:
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


async def test_an_append_to_a_long_thread_writes_no_more_pages(tmp_path: Path) -> None:
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
    db = connect_writer(DatabaseFile(tmp_path / "x.db", "full", 1.0))
    for name, query in queries().items():
        arguments = (None,) * query.count("?")
        plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query}", arguments)]
        # A full-text index is looked up (M: by a match, =: by the row), whatever SQLite calls it.
        plan = [step for step in plan if not re.fullmatch(r"SCAN message_words VIRTUAL TABLE INDEX \d+:.*[M=].*", step)]
        # A recursive query reads the rows that its last step gave.
        scans = [step for step in plan if step.startswith("SCAN") and step != "SCAN names"]
        assert name == "some_garbage" or not scans, (name, plan)
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
