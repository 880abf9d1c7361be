"""The backups of docs/reference/storage-format.md, made of stores in use and restored into empty ones.

A restored store holds every thread unchanged and continues: positions go on, and repeated appends take effect once.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from msgspec import structs

from everthread import Appended, Retention, Store, SupportsSearch, ThreadKey, capability, new_message, open_store
from everthread.transfer import export_threads, import_threads
from tests.object_servers import COSMOS_KEY, CREDENTIALS, cosmos_server, cosmos_url, s3_server, s3_url
from tests.postgres_server import PostgresServer, postgres_program, postgres_server
from tests.redis_topologies import ask
from tests.servers import Server, redis_server

KEYS = (ThreadKey("trip"), ThreadKey("a b/ü"), ThreadKey("trip", "acme"))
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}],
}
TURN = [
    new_message({"role": "user", "content": "Where is Rome?"}),
    new_message(CALL),
    new_message({"role": "tool", "tool_call_id": "c", "content": "Italy"}),
    new_message({"role": "assistant", "content": "In Italy."}),
]


async def fill(store: Store) -> None:
    for key in KEYS:
        for number in range(3):
            await store.append(key, TURN, append_id=f"turn {number}", default_title="Trip")
        await store.truncate(key, stop=8)
        await store.truncate(key, start=4)
        await store.append(key, TURN, append_id="last")
        await store.update_thread(key, metadata={"tag": "ü"}, retention=Retention(max_messages=1000))
        await store.put_document(key, "note", b'{"a": 1}')


async def contents(store: Store) -> list[object]:
    found: list[object] = []
    for key in KEYS:
        thread, document = await store.get_thread(key), await store.get_document(key, "note")
        assert thread is not None
        assert document is not None
        # An import counts its own changes of titles and metadata.
        found += [structs.replace(thread, revision=0), await store.read(key), document.value]
    return found


async def check_restored(store: Store, before: list[object]) -> None:
    assert await contents(store) == before
    for key in KEYS:
        assert await store.append(key, TURN, append_id="last") == Appended(12, 16, replayed=True)
        assert await store.append(key, TURN, append_id="new") == Appended(16, 20)
    assert [thread.key for thread in await store.list_threads("acme")] == [ThreadKey("trip", "acme")]


# SQLite and directories


async def test_a_sqlite_file_is_backed_up_while_stores_are_open(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/threads.db") as store:
        await fill(store)
        before = await contents(store)
        with sqlite3.connect(tmp_path / "threads.db") as db:
            db.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
        db.close()
        await store.append(KEYS[0], TURN)
    for path in (tmp_path / f"threads.db{end}" for end in ("", "-wal", "-shm")):
        path.unlink(missing_ok=True)
    (tmp_path / "backup.db").rename(tmp_path / "threads.db")
    async with open_store(f"sqlite:///{tmp_path}/threads.db") as store:
        await check_restored(store, before)


async def test_a_directory_is_copied_while_nobody_writes(tmp_path: Path) -> None:
    async with open_store(f"file://{tmp_path}/threads") as store:
        await fill(store)
        before = await contents(store)
        subprocess.run(["cp", "-a", tmp_path / "threads", tmp_path / "backup"], check=True)
    shutil.rmtree(tmp_path / "threads")
    async with open_store(f"file://{tmp_path}/backup") as store:
        await check_restored(store, before)


# Redis


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_snapshot_of_redis_is_restored_with_the_append_only_file_off(kind: str) -> None:
    with redis_server(kind) as old, redis_server(kind, "--appendonly", "no") as new:
        async with open_store(f"redis://127.0.0.1:{old.port}") as store:
            await fill(store)
            before = await contents(store)
        ask(old.port, "SAVE")
        new.stop()
        shutil.copy(old.folder / "dump.rdb", new.folder / "dump.rdb")
        new.start()
        ask(new.port, "CONFIG", "SET", "appendonly", "yes")
        async with open_store(f"redis://127.0.0.1:{new.port}") as store:
            await check_restored(store, before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_copy_of_the_append_only_folder_is_restored(kind: str) -> None:
    with redis_server(kind) as old, redis_server(kind) as new:
        async with open_store(f"redis://127.0.0.1:{old.port}") as store:
            await fill(store)
            before = await contents(store)
            ask(old.port, "CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
            # The server hands its writes to the operating system before it answers.
            new.stop()
            shutil.rmtree(new.folder / "appendonlydir")
            shutil.copytree(old.folder / "appendonlydir", new.folder / "appendonlydir")
        new.start()
        async with open_store(f"redis://127.0.0.1:{new.port}") as store:
            await check_restored(store, before)


# PostgreSQL


@pytest.mark.slow
async def test_a_dump_of_postgresql_is_restored_into_another_server(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres_server() as other:
        async with open_store(postgres.url(options="?schema=everthread&search=true")) as store:
            await fill(store)
            before = await contents(store)
            with (tmp_path / "threads.sql").open("wb") as dump:
                subprocess.run(
                    [postgres_program("pg_dump"), "--schema=everthread", postgres.url()],
                    check=True,
                    stdout=dump,
                    timeout=60,
                )
        with (tmp_path / "threads.sql").open("rb") as dump:
            command = [
                postgres_program("psql"),
                "--quiet",
                "--single-transaction",
                "-v",
                "ON_ERROR_STOP=1",
                other.url(),
            ]
            subprocess.run(command, check=True, stdin=dump, stdout=subprocess.DEVNULL, timeout=60)
        async with open_store(other.url(options="?schema=everthread&search=true")) as store:
            await check_restored(store, before)
            assert capability(store, SupportsSearch)
            assert len(await store.search("", "rome")) > 0
    admin = await asyncpg.connect(postgres.url())
    await admin.execute("DROP SCHEMA everthread CASCADE")
    await admin.close()


# Object storage and Cosmos DB


@pytest.fixture(scope="module")
def s3() -> Iterator[Server]:
    with s3_server() as server:
        yield server


async def test_a_bucket_is_copied_object_by_object(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore
    from obstore.store import S3Store

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    old, new = s3_url(s3), s3_url(s3)
    async with open_store(old) as store:
        await fill(store)
        before = await contents(store)
    options = {"endpoint": f"http://127.0.0.1:{s3.port}", "client_options": {"allow_http": True}}
    source, target = (S3Store.from_url(url.partition("?")[0], **options) for url in (old, new))
    for page in obstore.list(source):
        for each in page:
            obstore.put(target, each["path"], obstore.get(source, each["path"]).bytes())
    async with open_store(new) as store:
        await check_restored(store, before)


@pytest.mark.slow
async def test_an_export_of_cosmos_db_is_imported_into_another_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_COSMOS_KEY", COSMOS_KEY)
    with cosmos_server() as old, cosmos_server() as new:
        async with open_store(cosmos_url(old)) as store:
            await fill(store)
            before = await contents(store)
            for tenant in ("", "acme"):
                await export_threads(store, tmp_path / f"backup{tenant}.jsonl", tenant=tenant)
        async with open_store(cosmos_url(new)) as store:
            for tenant in ("", "acme"):
                report = await import_threads(store, tmp_path / f"backup{tenant}.jsonl")
                assert report.is_complete
            assert await contents(store) == before
