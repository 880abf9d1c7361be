"""An index in PostgreSQL with pgvector (0.8 or newer), in the database and schema of a `postgresql:` store."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from everthread.errors import ConfigurationError, StoreUnavailableError
from everthread.model import ThreadKey
from everthread.recall.embedders import Embedder
from everthread.recall.index import Entry, Mark, Near, VectorIndex, best_of_each_turn
from everthread.recall.passages import VERSION

try:
    import asyncpg

    from everthread.engines.postgres import PostgresStore
    from everthread.engines.postgres.errors import translate
    from everthread.engines.postgres.rows import pack, unpack
except ImportError as error:
    from everthread._extras import missing_extra

    raise missing_extra("postgres", error) from error

if TYPE_CHECKING:
    from everthread.engines.postgres.connection import Connection

log = logging.getLogger("everthread.recall")

_OLDEST = (0, 8)
_FEW = 20_000
"""Up to this number of a tenant's entries, all are compared. HNSW finds less of a tenant that is a small part of it."""

_PARTS_A_TURN = 3
_MOST_FOUND = 1000

_TABLES = """
CREATE TABLE IF NOT EXISTS @recall_models (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE, dimensions int NOT NULL);
CREATE TABLE IF NOT EXISTS @recall_marks (
    tenant text COLLATE "C" NOT NULL, thread_id text COLLATE "C" NOT NULL, model int NOT NULL,
    created_ms bigint NOT NULL, head_seq bigint NOT NULL, next_seq bigint NOT NULL, count bigint NOT NULL,
    size bigint NOT NULL, PRIMARY KEY (tenant, thread_id, model));
"""
_VECTORS = """
CREATE TABLE IF NOT EXISTS @recall_vectors_{model} (
    tenant text COLLATE "C" NOT NULL, thread_id text COLLATE "C" NOT NULL, turn bigint NOT NULL, part int NOT NULL,
    last bigint NOT NULL, seq bigint NOT NULL, created_ms bigint, digest bytea NOT NULL,
    vector {types}.halfvec({dimensions}) NOT NULL, PRIMARY KEY (tenant, thread_id, turn, part));
CREATE INDEX IF NOT EXISTS {name}recall_near_{model} ON @recall_vectors_{model}
    USING hnsw (vector {types}.halfvec_ip_ops);
"""
_EXTENSION = (
    "SELECT n.nspname, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    " WHERE e.extname = 'vector'"
)
_COLUMNS = "thread_id, turn, last, part, seq, created_ms, digest"


class PostgresVectorIndex(VectorIndex):
    """Vectors in tables beside those of a PostgreSQL store, one row a passage, with an HNSW index.

    A vector is stored with 16 bits a dimension. The extension ``vector`` is created if the user may do that.

    Args:
        url: The store's URL, with its options.
        embedder: The model that makes the vectors; at most 4,000 dimensions.
        create: Make an index that does not exist. Otherwise its first use raises `ConfigurationError`.
        options: Options of `PostgresStore`, such as ``password``.
    """

    def __init__(self, url: str, embedder: Embedder, *, create: bool = True, **options: Any) -> None:
        self.model = f"{embedder.name}/{VERSION}"
        self.dimensions = embedder.dimensions
        self._create = create
        store = PostgresStore.from_url(url, **options)
        self._location = store.location
        self._connections, self._schema, self._prefix = store.beside()
        self._is_open = False
        self._types = ""
        self._vectors = ""
        self._model = 0

    async def open(self) -> None:
        """Connect, and create the extension and the tables that are missing."""
        async with self._connected():
            pass

    async def aclose(self) -> None:
        """Close the connections."""
        if self._is_open:
            self._is_open = False
            await self._connections.close()

    async def marks(self, keys: Sequence[ThreadKey]) -> Mapping[ThreadKey, Mark]:
        """Return the marks of those threads that have one."""
        if not keys:
            return {}
        async with self._connected() as db:
            rows = await db.fetch(
                self._sql(
                    "SELECT m.tenant, m.thread_id, created_ms, head_seq, next_seq, count, size FROM @recall_marks m"
                    " JOIN unnest($1::text[], $2::text[]) AS k(tenant, thread_id)"
                    " ON m.tenant = k.tenant AND m.thread_id = k.thread_id WHERE m.model = $3"
                ),
                [pack(key.tenant) for key in keys],
                [pack(key.thread_id) for key in keys],
                self._model,
            )
        return {ThreadKey(unpack(row[1]), unpack(row[0])): _mark(row[2:]) for row in map(tuple, rows)}

    async def add(
        self,
        key: ThreadKey,
        entries: Sequence[Entry],
        mark: Mark,
        *,
        expected: Mark | None,
        remove: Collection[tuple[int, int]] = (),
    ) -> bool:
        """Remove and add entries and set the mark, in one transaction, if the mark is ``expected``."""
        of = (pack(key.tenant), pack(key.thread_id))
        async with self._connected() as db, db.transaction():
            # A thread without a mark has no row to lock.
            await db.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))", f"{self._vectors} {of!r}", self._model
            )
            row = await db.fetchrow(
                self._sql(
                    "SELECT created_ms, head_seq, next_seq, count, size FROM @recall_marks"
                    " WHERE tenant = $1 AND thread_id = $2 AND model = $3"
                ),
                *of,
                self._model,
            )
            if (None if row is None else _mark(tuple(row))) != expected:
                return False
            if remove:
                await db.executemany(
                    f"DELETE FROM {self._vectors} WHERE tenant = $1 AND thread_id = $2 AND turn = $3 AND part = $4",  # noqa: S608 (own name)
                    [(*of, turn, part) for turn, part in remove],
                )
            await db.executemany(
                f"INSERT INTO {self._vectors} (tenant, thread_id, turn, part, last, seq, created_ms, digest, vector)"  # noqa: S608 (own names)
                f" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::{self._types}.halfvec)"
                " ON CONFLICT (tenant, thread_id, turn, part) DO UPDATE SET last = excluded.last, seq = excluded.seq,"
                " created_ms = excluded.created_ms, digest = excluded.digest, vector = excluded.vector",
                [
                    (*of, each.turn, each.part, each.last, each.seq, each.created_ms, each.digest, _text(each.vector))
                    for each in entries
                ],
            )
            await db.execute(
                self._sql(
                    "INSERT INTO @recall_marks VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
                    " ON CONFLICT (tenant, thread_id, model) DO UPDATE SET created_ms = excluded.created_ms, head_seq ="
                    " excluded.head_seq, next_seq = excluded.next_seq, count = excluded.count, size = excluded.size"
                ),
                *of,
                self._model,
                mark.created_ms,
                mark.head_seq,
                mark.next_seq,
                mark.count,
                mark.size,
            )
        return True

    async def entries(self, key: ThreadKey) -> Mapping[tuple[int, int], bytes]:
        """Return the digests of a thread's entries by turn and part."""
        async with self._connected() as db:
            rows = await db.fetch(
                f"SELECT turn, part, digest FROM {self._vectors} WHERE tenant = $1 AND thread_id = $2",  # noqa: S608 (own name)
                pack(key.tenant),
                pack(key.thread_id),
            )
        return {(row[0], row[1]): row[2] for row in rows}

    async def remove(self, key: ThreadKey) -> None:
        """Remove a thread's entries and its mark."""
        of = (pack(key.tenant), pack(key.thread_id))
        async with self._connected() as db, db.transaction():
            await db.execute(f"DELETE FROM {self._vectors} WHERE tenant = $1 AND thread_id = $2", *of)  # noqa: S608 (own name)
            marks = self._sql("DELETE FROM @recall_marks WHERE tenant = $1 AND thread_id = $2 AND model = $3")
            await db.execute(marks, *of, self._model)

    async def delete_tenant(self, tenant: str) -> int:
        """Remove everything of a tenant, of all models."""
        removed = 0
        async with self._connected() as db, db.transaction():
            for (model,) in await db.fetch(self._sql("SELECT id FROM @recall_models")):
                status = await db.execute(
                    self._sql(f"DELETE FROM @recall_vectors_{model} WHERE tenant = $1"),  # noqa: S608 (a number)
                    pack(tenant),
                )
                removed += int(status.rpartition(" ")[2])
            await db.execute(self._sql("DELETE FROM @recall_marks WHERE tenant = $1"), pack(tenant))
        return removed

    async def tenants(self) -> Sequence[str]:
        """Return the tenants that have marks."""
        async with self._connected() as db:
            sql = self._sql("SELECT DISTINCT tenant FROM @recall_marks WHERE model = $1 ORDER BY tenant")
            return [unpack(row[0]) for row in await db.fetch(sql, self._model)]

    async def threads(self, tenant: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Return the IDs of threads that have a mark, in order, after an ID."""
        async with self._connected() as db:
            rows = await db.fetch(
                self._sql(
                    "SELECT thread_id FROM @recall_marks WHERE tenant = $1 AND thread_id > $2 AND model = $3"
                    " ORDER BY thread_id LIMIT $4"
                ),
                pack(tenant),
                pack(after),
                self._model,
                limit,
            )
        return [unpack(row[0]) for row in rows]

    async def count(self, tenant: str) -> int:
        """Return the number of a tenant's entries."""
        async with self._connected() as db:
            sql = f"SELECT count(*) FROM {self._vectors} WHERE tenant = $1"  # noqa: S608 (own name)
            return int(await db.fetchval(sql, pack(tenant)))

    async def nearest(self, tenant: str, vector: NDArray[np.float32], limit: int) -> Sequence[Near]:
        """Return the entries with the highest scores, at most one a turn, the highest first."""
        wanted = min(limit * _PARTS_A_TURN, max(_MOST_FOUND, limit))
        async with self._connected() as db, db.transaction():
            nearness = f"vector OPERATOR({self._types}.<#>) $2::text::{self._types}.halfvec"
            some = f"SELECT 1 FROM {self._vectors} WHERE tenant = $1 LIMIT {_FEW + 1}"  # noqa: S608 (own name)
            few = await db.fetchval(f"SELECT count(*) FROM ({some}) AS found", pack(tenant)) <= _FEW  # noqa: S608
            if few:
                source = f"(SELECT {_COLUMNS}, vector FROM {self._vectors} WHERE tenant = $1 OFFSET 0) AS mine"  # noqa: S608
                condition = ""
            else:
                await db.execute("SET LOCAL hnsw.iterative_scan = 'strict_order'")
                await db.execute(f"SET LOCAL hnsw.ef_search = {min(max(wanted, 100), 1000)}")
                source, condition = self._vectors, "WHERE tenant = $1"
            rows = await db.fetch(
                f"SELECT {_COLUMNS}, -({nearness}) FROM {source} {condition} ORDER BY {nearness} LIMIT {wanted}",  # noqa: S608
                pack(tenant),
                _text(vector),
            )
        found: list[Near] = []
        for thread_id, turn, last, part, seq, created_ms, digest, score in map(tuple, rows):
            key = ThreadKey(unpack(thread_id), tenant)
            found.append(Near(key, turn, last, part, seq, created_ms, digest, float(score)))
        return best_of_each_turn(found, limit)

    def _sql(self, text: str) -> str:
        return text.replace("@", f"{self._schema}.{self._prefix}")

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Connection]:
        try:
            if not self._is_open:
                await self._connections.open()
                self._is_open = True
            async with self._connections.pool.acquire() as connection:
                if not self._model:
                    await self._prepare(connection)
                yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise translate(error, self._location) or StoreUnavailableError(
                f"The index in {self._location} cannot be used now ({type(error).__name__})."
            ) from None

    async def _prepare(self, db: Connection) -> None:
        found: Any = await db.fetchrow(_EXTENSION)
        models = self._sql("@recall_models")
        exists = await db.fetchval("SELECT to_regclass($1) IS NOT NULL", models)
        if not self._create and not (found and exists):
            raise ConfigurationError(
                f"There is no index in {self._location} yet: make it with everthread recall follow --once."
            )
        if found is None:
            found = await self._make_extension(db)
        types, version = found
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
            raise ConfigurationError(f"{self._location} has pgvector {version}: 0.8 or newer is needed.")
        self._types = f'"{types}"'
        async with db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", models)
            if not exists:
                await db.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
                await db.execute(self._sql(_TABLES))
            row: Any = await db.fetchrow(f"SELECT id, dimensions FROM {models} WHERE name = $1", self.model)  # noqa: S608
            if row is None:
                row = await db.fetchrow(
                    f"INSERT INTO {models} (name, dimensions) VALUES ($1, $2) RETURNING id, dimensions",  # noqa: S608
                    self.model,
                    self.dimensions,
                )
                made = _VECTORS.format(model=row[0], types=self._types, dimensions=self.dimensions, name=self._prefix)
                await db.execute(self._sql(made))
            if row[1] != self.dimensions:
                raise ConfigurationError(
                    f"The index has vectors of {row[1]} dimensions of the model {self.model}; this embedder gives "
                    f"{self.dimensions}. Give each version of a model its own name."
                )
        self._vectors = self._sql(f"@recall_vectors_{row[0]}")
        self._model = row[0]

    async def _make_extension(self, db: Connection) -> Any:
        try:
            await db.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except asyncpg.PostgresError as error:
            raise ConfigurationError(
                f"{self._location} lacks the extension pgvector, and it cannot be created here (SQLSTATE "
                f"{error.sqlstate}). An administrator can: CREATE EXTENSION vector;"
            ) from None
        return await db.fetchrow(_EXTENSION)


def _mark(row: Sequence[int]) -> Mark:
    created_ms, head_seq, next_seq, count, size = row
    return Mark(created_ms, head_seq, next_seq, count, size)


def _text(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(f"{each:.5g}" for each in vector.tolist()) + "]"
