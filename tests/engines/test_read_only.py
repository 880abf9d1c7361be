"""Opening read-only: files that are missing, old, or lie where nothing may be written; and the commands that look."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from everthread import (
    ConfigurationError,
    NewMessage,
    Retention,
    SchemaError,
    StoreUnavailableError,
    ThreadKey,
    UnsupportedError,
    new_message,
    open_store,
)
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite.schema import migrations
from tests.cli.driving import PROGRAM, piped
from tests.postgres_server import PostgresServer, fresh_url
from tests.servers import Server

KEY = ThreadKey("trip")

_READ = """
import asyncio, os, sys
from everthread import ThreadKey
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite.schema import migrations, queries

migrations(), queries()  # read from the package, which nobody may not reach

async def main():
    async with SqliteStore(sys.argv[1], read_only=True) as store:
        print(*[message.payload.decode() for message in await store.read(ThreadKey("trip"))], flush=True)
        sys.stdin.readline()
        print(*[message.payload.decode() for message in await store.read(ThreadKey("trip"))], flush=True)

if os.getuid() == 0:  # to whom nothing is forbidden
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own is not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


def start_reader(path: Path) -> subprocess.Popen[str]:
    """A process that may not write to the folder, reading once at its start and once more for a line of input."""
    command = [sys.executable, "-c", _READ, str(path)]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def write(path: Path, text: str) -> None:
    async with SqliteStore(path, synchronous="normal") as store:
        await store.append(KEY, [NewMessage(f'"{text}"'.encode())])


def tree(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
async def test_a_missing_place_is_an_error_and_stays_missing(tmp_path: Path, scheme: str) -> None:
    store = open_store(f"{scheme}:///{tmp_path}/new/typo", read_only=True)
    with pytest.raises(ConfigurationError, match="typo"):
        await store.get_thread(KEY)
    await store.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_schema_is_an_error_and_stays_missing(postgres: PostgresServer) -> None:
    url = fresh_url(postgres)
    for _ in range(2):
        store = open_store(url, read_only=True)
        with pytest.raises(SchemaError, match="Open the store once"):
            await store.get_thread(KEY)
        await store.aclose()


async def test_an_empty_file_and_anothers_database_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE other (x)").connection.close()
    before = tree(tmp_path)
    for name in ("empty.db", "other.db"):
        with pytest.raises(ConfigurationError):
            await SqliteStore(tmp_path / name, read_only=True).open()
    assert tree(tmp_path)[: len(before)] == before


async def test_an_older_schema_is_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await write(path, "one")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA user_version={len(migrations()) - 1}")
    db.close()
    with pytest.raises(SchemaError, match="everthread doctor"):
        await SqliteStore(path, read_only=True).open()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(migrations()) - 1,)
    db.close()


def read_beside(path: Path, after_the_first: str) -> tuple[list[str], str]:
    """What a reader without rights sees before and after somebody else ran a script, and its errors."""
    reader = start_reader(path)
    assert reader.stdout is not None
    first = reader.stdout.readline()
    done = subprocess.run([sys.executable, "-c", after_the_first, str(path)], check=False)
    assert done.returncode == 0
    rest, errors = reader.communicate("\n")
    return [first.strip(), rest.strip()], errors


_APPEND = """
import asyncio, os, sys
from everthread import NewMessage, ThreadKey
from everthread.engines.sqlite import SqliteStore

async def main():
    os.chmod(os.path.dirname(sys.argv[1]), 0o755)
    async with SqliteStore(sys.argv[1]) as store:
        await store.append(ThreadKey("trip"), [NewMessage(b'"two"')])
    os.chmod(os.path.dirname(sys.argv[1]), 0o555)
asyncio.run(main())
"""


@pytest.mark.parametrize("mode", [0o555, 0o755])
async def test_a_file_that_may_not_be_written_is_read(folder: Path, mode: int) -> None:
    path = folder / "x.db"
    await write(path, "one")
    path.chmod(0o444)
    folder.chmod(mode)
    seen, errors = read_beside(path, "")
    assert (seen, errors) == (['"one"', '"one"'], "")


async def test_a_file_in_a_read_only_folder_shows_later_appends(folder: Path) -> None:
    path = folder / "x.db"
    await write(path, "one")
    path.chmod(0o644)
    folder.chmod(0o555)
    seen, errors = read_beside(path, _APPEND)
    assert (seen, errors) == (['"one"', '"one" "two"'], "")


async def test_a_log_beside_a_file_is_read_or_refused(folder: Path) -> None:
    path = folder / "x.db"
    async with SqliteStore(path) as store:
        await store.append(KEY, [NewMessage(b'"one"')])
        # As a copy of both files, on a backup that is mounted read-only, say.
        (folder / "copy").mkdir()
        for name in ("x.db", "x.db-wal"):
            shutil.copy(folder / name, folder / "copy" / name)
            (folder / "copy" / name).chmod(0o644)
    (folder / "copy").chmod(0o555)
    reader = start_reader(folder / "copy" / "x.db")
    out, errors = reader.communicate("\n")
    # Never an older state in silence.
    assert out == ""
    assert StoreUnavailableError.__name__ in errors
    assert "-wal" in errors
    (folder / "copy").chmod(0o755)


async def test_a_search_without_an_index_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await write(path, "one")
    async with SqliteStore(path, read_only=True) as reader:
        with pytest.raises(UnsupportedError, match="no search index"):
            await reader.search("", "one")
        async with SqliteStore(path) as writer:
            await writer.search("", "one")
        assert len(await reader.search("", "one")) == 1


LOOKING = (
    "threads",
    "show trip",
    "usage",
    "search x",
    "search x --scan",
    "export out.jsonl",
    "doctor",
    "copy THERE x.db",
)


async def test_a_command_takes_a_path_where_it_takes_a_url(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path) as store:
        await store.append(KEY, [new_message({"role": "user", "content": "Hello there"})])
    for words in (("threads", str(path)), ("show", "trip", "--store", str(path)), ("search", "there", "-s", str(path))):
        done = piped("", home=tmp_path, program=(PROGRAM, *words))
        assert done.returncode == 0, done.stderr
        assert "trip" in done.stdout or "Hello there" in done.stdout


async def test_reading_redis_writes_nothing_where_others_wrote(plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}?prefix={fresh_prefix}"
    name = f"{fresh_prefix}:trip"
    async with Redis(port=plain_redis_server.port) as client, open_store(url) as store:
        await store.append(KEY, [NewMessage(b'"%d"' % number) for number in range(6)])
        await store.append(ThreadKey("over"), [NewMessage(b"1")], retention=Retention(expire_after=timedelta(hours=1)))

        async def everything() -> list[tuple[bytes, bytes]]:
            return sorted([(key, await client.dump(key)) for key in await client.keys(f"*{fresh_prefix}*")])

        # Another program trims the list and pushes to it.
        await client.ltrim(name, 2, -1)
        await client.rpush(name, '"new"', '"newer"')
        before = await everything()
        later = time.time() + 7200
        async with open_store(url, read_only=True, clock=lambda: later) as reader:
            page, last = await reader.read(KEY), await reader.read_last(KEY, 3)
            thread = await reader.get_thread(KEY)
            assert await reader.get_thread(ThreadKey("over")) is None
            await reader.list_threads()
            assert await everything() == before
        assert page.messages == (await store.read(KEY)).messages
        assert last.messages == (await store.read_last(KEY, 3)).messages
        assert thread == await store.get_thread(KEY)
        assert await everything() != before
