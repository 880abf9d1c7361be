"""The index in an SQLite file: the suite, its triggers in a store's file, and what it refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from everthread import ConfigurationError, Retention, ThreadKey, new_message, open_store
from everthread.recall import Follower, SqliteVectorIndex, VectorIndex
from everthread.recall.index import Entry, Mark
from everthread.testing.vector_indexes import VectorIndexSuite
from tests.recall.embedding import DIMENSIONS, words_embedder

KEY = ThreadKey("trip", "a")


class TestSqliteIndex(VectorIndexSuite):
    @pytest.fixture
    def make_index(self, tmp_path: Path) -> Callable[[], VectorIndex]:
        return lambda: SqliteVectorIndex(tmp_path / "index.db", words_embedder())


class TestInAStoresFile(VectorIndexSuite):
    @pytest.fixture
    async def make_index(self, tmp_path: Path) -> Callable[[], VectorIndex]:
        async with open_store(f"sqlite:///{tmp_path}/threads.db"):
            pass
        return lambda: SqliteVectorIndex(tmp_path / "threads.db", words_embedder())


def turn(text: str) -> list[object]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": f"About {text}: yes."}]


def stored(path: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT thread_id, turn FROM recall_vectors ORDER BY thread_id, turn").fetchall()
    db.close()
    return rows


async def test_the_store_removes_vectors_with_their_messages(tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    async with open_store(f"sqlite:///{path}") as store:
        for number in range(3):
            await store.append(KEY, [new_message(each) for each in turn(f"train {number}")])
            await store.append(ThreadKey("other", "a"), [new_message(each) for each in turn(f"boat {number}")])
        index = SqliteVectorIndex(path, words_embedder())
        await Follower(store, index, words_embedder(), tenants=("a",)).catch_up()
        assert stored(path) == [(name, number) for name in ("other", "trip") for number in (0, 2, 4)]

        await store.truncate(KEY, stop=4)  # undo: the follower does not run
        assert [number for name, number in stored(path) if name == "trip"] == [0, 2]
        await store.append(KEY, [new_message(each) for each in turn("new")], retention=Retention(max_messages=2))
        assert [number for name, number in stored(path) if name == "trip"] == []
        assert len(stored(path)) == 3
        await store.delete_thread(ThreadKey("other", "a"))
        assert stored(path) == []
        await index.aclose()


async def test_erasing_a_tenant_leaves_no_vector_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    async with open_store(f"sqlite:///{path}") as store:
        await store.append(KEY, [new_message(each) for each in turn("secret fado")])
        index = SqliteVectorIndex(path, words_embedder())
        await Follower(store, index, words_embedder(), tenants=("a",)).catch_up()
        with sqlite3.connect(path) as db:
            (vector,) = db.execute("SELECT vector FROM recall_vectors").fetchone()
        db.close()
        await store.delete_tenant("a")
        await index.aclose()
    assert stored(path) == []
    for file in tmp_path.iterdir():
        assert vector not in file.read_bytes(), file.name


async def test_recall_at_10_of_random_vectors(tmp_path: Path) -> None:
    """The scan over signs finds what an exact comparison finds."""
    embedder = words_embedder()
    index = SqliteVectorIndex(tmp_path / "index.db", embedder)
    random = np.random.default_rng(1)
    centers = random.standard_normal((100, DIMENSIONS))
    made = centers[random.integers(0, 100, 5000)] + 0.6 * random.standard_normal((5000, DIMENSIONS))
    vectors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    entries = [Entry(number, number, 0, number, None, b"", each) for number, each in enumerate(vectors)]
    await index.add(KEY, entries, Mark(0, 0, 5000, 5000, 0), expected=None)
    found = 0
    for question in vectors[:50]:
        exact = set(np.argsort(-(vectors @ question))[:10].tolist())
        found += len(exact & {near.turn for near in await index.nearest("a", question, 10)})
    assert found >= 475  # of 500: recall@10 of at least 0.95
    await index.aclose()


async def test_models_are_kept_apart(tmp_path: Path) -> None:
    old, new = (SqliteVectorIndex(tmp_path / "index.db", words_embedder(name)) for name in ("old", "new"))
    vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
    await old.add(KEY, [Entry(0, 0, 0, 0, None, b"", vector)], Mark(0, 0, 1, 1, 1), expected=None)
    assert not await new.marks([KEY])
    assert not await new.nearest("a", vector, 1)
    assert len(await old.nearest("a", vector, 1)) == 1
    await old.aclose()
    await new.aclose()


async def test_other_databases_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another application"):
        await SqliteVectorIndex(path, words_embedder()).open()
    assert path.read_bytes()[100:] == before[100:]
    text = tmp_path / "text.db"
    text.write_text("no database at all, but long enough to be read as one" * 50)
    with pytest.raises(ConfigurationError, match="not a usable SQLite database"):
        await SqliteVectorIndex(text, words_embedder()).open()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await SqliteVectorIndex(tmp_path / "no" / "folder.db", words_embedder()).open()


async def test_the_file_is_the_owners(tmp_path: Path) -> None:
    index = SqliteVectorIndex(tmp_path / "index.db", words_embedder())
    await index.open()
    assert (tmp_path / "index.db").stat().st_mode & 0o077 == 0
    await index.aclose()
