"""Search on every engine: SQLite's index, and the scan that stands in where there is none."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread import (
    ConfigurationError,
    NewMessage,
    Retention,
    Store,
    SupportsSearch,
    ThreadKey,
    new_message,
)
from everthread.capabilities import capability
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite.connection import connect_writer
from everthread.engines.sqlite.location import DatabaseFile
from everthread.engines.sqlite.schema import queries
from everthread.messages.tokenizer import holds, phrases_of, places_of, words_of
from everthread.operations.search import Findings, search
from everthread.testing import Harness, ScanSuite, SearchSuite, StoreContractSuite, UrlHarness
from tests.postgres_server import PostgresServer, fresh_url
from tests.servers import Server
from tests.wrappers.harnesses import WrappedHarness, memory_place

KEY = ThreadKey("trip", "a")


def switched_on(path: Path) -> str:
    """The URL of an empty SQLite file that has an index from its beginning."""
    db = connect_writer(DatabaseFile(path, "normal", 10))
    db.execute(queries()["begin_index"]).fetchall()
    db.close()
    return f"sqlite:///{path}"


class TestSqlite(SearchSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        return UrlHarness(lambda: f"sqlite:///{tmp_path}/{next(names)}.db", synchronous="normal")


class TestSqliteWithAnIndexFromTheBeginning(SearchSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        return UrlHarness(lambda: switched_on(tmp_path / f"{next(names)}.db"), synchronous="normal")


class TestScanOfMemory(ScanSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return WrappedHarness(memory_place, lambda store: store)


class TestScanOfRedis(ScanSuite):
    @pytest.fixture
    def harness(self, plain_redis_server: Server, fresh_prefix: str) -> Harness:
        names = itertools.count()
        port = plain_redis_server.port
        return UrlHarness(lambda: f"redis://127.0.0.1:{port}?prefix={fresh_prefix}-{next(names)}")


class TestScanOfADirectory(ScanSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        return UrlHarness(lambda: f"file://{tmp_path}/{next(names)}?sync=false")


class TestScanOfPostgres(ScanSuite):
    @pytest.fixture
    def harness(self, postgres: PostgresServer) -> Harness:
        return UrlHarness(lambda: fresh_url(postgres))


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


@pytest.fixture
def store(fast_store: Store) -> Store:
    return fast_store


async def all_of(store: Store, text: str, **options: int) -> list[Findings]:
    parts = [await search(store, "a", text, **options)]  # type: ignore[arg-type]
    while parts[-1].cursor is not None:
        parts.append(await search(store, "a", text, cursor=parts[-1].cursor, **options))  # type: ignore[arg-type]
        assert len(parts) < 200
    return parts


async def test_the_result_says_whether_there_was_an_index(store: Store) -> None:
    await store.append(KEY, [said("word")])
    told = await search(store, "a", "word")
    assert told.is_scan is (capability(store, SupportsSearch) is None)
    scan = await search(store, "a", "word", scan=True)
    assert (scan.is_scan, scan.scanned, scan.is_complete) == (True, 1, True)
    assert scan.hits == told.hits


async def positions(store: Store, text: str) -> list[int]:
    return [hit.seq for hit in (await search(store, "a", text)).hits]


async def test_accents_do_not_count_and_ideographs_are_words(store: Store) -> None:
    await store.append(KEY, [said("Café in Zürich"), said("我想去东京旅行"), said("हिन्दी भाषा")])
    assert await positions(store, "cafe zurich") == [0]
    assert await positions(store, "东京") == [1]
    assert await positions(store, "京东") == []
    assert await positions(store, "हिन्दी") == [2]


@pytest.mark.parametrize("most", [1, 7, 100, 150])
async def test_a_scan_stops_at_its_limit_and_continues(most: int, store: Store) -> None:
    for number in range(3):
        turn = [said(f"{'needle' if at % 50 == 7 else 'hay'} {at}") for at in range(130)]
        await store.append(ThreadKey(str(number), "a"), turn[: 3 if most == 1 else 130])
    first = await search(store, "a", "needle", scan=True, scan_limit=most)
    assert not first.is_complete
    assert first.scanned <= most
    parts = await all_of(store, "needle", scan=True, scan_limit=most)
    hits = [(hit.key.thread_id, hit.seq) for part in parts for hit in part.hits]
    wanted = [] if most == 1 else [(str(n), at) for n in (2, 1, 0) for at in (107, 57, 7)]
    assert hits == wanted


async def test_a_scan_advances_at_least_one_message(store: Store) -> None:
    for wrong in (0, -1, 1.5):
        with pytest.raises(ConfigurationError):
            await search(store, "a", "x", scan=True, scan_limit=wrong)  # type: ignore[arg-type]


@given(st.text(), st.text(max_size=20))
def test_a_text_contains_its_own_words(text: str, more: str) -> None:
    words = words_of(text)
    assert words == words_of(" ".join(words))
    assert all(holds(f"{text} {more}", [[word]]) for word in words)
    assert holds(text, [words] if words else []) is bool(words)


@given(st.text(), st.text(max_size=20))
def test_places_of_words_lie_in_the_text_and_do_not_overlap(text: str, query: str) -> None:
    places = places_of(text, phrases_of(query))
    edges = [edge for place in places for edge in place]
    assert edges == sorted(edges)
    assert all(0 <= start < stop <= len(text) for start, stop in places)


# SQLite's index


@pytest.mark.front
class TestSqliteWithAnIndex(StoreContractSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> UrlHarness:
        names = itertools.count()
        return UrlHarness(lambda: switched_on(tmp_path / f"{next(names)}.db"), synchronous="normal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "threads.db"


@pytest.fixture
def look(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, isolation_level=None)
    yield db
    db.close()


async def test_nothing_is_indexed_before_the_first_search(path: Path, look: sqlite3.Connection) -> None:
    async with SqliteStore(path) as store:
        await store.append(KEY, [said("word")])
        assert look.execute("SELECT count(*) FROM message_words").fetchone() == (0,)
        assert len(await store.search("a", "word")) == 1
        await store.append(KEY, [said("word")])
        assert look.execute("SELECT count(*) FROM message_words").fetchone() == (2,)


async def test_another_process_keeps_the_index_too(path: Path) -> None:
    async with SqliteStore(path) as one, SqliteStore(path) as other:
        await other.append(KEY, [said("word")])
        assert len(await one.search("a", "word")) == 1
        await other.append(KEY, [said("word")])
        assert len(await one.search("a", "word")) == 2


async def test_index_and_messages_change_together(path: Path, look: sqlite3.Connection) -> None:
    async with SqliteStore(path, retention=Retention(max_messages=3)) as store:
        await store.search("a", "word")
        for number in range(30):
            await store.append(ThreadKey(str(number % 3), "a"), [said("word"), said("other word")])
            if number % 7 == 0:
                await store.truncate(ThreadKey(str(number % 3), "a"), stop=2 * number)
            if number % 10 == 0:
                await store.delete_thread(ThreadKey("1", "a"))
        messages, words = (
            look.execute(query).fetchall() for query in ("SELECT id FROM messages", "SELECT rowid FROM message_words")
        )
    assert sorted(messages) == sorted(words) != []


async def test_an_index_that_was_left_half_built_is_finished(path: Path, look: sqlite3.Connection) -> None:
    async with SqliteStore(path, synchronous="normal") as store:
        for number in range(30):
            await store.append(ThreadKey(str(number), "a"), [said(f"word number{number} {at}") for at in range(50)])
        look.execute("INSERT INTO search_index (id, indexed_to, upto) SELECT 1, 700, max(id) FROM messages")
        # What a builder that was killed had done so far.
        for at in range(1, 701):
            look.execute("INSERT INTO message_words (rowid, tenant, words) VALUES (?, 'x', 'old')", (at,))
        await store.delete_thread(ThreadKey("20", "a"))
        await store.append(ThreadKey("new", "a"), [said("word number20")])
        assert len(await store.search("a", "number29", limit=100)) == 50
        assert [hit.key.thread_id for hit in await store.search("a", "number20")] == ["new"]
        assert look.execute("SELECT indexed_to = upto FROM search_index").fetchone() == (1,)


async def test_searches_at_the_same_time_build_one_index(path: Path) -> None:
    async with SqliteStore(path, synchronous="normal") as one, SqliteStore(path, synchronous="normal") as other:
        for number in range(30):
            await one.append(ThreadKey(str(number), "a"), [said(f"word {at}") for at in range(50)])
        pages = await asyncio.gather(*(store.search("a", "word 7", limit=100) for store in (one, other) * 3))
        assert [len(page) for page in pages] == [30] * 6


async def test_a_damaged_record_does_not_keep_others_from_being_found(path: Path, look: sqlite3.Connection) -> None:
    async with SqliteStore(path) as store:
        await store.append(KEY, [said("one word"), said("two word")])
        look.execute("UPDATE messages SET payload = x'ff' WHERE seq = 0")
        assert [hit.seq for hit in await store.search("a", "word")] == [1]


async def test_a_large_message_is_found_by_its_beginning(path: Path) -> None:
    long = " ".join(f"word{number}" for number in range(400_000))
    async with SqliteStore(path) as store:
        await store.search("a", "x")
        await store.append(KEY, [said(long), said("a\0b nul"), said("x" * 100_000), said("")])
        assert [hit.seq for hit in await store.search("a", "word7")] == [0]
        assert [hit.seq for hit in await store.search("a", "nul")] == [1]
        assert len(await store.read(KEY)) == 4
