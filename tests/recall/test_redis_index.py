"""The index in the vector sets of Redis 8."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import redis

from everthread import ConfigurationError, ThreadKey, UnsupportedError
from everthread.recall import RedisVectorIndex, VectorIndex
from everthread.recall.index import Entry, Mark
from everthread.testing.vector_indexes import VectorIndexSuite
from tests.recall.embedding import DIMENSIONS, words_embedder
from tests.redis_topologies import redis_cluster
from tests.servers import Server, redis_server

KEY = ThreadKey("trip", "a")


class TestRedisIndex(VectorIndexSuite):
    @pytest.fixture
    def make_index(self, plain_redis_server: Server, fresh_prefix: str) -> Callable[[], VectorIndex]:
        url = f"redis://127.0.0.1:{plain_redis_server.port}/0?prefix={fresh_prefix}"
        return lambda: RedisVectorIndex(url, words_embedder())


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with redis_cluster() as servers:
        yield servers.url


@pytest.mark.slow
class TestRedisIndexOnACluster(VectorIndexSuite):
    @pytest.fixture
    def make_index(self, cluster: str, fresh_prefix: str) -> Callable[[], VectorIndex]:
        return lambda: RedisVectorIndex(f"{cluster}?prefix={fresh_prefix}", words_embedder())


async def test_random_vectors_are_found(plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/0?prefix={fresh_prefix}"
    index = RedisVectorIndex(url, words_embedder())
    random = np.random.default_rng(1)
    centers = random.standard_normal((40, DIMENSIONS))
    made = centers[random.integers(0, 40, 1000)] + 0.6 * random.standard_normal((1000, DIMENSIONS))
    vectors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    entries = [Entry(number, number, 0, number, None, b"12345678", each) for number, each in enumerate(vectors)]
    await index.add(KEY, entries, Mark(0, 0, 1, 1, 1), expected=None)
    found = 0
    for question in vectors[:30]:
        exact = set(np.argsort(-(vectors @ question))[:10].tolist())
        found += len(exact & {near.turn for near in await index.nearest("a", question, 10)})
    assert found >= 285  # of 300: recall@10 of at least 0.95
    await index.aclose()


async def test_models_are_kept_apart_and_erased_together(plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/0?prefix={fresh_prefix}"
    old, new = (RedisVectorIndex(url, words_embedder(name)) for name in ("old", "new"))
    vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
    await old.add(KEY, [Entry(0, 0, 0, 0, None, b"", vector)], Mark(0, 0, 1, 1, 1), expected=None)
    assert not await new.marks([KEY])
    assert not await new.nearest("a", vector, 1)
    assert await new.delete_tenant("a") == 1
    assert not await old.nearest("a", vector, 1)
    client = redis.Redis(port=plain_redis_server.port)
    assert list(client.scan_iter(f"*{fresh_prefix}@a*")) == []
    client.close()
    await old.aclose()
    await new.aclose()


async def test_a_missing_index_is_explained(plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/0?prefix={fresh_prefix}"
    index = RedisVectorIndex(url, words_embedder(), create=False)
    with pytest.raises(ConfigurationError, match="recall follow"):
        await index.nearest("a", np.eye(1, DIMENSIONS, dtype=np.float32)[0], 1)
    await index.aclose()


async def test_valkey_lacks_vector_sets_and_the_error_says_so() -> None:
    with redis_server("valkey") as server:
        index = RedisVectorIndex(f"redis://127.0.0.1:{server.port}", words_embedder())
        vector = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
        with pytest.raises(UnsupportedError, match="Redis 8 or newer"):
            await index.add(KEY, [Entry(0, 0, 0, 0, None, b"", vector)], Mark(0, 0, 1, 1, 1), expected=None)
        await index.aclose()
