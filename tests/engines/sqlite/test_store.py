"""The SQLite engine keeps every guarantee; and what is its own: cost, group commit, other processes, its threads."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from pathlib import Path

import pytest

from everthread import (
    CorruptRecordError,
    NewMessage,
    Retention,
    ThreadKey,
)
from everthread.engines.sqlite import SqliteStore
from everthread.testing import (
    CorruptibleHarness,
    CorruptionSuite,
    Harness,
    ImportSuite,
    ProcessSuite,
    RewriteSuite,
    StoreContractSuite,
    UrlHarness,
)
from tests.engines.sqlite.database import KEY

THREAD = "(SELECT id FROM threads WHERE tenant = ? AND thread_id = ?)"


class SqliteHarness(UrlHarness, CorruptibleHarness):
    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        self._execute(f"UPDATE messages SET payload = ? WHERE seq = ? AND thread = {THREAD}", key, payload, seq)

    async def corrupt_metadata(self, key: ThreadKey) -> None:
        self._execute(f"INSERT OR REPLACE INTO metadata VALUES ({THREAD}, '{{not JSON')", key)

    def _execute(self, statement: str, key: ThreadKey, *arguments: object) -> None:
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)) as db:
            db.execute(statement, (*arguments, key.tenant, key.thread_id))


@pytest.fixture
def harness(tmp_path: Path) -> SqliteHarness:
    names = itertools.count()
    return SqliteHarness(lambda: f"sqlite:///{tmp_path}/{next(names)}.db", synchronous="normal")


class TestSqlite(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self, harness: SqliteHarness) -> Harness:
        return harness


@pytest.mark.essential_first
class TestSqliteAcrossProcesses(ProcessSuite):
    @pytest.fixture
    def harness(self, harness: SqliteHarness) -> SqliteHarness:
        return harness


class TestSqliteAfterCorruption(CorruptionSuite):
    @pytest.fixture
    def harness(self, harness: SqliteHarness) -> SqliteHarness:
        return harness


@pytest.mark.parametrize("title", ["x'ff'", "CAST(x'ff' AS TEXT)"])
async def test_a_title_that_is_not_text_hides_no_thread(tmp_path: Path, title: str) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        for name in ("a", "b"):
            await store.append(ThreadKey(name), [NewMessage(b"1")], default_title="title")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"UPDATE threads SET title = {title} WHERE thread_id = 'a'")
        listed = {thread.key.thread_id: thread for thread in await store.list_threads()}
        assert (listed["a"].title, listed["b"].title) == (None, "title")
        assert "title of thread 'a'" in listed["a"].damage
        with pytest.raises(CorruptRecordError, match="title of thread 'a'"):
            await store.get_thread(ThreadKey("a"))
        await store.append(ThreadKey("a"), [NewMessage(b"2")])
        assert (await store.update_thread(ThreadKey("a"), title="new")).title == "new"


async def test_an_unreadable_own_retention_is_reported_and_can_be_replaced(tmp_path: Path) -> None:
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
