"""The index in PostgreSQL with pgvector."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import numpy as np
import pytest

from everthread import ConfigurationError, ThreadKey
from everthread.recall import PostgresVectorIndex, VectorIndex
from everthread.recall.index import Entry, Mark
from everthread.testing.vector_indexes import VectorIndexSuite
from tests.postgres_server import PostgresServer, fresh_url, schema_of
from tests.recall.embedding import DIMENSIONS, words_embedder

KEY = ThreadKey("trip", "a")


class TestPostgresIndex(VectorIndexSuite):
    @pytest.fixture
    def make_index(self, postgres: PostgresServer) -> Callable[[], VectorIndex]:
        url = fresh_url(postgres)
        return lambda: PostgresVectorIndex(url, words_embedder())


async def test_many_entries_are_searched_with_hnsw(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the tenant is a small part of all entries."""
    monkeypatch.setattr("everthread.recall.postgres_index._FEW", 100)
    index = PostgresVectorIndex(fresh_url(postgres), words_embedder())
    random = np.random.default_rng(1)
    centers = random.standard_normal((40, DIMENSIONS))
    made = centers[random.integers(0, 40, 1500)] + 0.6 * random.standard_normal((1500, DIMENSIONS))
    vectors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    for tenant, mine in (("a", range(1200)), ("b", range(1200, 1500))):
        entries = [Entry(number, number, 0, number, None, b"", vectors[number]) for number in mine]
        await index.add(ThreadKey("trip", tenant), entries, Mark(0, 0, 1, 1, 1), expected=None)
    found = 0
    for question in vectors[1200:1230]:
        exact = set((1200 + np.argsort(-(vectors[1200:] @ question))[:10]).tolist())
        near = await index.nearest("b", question, 10)
        assert {each.key.tenant for each in near} == {"b"}
        found += len(exact & {each.turn for each in near})
    assert found >= 285  # of 300: recall@10 of at least 0.95
    await index.aclose()


async def test_models_have_tables_of_their_own(postgres: PostgresServer) -> None:
    url = fresh_url(postgres)
    old, new = (PostgresVectorIndex(url, words_embedder(name)) for name in ("old", "new"))
    vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
    await old.add(KEY, [Entry(0, 0, 0, 0, None, b"", vector)], Mark(0, 0, 1, 1, 1), expected=None)
    assert not await new.marks([KEY])
    assert not await new.nearest("a", vector, 1)
    assert len(await old.nearest("a", vector, 1)) == 1
    assert await new.delete_tenant("a") == 1
    assert not await old.nearest("a", vector, 1)
    await old.aclose()
    await new.aclose()


async def test_a_missing_index_or_extension_is_explained(postgres: PostgresServer) -> None:
    url = fresh_url(postgres)
    with pytest.raises(ConfigurationError, match="recall follow"):
        await PostgresVectorIndex(url, words_embedder(), create=False).open()
    admin = await asyncpg.connect(postgres.url())
    await admin.execute("CREATE DATABASE bare")
    await admin.execute("CREATE ROLE reader LOGIN")
    await admin.close()
    bare = PostgresVectorIndex(postgres.url(user="reader", database="bare"), words_embedder())
    with pytest.raises(ConfigurationError, match="CREATE EXTENSION vector"):
        await bare.open()
    await bare.aclose()


async def test_the_tables_are_in_the_stores_schema(postgres: PostgresServer) -> None:
    url = fresh_url(postgres)
    index = PostgresVectorIndex(f"{url}&table_prefix=p_", words_embedder())
    await index.open()
    await index.aclose()
    db = await asyncpg.connect(postgres.url())
    rows = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema_of(url))
    await db.close()
    assert [row[0] for row in rows] == ["p_recall_marks", "p_recall_models", "p_recall_vectors_1"]
