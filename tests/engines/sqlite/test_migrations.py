"""A file that an earlier release wrote is brought up to date at opening, in one step of the same cost for any size."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from everthread import NewMessage, Retention, StoreUnavailableError, Thread, ThreadKey, new_message
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite.connection import connect_writer
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.schema import APPLICATION_ID, migrations
from tests.engines.sqlite.database import run_at_the_same_time

KEY = ThreadKey("trip")
HELLO = new_message({"role": "user", "content": "Hello Rome"})
NEWEST = len(migrations())


def old_file(path: Path, version: int, threads: int = 1) -> None:
    """A file as the release with this schema left it: each thread has one message, a title and a document."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("BEGIN")
    for statements in migrations()[:version]:
        for statement in statements:
            db.execute(statement)
    for number in range(1, threads + 1):
        name = KEY.thread_id if number == 1 else f"other {number}"
        db.execute(
            "INSERT INTO threads (tenant, thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title)"
            " VALUES ('', ?, 0, 1, 1, ?, 1000, 2000, 'Journey')",
            (name, len(HELLO.payload)),
        )
        db.execute(
            "INSERT INTO messages (thread, seq, turn, tied, created_ms, format, payload)"
            " VALUES (?, 0, 0, 0, 2000, ?, ?)",
            (number, HELLO.format, HELLO.payload),
        )
        db.execute("INSERT INTO documents VALUES (?, ?, 'note', '{}', 3, 2000)", (number, number))
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={version}")
    db.execute("COMMIT")
    db.close()


@pytest.mark.parametrize("version", range(1, NEWEST))
async def test_what_an_earlier_release_wrote_is_there_and_goes_on(tmp_path: Path, version: int) -> None:
    old_file(tmp_path / "x.db", version)
    async with SqliteStore(tmp_path / "x.db") as store:
        before = Thread(KEY, 0, 1, 1, len(HELLO.payload), 1000, 2000, "Journey")
        assert (await store.list_threads()).items == (before,)
        assert [message.payload for message in await store.read(KEY)] == [HELLO.payload]
        document = await store.get_document(KEY, "note")
        assert document is not None
        assert (document.value, document.revision) == (b"{}", 3)
        assert [hit.seq for hit in await store.search("", "rome")] == [0]
        own = Retention(max_messages=1)
        assert (await store.update_thread(KEY, retention=own)).retention == own
        await store.append(KEY, [NewMessage(b"1")])
        assert [message.payload for message in await store.read(KEY)] == [b"1"]


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_the_cost_is_the_same_for_any_size(tmp_path: Path, version: int) -> None:
    def pages_written(threads: int) -> int:
        path = tmp_path / f"{threads}.db"
        old_file(path, version, threads)
        db = connect_writer(DatabaseFile(path, "normal", 1.0))
        try:
            return Path(f"{path}-wal").stat().st_size // 4096
        finally:
            db.close()

    assert 0 < pages_written(5000) <= pages_written(1) + 1


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_many_processes_may_open_an_old_file_at_once(tmp_path: Path, version: int) -> None:
    old_file(tmp_path / "x.db", version)
    script = f"""
        from everthread import NewMessage, ThreadKey, open_store
        import everthread.engines.sqlite.store

        async def main(number):
            async with open_store("sqlite:///{tmp_path}/x.db", busy_timeout=50) as store:
                await store.append(ThreadKey("trip"), [NewMessage(b"1")])
    """
    run_at_the_same_time(script, processes=12)

    async def count() -> int:
        async with SqliteStore(tmp_path / "x.db") as store:
            return len(await store.read(KEY))

    assert asyncio.run(count()) == 13


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, version: int) -> None:
    path = tmp_path / "x.db"
    old_file(path, version)
    db = sqlite3.connect(path)
    # Something is in the way of the last step, so that those before it have to be taken back.
    db.execute("ALTER TABLE threads ADD COLUMN retention TEXT")
    db.commit()
    schema = db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="retention"):
        connect_writer(DatabaseFile(path, "normal", 1.0))
    assert db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == schema
    assert db.execute("PRAGMA user_version").fetchone() == (version,)
    db.close()


@pytest.mark.parametrize("version", range(1, NEWEST))
async def test_a_migration_reports_that_another_program_locks_the_file(tmp_path: Path, version: int) -> None:
    old_file(tmp_path / "x.db", version)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"is locked.*busy_timeout"):
            await SqliteStore(tmp_path / "x.db", busy_timeout=0.05).open()
        assert other.execute("PRAGMA user_version").fetchone() == (version,)
    async with SqliteStore(tmp_path / "x.db") as store:
        assert len(await store.list_threads()) == 1
