"""Full-text search on PostgreSQL: what is found, for whom, and by which index."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from everthread import (
    ConfigurationError,
    NewMessage,
    SupportsSearch,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.capabilities import capability
from everthread.engines.postgres import SearchingPostgresStore
from everthread.testing import SearchSuite, StoreContractSuite, UrlHarness
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


@pytest.mark.essential_first
class TestSearch(SearchSuite):
    @pytest.fixture
    def harness(self, postgres: PostgresServer) -> UrlHarness:
        return UrlHarness(lambda: fresh_url(postgres, search="true"))


@pytest.mark.front
class TestGuaranteesWithSearchOn(StoreContractSuite):
    @pytest.fixture
    def harness(self, postgres: PostgresServer) -> UrlHarness:
        return UrlHarness(lambda: fresh_url(postgres, search="true"))


def test_search_is_an_ability_that_only_a_searching_store_has(postgres: PostgresServer) -> None:
    assert capability(open_store(fresh_url(postgres, search="true")), SupportsSearch)
    assert capability(open_store(fresh_url(postgres)), SupportsSearch) is None


async def found(store: SupportsSearch, text: str) -> list[int]:
    return [hit.seq for hit in await store.search("a", text)]


async def test_a_large_message_is_found_by_its_beginning(store: SearchingPostgresStore) -> None:
    await store.append(KEY, [said(" ".join(f"word{number}" for number in range(400_000)))])
    assert len(await store.read(KEY)) == 1
    assert await found(store, "word7") == [0]


async def test_a_message_of_nothing_but_different_words_is_stored(store: SearchingPostgresStore) -> None:
    """More of them than fit into a row: each of these characters stands for four or five letters."""
    words = ["".join(word) for word in itertools.islice(itertools.product("\u327c\u327d", repeat=13), 7000)]
    await store.append(KEY, [said(" ".join(words))])
    assert await found(store, words[7]) == [0]


async def test_words_are_the_same_as_on_other_engines(store: SearchingPostgresStore) -> None:
    await store.append(
        KEY, [said("Café in Zürich"), said("我想去东京旅行"), said("हिन्दी भाषा"), said("see example.com/a_b")]
    )
    for text, wanted in (
        ("cafe zurich", [0]), ("东京", [1]), ("京东", []), ("हिन्दी", [2]), ("भाषा", [2]), ("example", [3]),
        ("example.com", [3]), ("com/a", [3]), ("b", [3]),
    ):  # fmt: skip
        assert await found(store, text) == wanted, text


@pytest.mark.parametrize("text", ["rome or ostia", "rome | ostia", "-ostia rome", "!ostia & rome", "ostia:* rome"])
async def test_no_language_has_operators(postgres: PostgresServer, text: str) -> None:
    async with open_store(fresh_url(postgres, search="true", search_language="english")) as store:
        assert capability(store, SupportsSearch)
        await store.append(KEY, [said("rome"), said("ostia and rome"), said("ostia")])
        assert await found(store, text) == [1]
        assert await found(store, '"and rome"') == [1, 0]
        assert await found(store, '"ostia and rome"') == [1]
        assert await found(store, "and") == []


async def test_a_language_decides_what_is_the_same_word(postgres: PostgresServer) -> None:
    async with open_store(fresh_url(postgres, search="true", search_language="english")) as store:
        assert capability(store, SupportsSearch)
        await store.append(KEY, [said("She was travelling")])
        assert await found(store, "travels") == [0]
    async with open_store(fresh_url(postgres, search="true")) as store:
        assert capability(store, SupportsSearch)
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
        query = store._connections.queries["search"]
        # As the store's own connections have it.
        await connection.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
        statement = await connection.prepare(query)
        top = 2**53 - 1
        plan = json.dumps(await statement.explain("a", ["number7"], "simple", None, 20, top, top, top))
    finally:
        await connection.close()
    assert "messages_search_idx" in plan
