"""Find stored conversations by their meaning.

A `Follower` reads new turns of a store, embeds them and writes their vectors to a `VectorIndex`. `recall` embeds a
question and returns the turns with the nearest vectors. Needs ``pip install 'everthread[recall]'``.
"""

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.recall.asking import Recalled, recall
    from everthread.recall.embedders import Embedder, FunctionEmbedder, OpenAIEmbedder
    from everthread.recall.follower import Follower
    from everthread.recall.index import VectorIndex
    from everthread.recall.minilm import MiniLMEmbedder
    from everthread.recall.postgres_index import PostgresVectorIndex
    from everthread.recall.redis_index import RedisVectorIndex
    from everthread.recall.sqlite_index import SqliteVectorIndex

__all__ = [
    "Embedder",
    "Follower",
    "FunctionEmbedder",
    "MiniLMEmbedder",
    "OpenAIEmbedder",
    "PostgresVectorIndex",
    "Recalled",
    "RedisVectorIndex",
    "SqliteVectorIndex",
    "VectorIndex",
    "recall",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Embedder": "embedders",
        "Follower": "follower",
        "FunctionEmbedder": "embedders",
        "MiniLMEmbedder": "minilm",
        "OpenAIEmbedder": "embedders",
        "PostgresVectorIndex": "postgres_index",
        "Recalled": "asking",
        "RedisVectorIndex": "redis_index",
        "SqliteVectorIndex": "sqlite_index",
        "VectorIndex": "index",
        "recall": "asking",
    },
    "recall",
    imported="numpy",
)
