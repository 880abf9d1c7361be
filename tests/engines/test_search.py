"""Search on every engine: SQLite's index, and the scan that stands in where there is none."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread import (
    ConfigurationError,
    InvalidMessageError,
    NewMessage,
    Retention,
    Store,
    SupportsSearch,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.engines.sqlite import SqliteStore
from everthread.engines.sqlite._database import Place, connect_writer
from everthread.engines.sqlite._sql import queries
from everthread.searching import Findings, search
from everthread.testing import StoreContractSuite, UrlHarness
from everthread.words import holds, phrases_of, places_of, words_of
from tests.servers import Server

KEY = ThreadKey("trip", "a")
OPERATORS = (
    "word OR nothing", "word NOT x", "NEAR(word x)", "word*", "^word", "words: word", "{words}: word", "tenant: a",
    "wor", "word AND nothing", "-word nothing", "word + nothing", "(word nothing)",
)  # fmt: skip


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str
) -> AsyncIterator[Store]:
    urls = {
        "memory": "memory:",
        "sqlite": f"sqlite:///{tmp_path}/threads.db?synchronous=normal",
        "redis": f"redis://127.0.0.1:{plain_redis_server.port}?prefix={fresh_prefix}",
    }
    async with open_store(urls[request.param]) as store:
        yield store


async def found(store: Store, text: str, tenant: str = "a") -> list[int]:
    return [hit.seq for hit in (await search(store, tenant, text)).hits]


async def all_of(store: Store, text: str, **options: int) -> list[Findings]:
    parts = [await search(store, "a", text, **options)]  # type: ignore[arg-type]
    while parts[-1].cursor is not None:
        parts.append(await search(store, "a", text, cursor=parts[-1].cursor, **options))  # type: ignore[arg-type]
        assert len(parts) < 200
    return parts


async def test_messages_are_found_by_all_their_words_the_newest_first(store: Store) -> None:
    await store.append(KEY, [said("The train to Rome"), said("A plane to Rome"), said("The train to Ostia")])
    assert await found(store, "rome") == [1, 0]
    assert await found(store, "TRAIN rome") == [0]
    assert await found(store, '"to ostia"') == [2]
    assert await found(store, '"ostia to"') == []
    assert await found(store, "nothing") == []
    assert await found(store, " ?! ") == []
    assert await found(store, "") == []


async def test_whether_there_was_an_index_is_told(store: Store) -> None:
    await store.append(KEY, [said("word")])
    told = await search(store, "a", "word")
    assert told.is_scan is not isinstance(store, SupportsSearch)
    scan = await search(store, "a", "word", scan=True)
    assert (scan.is_scan, scan.scanned, scan.is_complete) == (True, 1, True)
    assert scan.hits == told.hits


async def test_accents_do_not_count_and_ideographs_are_words(store: Store) -> None:
    await store.append(KEY, [said("Café in Zürich"), said("我想去东京旅行"), said("हिन्दी भाषा")])
    assert await found(store, "cafe zurich") == [0]
    assert await found(store, "东京") == [1]
    assert await found(store, "京东") == []
    assert await found(store, "हिन्दी") == [2]


@pytest.mark.parametrize("text", OPERATORS)
async def test_what_looks_like_syntax_is_literal(text: str, store: Store) -> None:
    await store.append(KEY, [said("a word is here"), said(f"say {text} please")])
    assert await found(store, text) == [1] or phrases_of(text) == [["word"]]


async def test_any_text_may_be_searched_for(store: Store) -> None:
    for text in [
        '"',
        '""',
        '"""',
        "'",
        "\0",
        "a\0b",
        "\ud800",
        "%",
        "_",
        "\\",
        "; DROP TABLE messages; --",
        "x" * 1000,
    ]:
        await store.append(KEY, [said("x" + text.replace("\ud800", ""))])
        assert isinstance((await search(store, "a", text)).hits, tuple)


async def test_only_the_tenants_own_messages_are_found(store: Store) -> None:
    other = ThreadKey("trip", "b")
    await store.append(KEY, [said("secret")])
    await store.append(other, [said("secret"), said("secret")])
    assert [hit.key for hit in (await search(store, "a", "secret")).hits] == [KEY]
    assert [hit.key for hit in (await search(store, "b", "secret")).hits] == [other, other]
    assert await found(store, "secret", "") == []


async def test_a_hit_says_where_it_is_and_keeps_its_text_out_of_logs(store: Store) -> None:
    await store.append(KEY, [said("x " * 500 + "Porta San Paolo" + " y" * 500)])
    (hit,) = (await search(store, "a", "paolo")).hits
    assert (hit.key, hit.seq, hit.role) == (KEY, 0, "user")
    assert "Porta San Paolo" in hit.snippet
    assert len(hit.snippet) <= 200
    assert "Paolo" not in repr(hit)


async def test_what_is_trimmed_undone_or_deleted_is_not_found(store: Store) -> None:
    await found(store, "rome")
    await store.append(KEY, [said("one rome"), said("two rome")], retention=Retention(max_messages=1))
    assert await found(store, "rome") == [1]
    await store.append(KEY, [said("three rome")])
    await store.truncate(KEY, stop=2)
    await store.append(KEY, [said("four ostia")])
    assert await found(store, "rome") == [1]
    assert await found(store, "ostia") == [3]
    await store.delete_thread(KEY)
    await store.append(KEY, [said("five")])
    assert await found(store, "rome") == []
    assert await found(store, "five") == [0]


async def test_pages_of_hits_are_complete_and_without_doubles(store: Store) -> None:
    for number in range(4):
        await store.append(ThreadKey(str(number), "a"), [said(f"word {at}") for at in range(5)])
    parts = await all_of(store, "word", limit=3)
    hits = [(hit.key.thread_id, hit.seq) for part in parts for hit in part.hits]
    assert sorted(hits) == [(str(number), at) for number in range(4) for at in range(5)]
    assert len(hits) == len(set(hits))
    cursor = parts[0].cursor
    for wrong in ("made up", "", (cursor or "")[:-4]):
        with pytest.raises(ConfigurationError):
            await search(store, "a", "word", cursor=wrong)
    with pytest.raises(ConfigurationError):
        await search(store, "b", "word", cursor=cursor)


@pytest.mark.parametrize("most", [1, 7, 100, 150])
async def test_a_scan_stops_at_its_limit_and_goes_on_from_there(most: int, store: Store) -> None:
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


async def test_bad_input_is_refused(store: Store) -> None:
    for wrong in (None, 3, "x" * 1001):
        with pytest.raises(InvalidMessageError):
            await search(store, "a", wrong)  # type: ignore[arg-type]
    for limit in (0, -1, 1.5):
        with pytest.raises(ConfigurationError):
            await search(store, "a", "x", limit=limit)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        await search(store, "a", "x", scan=True, scan_limit=0)


@given(st.text(), st.text(max_size=20))
def test_a_text_holds_what_is_taken_from_it(text: str, more: str) -> None:
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


def switched_on(path: Path) -> str:
    db = connect_writer(Place(path, "normal", 10))
    db.execute(queries()["begin_index"]).fetchall()
    db.close()
    return f"sqlite:///{path}"


@pytest.mark.campaign
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


async def test_nothing_is_indexed_before_somebody_searches(path: Path, look: sqlite3.Connection) -> None:
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
