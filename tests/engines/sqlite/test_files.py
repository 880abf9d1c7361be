"""The SQLite engine's file: which path a URL names, what the file must be, and what happens when it fails."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import sqlite3
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from everthread import (
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    NewMessage,
    SchemaError,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.engines.sqlite import SqliteStore, read_only
from everthread.engines.sqlite.connection import connect_writer
from everthread.engines.sqlite.errors import translate
from everthread.engines.sqlite.location import DatabaseFile, path_from_url, url_of
from tests.engines.sqlite.database import run_python

KEY = ThreadKey("a")
HELLO = [NewMessage(b'{"role":"user","content":"Hello"}')]


async def write_and_read(url: str) -> str:
    """Writes through one store and reads through another; gives the location."""
    async with open_store(url) as store:
        await store.append(KEY, HELLO)
        location = store.location
    async with open_store(location) as again:
        assert len(await again.read(KEY)) == 1
    return location


@pytest.mark.parametrize(
    ("in_url", "name"),
    [
        ("threads.db", "threads.db"),
        ("my threads.db", "my threads.db"),
        ("my%20threads.db", "my threads.db"),
        ("100%25.db", "100%.db"),
        ("100%.db", "100%.db"),
        ("%252F.db", "%2F.db"),
        ("gespräche-会話.db", "gespräche-会話.db"),
        ("gespr%C3%A4che.db", "gespräche.db"),
        ("a%3Fb%23c.db", "a?b#c.db"),
        ("c#.db", "c#.db"),
        ("a+b&c=d;e@f:g.db", "a+b&c=d;e@f:g.db"),
        ("new/folders/threads.db", "new/folders/threads.db"),
        ("'quoted\".db", "'quoted\".db"),
    ],
)
async def test_a_url_names_this_file_and_no_other(tmp_path: Path, in_url: str, name: str) -> None:
    location = await write_and_read(f"sqlite:///{tmp_path}/{in_url}")
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [name]
    assert path_from_url(location) == str(tmp_path / name)


async def test_a_relative_path_is_resolved_when_the_store_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///threads.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with store:
        await store.append(KEY, HELLO)
        assert len(await store.read(KEY)) == 1
    assert (tmp_path / "threads.db").exists()


async def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await write_and_read("sqlite:///~/x/threads.db") == f"sqlite:///{tmp_path}/x/threads.db"


def test_windows_drives_keep_their_letter() -> None:
    assert path_from_url("sqlite:///C:/Users/Ana Maria/x.db") == "C:/Users/Ana Maria/x.db"
    assert url_of(PureWindowsPath(r"C:\Users\Ana Maria\x.db")) == "sqlite:///C:/Users/Ana Maria/x.db"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:", "memory:"),
        ("sqlite://", "memory:"),
        ("sqlite:///", "memory:"),
        ("sqlite:///:memory:", "memory:"),
        ("sqlite::memory:", "memory:"),
        ("sqlite://threads.db", "three slashes"),
        ("sqlite://localhost/threads.db", "three slashes"),
        ("sqlite:threads.db", "three slashes"),
        ("sqlite:///a%00b.db", "NUL"),
        ("sqlite:///x.db?synchronous=off", "full or normal"),
        ("sqlite:///x.db?busy_timeout=-1", "busy_timeout"),
        ("sqlite:///x.db?busy_timeout=nan", "busy_timeout"),
        ("sqlite:///x.db?busy_timeout=soon", "busy_timeout"),
        ("sqlite:///x.db?busy_timeout=1&busy_timeout=2", "twice"),
        ("sqlite:///x.db?cache=s3cret", "no option cache"),
    ],
)
def test_a_url_that_names_no_file_or_option_is_refused_with_advice(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"synchronous": 1}, {"busy_timeout": "1"}, {"busy_timeout": True}, {"max_message_bytes": 10**9}, {"cache": 1}],
)
def test_options_that_are_wrong_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        open_store(f"sqlite:///{tmp_path}/x.db", **options)


@pytest.mark.parametrize("path", ["", "a\0b", b"bytes.db", ":memory:"])
def test_a_path_that_cannot_be_one_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError):
        SqliteStore(path)


def test_an_append_is_synced_to_the_disk_unless_told_otherwise(tmp_path: Path) -> None:
    for how, value in (("full", 2), ("normal", 1)):
        db = connect_writer(DatabaseFile(tmp_path / "x.db", how, 1.0))
        assert db.execute("PRAGMA synchronous").fetchone() == (value,)
        db.close()
    assert inspect.signature(SqliteStore).parameters["synchronous"].default == "full"


async def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    await write_and_read(f"sqlite:///{tmp_path}/x.db")


async def test_closing_leaves_one_file(tmp_path: Path) -> None:
    await write_and_read(f"sqlite:///{tmp_path}/x.db")
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


async def test_another_applications_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE threads (id)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another application"):
        await open_store(f"sqlite:///{path}").open()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(ConfigurationError, match="not an SQLite database"):
        await open_store(f"sqlite:///{path}").open()
    assert path.read_bytes() == b"Dear diary, " * 1000


async def test_a_newer_schema_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    await write_and_read(url)
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(SchemaError, match=r"version 99.*pip install -U everthread"):
        await open_store(url).open()


async def test_a_failed_opening_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"Dear diary, " * 1000)
    store = open_store(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError):
        await store.open()
    path.unlink()
    async with store:
        await store.append(KEY, HELLO)


async def test_a_damaged_file_gives_a_typed_error_and_no_messages(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        for _ in range(50):
            await store.append(KEY, [NewMessage(b'"%s"' % (b"x" * 2000))])
    data = bytearray(path.read_bytes())
    for page in range(4096 * 15, len(data), 4096):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    async with SqliteStore(path) as store:
        with pytest.raises(CorruptRecordError, match="damaged"):
            await store.read(KEY)


async def test_a_missing_table_is_a_schema_error(tmp_path: Path) -> None:
    await write_and_read(f"sqlite:///{tmp_path}/x.db")
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute("DROP VIEW readable_messages")
    db.execute("DROP TABLE messages")
    db.close()
    async with SqliteStore(tmp_path / "x.db") as store:
        with pytest.raises(SchemaError):
            await store.append(KEY, HELLO)


@pytest.mark.parametrize("place", ["{folder}", "{folder}/file/x.db", "/proc/everthread/x.db"])
async def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailableError):
        await SqliteStore(place.format(folder=tmp_path)).open()


def test_a_full_disk_and_a_read_only_file_are_typed_errors(tmp_path: Path) -> None:
    place = DatabaseFile(tmp_path / "x.db", "full", 1.0)
    db = connect_writer(place)
    db.execute("PRAGMA max_page_count=1")
    with pytest.raises(sqlite3.Error) as full:
        db.execute("INSERT INTO metadata VALUES (1, zeroblob(1000000))")
    db.execute("PRAGMA query_only=1")
    with pytest.raises(sqlite3.Error) as read_only:
        db.execute("DELETE FROM metadata")
    db.close()
    for caught, says in ((full, "disk is full"), (read_only, "read-only")):
        translated = translate(caught.value, place)
        assert isinstance(translated, StoreUnavailableError)
        assert says in str(translated)


def test_a_failing_disk_leaves_whole_turns_and_a_usable_store(tmp_path: Path) -> None:
    script = f"""
        import asyncio, resource
        from everthread import NewMessage, StoreUnavailableError, ThreadKey, open_store

        key, turn = ThreadKey("a"), [NewMessage(b'"%s"' % (b"x" * 30_000))] * 2

        async def main():
            async with open_store("sqlite:///{tmp_path}/x.db") as store:
                await store.append(key, turn, append_id="0")
                resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
                failed = None
                for number in range(1, 20):
                    try:
                        await store.append(key, turn, append_id=str(number))
                    except StoreUnavailableError:
                        failed = number
                        break
                assert failed, "the limit was not met"
                page = await store.read(key)
                assert len(page) in (2 * failed, 2 * failed + 2), len(page)
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                await store.append(key, turn, append_id=str(failed))
                assert len(await store.read(key)) == 2 * failed + 2

        asyncio.run(main())
    """
    run_python(script)


async def test_a_shell_user_can_read_the_messages(tmp_path: Path) -> None:
    await write_and_read(f"sqlite:///{tmp_path}/x.db")
    db = sqlite3.connect(tmp_path / "x.db")
    row = db.execute("SELECT thread_id, seq, payload FROM readable_messages").fetchone()
    db.close()
    assert row == ("a", 0, HELLO[0].payload.decode())


async def test_a_new_file_and_its_log_are_their_owners_alone(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/new.db") as store:
        await store.append(ThreadKey("t"), [new_message({"role": "user", "content": "for my eyes"})])
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"new.db": 0o600, "new.db-wal": 0o600, "new.db-shm": 0o600}


async def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared.db").touch(mode=0o640)
    (tmp_path / "shared.db").chmod(0o660)
    async with open_store(f"sqlite:///{tmp_path}/shared.db") as store:
        await store.append(ThreadKey("t"), [new_message({"role": "user", "content": "for the team"})])
    assert (tmp_path / "shared.db").stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("lost", ["x.db", "x.db-wal"])
@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_that_vanished_acknowledges_nothing(tmp_path: Path, lost: str, is_replaced: bool) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, HELLO)
        if is_replaced:
            shutil.copy(tmp_path / lost, tmp_path / "other")
            (tmp_path / "other").replace(tmp_path / lost)
        else:
            (tmp_path / lost).unlink()
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="removed or replaced"):
                await store.append(KEY, HELLO)
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            await store.delete_thread(KEY)


async def test_nothing_is_written_once_the_file_was_replaced(tmp_path: Path) -> None:
    path, log = tmp_path / "x.db", tmp_path / "x.db-wal"
    async with SqliteStore(tmp_path / "backup.db") as backup:
        await backup.append(ThreadKey("kept"), HELLO)
    async with SqliteStore(path) as store:
        await store.append(KEY, HELLO)
        before = log.read_bytes()
        (tmp_path / "backup.db").replace(path)
        new = path.read_bytes()
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="close every store of it, remove x"):
                await store.append(KEY, HELLO)
        with pytest.raises(StoreUnavailableError, match="remove x"):
            await store.erase_remains()
    assert (log.read_bytes(), path.read_bytes()) == (before, new)
    for name in ("x.db-wal", "x.db-shm"):
        (tmp_path / name).unlink()
    async with SqliteStore(path) as restored:
        assert len(await restored.read(ThreadKey("kept"))) == 1


async def test_a_file_in_a_read_only_folder_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, HELLO)
    # Root may write everywhere.
    monkeypatch.setattr(read_only, "may_write_folder", lambda file: False)
    async with SqliteStore(tmp_path / "x.db", read_only=True) as store:
        facts = {fact.name: fact for fact in await store.diagnose()}
    assert (facts["journal"].value, facts["journal"].status) == ("wal", "ok")


async def test_no_mode_is_advised_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, HELLO)
        (tmp_path / "x.db").chmod(0o444)
        assert "chmod" in {fact.name: fact for fact in await store.diagnose()}["file"].advice
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY, f_bavail=1, f_frsize=1))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**10))
        assert not {fact.name: fact for fact in await store.diagnose()}["file"].advice


async def test_a_file_that_vanished_is_not_read(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "x.db") as store:
        await store.append(KEY, HELLO)
        assert len(await store.read(KEY)) == 1
        (tmp_path / "x.db").unlink()
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            await store.read(KEY)


async def test_closing_after_the_file_was_replaced_spares_the_new_one(tmp_path: Path) -> None:
    old = SqliteStore(tmp_path / "x.db")
    await old.append(KEY, HELLO)
    for path in tmp_path.iterdir():
        path.unlink()
    async with SqliteStore(tmp_path / "x.db") as new:
        await new.append(ThreadKey("new"), HELLO)
        await old.aclose()
        await new.append(ThreadKey("new"), HELLO)
    async with SqliteStore(tmp_path / "x.db") as again:
        assert len(await again.read(ThreadKey("new"))) == 2


@pytest.mark.parametrize("synchronous", ["full", "normal"])
async def test_what_another_process_wrote_is_flushed_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        fsync(handle)

    path = tmp_path / "x.db"
    monkeypatch.setattr(os, "fsync", noting)
    # A writer that does not flush is for others as one that was killed before it did.
    async with SqliteStore(path, synchronous="normal") as killed, SqliteStore(path, synchronous=synchronous) as store:
        await killed.append(KEY, HELLO, append_id="1")
        await killed.append(ThreadKey("gone"), HELLO)
        await killed.delete_thread(ThreadKey("gone"))
        needed = [(tmp_path / "x.db-wal").stat().st_ino, tmp_path.stat().st_ino] if synchronous == "full" else []
        assert (await store.append(KEY, HELLO, append_id="1")).replayed
        assert flushed == needed
        flushed.clear()
        assert await store.delete_thread(ThreadKey("gone")) is False
        assert flushed == needed
        flushed.clear()
        # SQLite itself flushes what it writes.
        await store.append(KEY, HELLO, append_id="2")
        with pytest.raises(ConflictError):
            await store.append(KEY, HELLO, expected_seq=0)
        assert flushed == []


async def test_the_documented_backup_ends_beside_a_writer(tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    async with SqliteStore(tmp_path / "x.db", synchronous="normal") as store:
        await store.append(KEY, HELLO * 2000)
        is_done = asyncio.Event()

        async def write() -> None:
            while not is_done.is_set():
                await store.append(KEY, HELLO)

        writer = asyncio.create_task(write())
        try:
            await asyncio.to_thread(vacuum_into, tmp_path / "x.db", backup)
        finally:
            is_done.set()
            await writer
    async with SqliteStore(backup) as copy:
        thread = await copy.get_thread(KEY)
        assert thread is not None
        assert thread.count == len(await copy.read(KEY)) >= 2000


def vacuum_into(path: Path, backup: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("VACUUM INTO ?", (str(backup),))
    db.close()
