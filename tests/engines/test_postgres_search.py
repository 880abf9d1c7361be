"""Full-text search on PostgreSQL: what is found, for whom, and by which index."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from everthread import (
    ConfigurationError,
    InvalidMessageError,
    NewMessage,
    Retention,
    SupportsSearch,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.engines.postgres import SearchingPostgresStore
from everthread.testing import StoreContractSuite, UrlHarness
from tests.postgres_server import PostgresServer, fresh_url

KEY = ThreadKey("trip", "a")


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return fresh_url(postgres, search="true")


@pytest.fixture
async def store(url: str) -> AsyncIterator[SearchingPostgresStore]:
    async with open_store(url) as store:
        assert isinstance(store, SearchingPostgresStore)
        yield store


@pytest.mark.campaign
class TestGuaranteesWithSearchOn(StoreContractSuite):
    @pytest.fixture
    def harness(self, postgres: PostgresServer) -> UrlHarness:
        return UrlHarness(lambda: fresh_url(postgres, search="true"))


def test_search_is_an_ability_that_only_a_searching_store_has(postgres: PostgresServer) -> None:
    assert isinstance(open_store(fresh_url(postgres, search="true")), SupportsSearch)
    assert not isinstance(open_store(fresh_url(postgres)), SupportsSearch)


async def found(store: SupportsSearch, text: str, tenant: str = "a") -> list[int]:
    return [hit.seq for hit in await store.search(tenant, text)]


async def test_messages_are_found_by_all_their_words_the_newest_first(store: SearchingPostgresStore) -> None:
    await store.append(KEY, [said("The train to Rome"), said("A plane to Rome"), said("The train to Ostia")])
    assert await found(store, "rome") == [1, 0]
    assert await found(store, "TRAIN rome") == [0]
    assert await found(store, '"to ostia"') == [2]
    assert await found(store, '"ostia to"') == []
    assert await found(store, "nothing") == []
    assert await found(store, " ?! ") == []


async def test_a_hit_says_where_it_is_and_shows_the_words_around(store: SearchingPostgresStore) -> None:
    await store.append(KEY, [said("x " * 500 + "Porta San Paolo" + " y" * 500)])
    (hit,) = await store.search("a", "paolo")
    assert (hit.key, hit.seq, hit.role) == (KEY, 0, "user")
    assert "Porta San Paolo" in hit.snippet
    assert len(hit.snippet) <= 200
    assert "Paolo" not in repr(hit)


async def test_only_the_tenants_own_messages_are_found(store: SearchingPostgresStore) -> None:
    other = ThreadKey("trip", "b")
    await store.append(KEY, [said("secret")])
    await store.append(other, [said("secret"), said("secret")])
    assert [hit.key for hit in await store.search("a", "secret")] == [KEY]
    assert [hit.key for hit in await store.search("b", "secret")] == [other, other]
    assert await found(store, "secret", "") == []


async def test_what_is_trimmed_deleted_or_expired_is_not_found(url: str) -> None:
    now = 1_700_000_000.0
    async with open_store(url, clock=lambda: now) as store:
        assert isinstance(store, SupportsSearch)
        await store.append(KEY, [said("one rome"), said("two rome")], retention=Retention(max_messages=1))
        assert await found(store, "rome") == [1]
        await store.delete_thread(KEY)
        assert await found(store, "rome") == []


async def test_pages_of_hits_are_complete_and_without_doubles(store: SearchingPostgresStore) -> None:
    for number in range(4):
        key = ThreadKey(str(number), "a")
        await store.append(key, [said(f"word {at}") for at in range(5)])
    hits: list[tuple[str, int]] = []
    cursor: str | None = None
    while True:
        page = await store.search("a", "word", limit=3, cursor=cursor)
        hits += [(hit.key.thread_id, hit.seq) for hit in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(hits) == [(str(number), at) for number in range(4) for at in range(5)]
    first = (await store.search("a", "word", limit=3)).cursor
    for wrong in ("made up", "", first[:-4] if first else ""):
        with pytest.raises(ConfigurationError):
            await store.search("a", "word", cursor=wrong)
    with pytest.raises(ConfigurationError):
        await store.search("b", "word", cursor=first)


async def test_bad_input_is_refused(store: SearchingPostgresStore) -> None:
    for wrong in (None, 3, "x" * 1001):
        with pytest.raises(InvalidMessageError):
            await store.search("a", wrong)  # type: ignore[arg-type]
    for limit in (0, -1, 1.5):
        with pytest.raises(ConfigurationError):
            await store.search("a", "x", limit=limit)  # type: ignore[arg-type]


async def test_text_that_no_index_takes_is_stored_all_the_same(store: SearchingPostgresStore) -> None:
    long = " ".join(f"word{number}" for number in range(400_000))
    hostile = ["a\0b nul", "\x01 control", "x" * 100_000, long, "", "' \\ \" : & | ! ( ) <-> *"]
    await store.append(KEY, [said(text) for text in hostile])
    assert len(await store.read(KEY)) == len(hostile)
    assert await found(store, "nul") == [0]
    assert await found(store, "word7") == [3]
    for text in hostile:
        await store.search("a", text[:1000])


async def test_a_language_decides_what_is_the_same_word(postgres: PostgresServer) -> None:
    async with open_store(fresh_url(postgres, search="true", search_language="english")) as store:
        assert isinstance(store, SupportsSearch)
        await store.append(KEY, [said("She was travelling")])
        assert await found(store, "travels") == [0]
    async with open_store(fresh_url(postgres, search="true")) as store:
        assert isinstance(store, SupportsSearch)
        await store.append(KEY, [said("She was travelling")])
        assert await found(store, "travels") == []


async def test_a_language_that_the_server_lacks_is_a_typed_error(postgres: PostgresServer) -> None:
    async with open_store(fresh_url(postgres, search="true", search_language="klingon")) as store:
        with pytest.raises(ConfigurationError, match="language"):
            await store.append(KEY, [said("x")])


async def test_a_search_goes_through_the_index(store: SearchingPostgresStore, url: str) -> None:
    for thread in range(300):
        await store.append(ThreadKey(str(thread), "a"), [said(f"word number{thread} {at}") for at in range(20)])
    schema = url.partition("schema=")[2].partition("&")[0]
    connection = await asyncpg.connect(url.partition("?")[0])
    try:
        await connection.execute(f"ANALYZE {schema}.messages, {schema}.threads")
        query = store._queries["search"]
        # As the store's own connections have it.
        await connection.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
        statement = await connection.prepare(query)
        top = 2**53 - 1
        plan = json.dumps(await statement.explain("a", "number7", "simple", None, 20, top, top, top))
    finally:
        await connection.close()
    assert "messages_search_idx" in plan
