"""A record that cannot be read: each command reports its position and ends with status 1, on every engine."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from everthread import Store, ThreadKey
from everthread._validation import SEALED
from everthread.capabilities import SupportsSearch, capability
from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.testing import CorruptibleHarness
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import keys_from_file
from tests.cli.test_commands import objects, on, run, seed
from tests.engines.objects.test_store import DirectoryHarness
from tests.engines.postgres.test_store import PostgresHarness
from tests.engines.redis.test_store import RedisHarness
from tests.engines.sqlite.test_store import SqliteHarness
from tests.operations.talks import KEY, talk
from tests.servers import Server

POSITION = 2


def harness_of(url: str, server: Server | None) -> CorruptibleHarness:
    """Return the harness that corrupts a store of this engine."""
    if url.startswith("redis:"):
        assert server is not None
        harness = RedisHarness(server)
        harness.prefix = url.partition("prefix=")[2]
        return harness
    kinds = {"sqlite": SqliteHarness, "file": DirectoryHarness, "postgresql": PostgresHarness}
    return kinds[url.partition(":")[0]](lambda: url)


def corrupt(url: str, thread_id: str, position: int, server: Server | None = None) -> None:
    """Overwrite a stored record with bytes that are not JSON."""
    asyncio.run(harness_of(url, server).corrupt(ThreadKey(thread_id), position, b"{not JSON"))


@pytest.fixture
def broken_url(shared_url: str, plain_redis_server: Server) -> str:
    """A store of each engine with two threads, of which "trip" has a record that is not JSON."""
    seed(shared_url, "trip", "well")
    corrupt(shared_url, "trip", POSITION, plain_redis_server)
    return shared_url


@pytest.mark.parametrize(
    "command",
    [
        "show trip",
        "show trip --raw",
        "show trip --last 20",
        "search question --scan",
        "fork trip",
        "export -",
        "export - --format html",
    ],
)
def test_a_record_that_is_not_json_ends_with_1(command: str, broken_url: str) -> None:
    done = run(*command.split(), store=broken_url)
    assert done.exit_code == EXIT_FAILED, done.output
    assert f"position {POSITION} " in done.stderr


def test_search_prints_an_unreadable_record_as_an_object(broken_url: str) -> None:
    done = run("search", "question", "--scan", "--json", store=broken_url)
    assert done.exit_code == EXIT_FAILED
    *hits, unreadable = objects(done)
    assert {hit["thread_id"] for hit in hits} == {"trip", "well"}
    assert (unreadable["thread_id"], unreadable["seq"]) == ("trip", POSITION)


def test_export_writes_and_reports_an_unreadable_record(broken_url: str, tmp_path: Path) -> None:
    done = run("export", str(tmp_path / "out"), "--json", store=broken_url)
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    messages = [line for line in lines if line.get("type") == "message"]
    (report,) = objects(done)
    assert (done.exit_code, len(messages), len(report["skipped"])) == (EXIT_FAILED, 16, 1)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_search_by_index_reports_an_unreadable_hit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"

    async def write(store: Store) -> None:
        assert capability(store, SupportsSearch)
        await store.prepare_search()
        await talk(store)

    on(url, write)
    corrupt(url, "trip", 4)
    done = run("search", "question", store=url)
    assert done.exit_code == EXIT_FAILED, done.output
    assert "position 4 " in done.stderr
    assert "question 2" in done.stdout


def test_threads_reads_messages_only_for_titles(tmp_path: Path) -> None:
    on(url := f"sqlite:///{tmp_path}/t.db", talk)
    corrupt(url, "trip", POSITION)
    assert run("threads", "--json", store=url).exit_code == 0
    execute(tmp_path / "t.db", "UPDATE messages SET payload = '{'", "UPDATE threads SET title = NULL")
    done = run("threads", store=url)
    assert done.exit_code == EXIT_FAILED, done.output
    assert "trip" in done.stdout
    assert "position 0 " in done.stderr


def test_metadata_that_are_not_json_end_with_1(shared_url: str, plain_redis_server: Server) -> None:
    seed(shared_url, "trip", "well")
    asyncio.run(harness_of(shared_url, plain_redis_server).corrupt_metadata(KEY))
    for command in ("threads --json", "threads", "export -", "export - --format markdown"):
        done = run(*command.split(), store=shared_url)
        assert done.exit_code == EXIT_FAILED, (command, done.output)
        assert "The metadata of thread 'trip'" in done.stderr, command
        assert ("well" if "threads" in command else "answer 1") in done.stdout, command
        if command == "threads --json":
            assert {thread["thread_id"]: "damage" in thread for thread in objects(done)} == {
                "trip": True,
                "well": False,
            }


def test_a_thread_with_damaged_metadata_can_be_deleted(shared_url: str, plain_redis_server: Server) -> None:
    seed(shared_url, "trip", "well")
    asyncio.run(harness_of(shared_url, plain_redis_server).corrupt_metadata(KEY))
    done = run("delete", "trip", "--yes", store=shared_url)
    assert (done.exit_code, done.stdout) == (0, "trip is deleted, with 8 messages\n"), done.output
    assert [thread["thread_id"] for thread in objects(run("threads", "--json", store=shared_url))] == ["well"]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys"
    path.write_text(run("new-key", "2026").stdout)
    monkeypatch.setenv("EVERTHREAD_KEYRING", f"file:{path}")
    return path


@pytest.mark.parametrize(
    "command", ["show trip", "show trip --raw", "search question", "fork trip", "export - --format markdown"]
)
def test_a_record_that_cannot_be_decrypted_ends_with_1(command: str, keys: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"

    async def write(store: Store) -> None:
        await talk(Encrypted(store, Keyring(keys_from_file(str(keys)))))

    on(url, write)
    corrupt(url, "trip", POSITION)
    done = run(*command.split(), store=url)
    assert done.exit_code == EXIT_FAILED, done.output
    assert f"position {POSITION}" in done.stderr


def test_a_thread_with_an_unreadable_title_is_listed(keys: Path, shared_url: str) -> None:
    async def write(store: Store) -> None:
        encrypted = Encrypted(store, Keyring(keys_from_file(str(keys))))
        await talk(encrypted)
        await talk(encrypted, ThreadKey("well"))
        await store.update_thread(ThreadKey("trip"), title=f"{SEALED}:damaged")

    on(shared_url, write)
    done = run("threads", "--json", store=shared_url)
    assert done.exit_code == EXIT_FAILED, done.output
    assert "trip" in done.stderr
    found = {thread["thread_id"]: thread for thread in objects(done)}
    assert (found["trip"]["title"], found["well"]["title"]) == (None, "Trip to Rome")
    assert found["trip"]["damage"]
    assert "damage" not in found["well"]
