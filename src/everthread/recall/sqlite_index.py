"""An index in an SQLite file: one scan over the signs of all vectors in memory, then exact scores of the nearest.

The signs take 48 bytes for 384 dimensions, and comparing those of 100,000 vectors takes a few milliseconds. Vectors are
stored with 8 bits a dimension. In the file of a `sqlite:` store, triggers remove vectors in the transaction that
removes or changes their messages.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from everthread.errors import ConfigurationError, StoreUnavailableError
from everthread.model import ThreadKey
from everthread.recall.embedders import Embedder
from everthread.recall.index import Entry, Mark, Near, VectorIndex, best_of_each_turn
from everthread.recall.passages import VERSION

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS recall_models (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimensions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS recall_vectors (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL, tenant TEXT NOT NULL, thread_id TEXT NOT NULL,
    turn INTEGER NOT NULL, last INTEGER NOT NULL, part INTEGER NOT NULL, seq INTEGER NOT NULL, created_ms INTEGER,
    digest BLOB NOT NULL, scale REAL NOT NULL, vector BLOB NOT NULL,
    UNIQUE (tenant, thread_id, model, turn, part));
CREATE INDEX IF NOT EXISTS recall_by_tenant ON recall_vectors (model, tenant);
CREATE TABLE IF NOT EXISTS recall_marks (
    tenant TEXT NOT NULL, thread_id TEXT NOT NULL, model INTEGER NOT NULL, created_ms INTEGER NOT NULL,
    head_seq INTEGER NOT NULL, next_seq INTEGER NOT NULL, count INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (tenant, thread_id, model)) WITHOUT ROWID;
"""

_IN_STORE = """
CREATE TRIGGER IF NOT EXISTS recall_forgets_thread AFTER DELETE ON threads BEGIN
    DELETE FROM recall_vectors WHERE tenant = OLD.tenant AND thread_id = OLD.thread_id;
    DELETE FROM recall_marks WHERE tenant = OLD.tenant AND thread_id = OLD.thread_id;
END;
CREATE TRIGGER IF NOT EXISTS recall_forgets_message AFTER DELETE ON messages BEGIN
    DELETE FROM recall_vectors WHERE turn <= OLD.seq AND last >= OLD.seq
        AND (tenant, thread_id) IN (SELECT tenant, thread_id FROM threads WHERE id = OLD.thread);
END;
CREATE TRIGGER IF NOT EXISTS recall_forgets_text AFTER UPDATE OF payload ON messages BEGIN
    DELETE FROM recall_vectors WHERE turn <= NEW.seq AND last >= NEW.seq
        AND (tenant, thread_id) IN (SELECT tenant, thread_id FROM threads WHERE id = NEW.thread);
    UPDATE recall_marks SET count = -1
        WHERE (tenant, thread_id) IN (SELECT tenant, thread_id FROM threads WHERE id = NEW.thread);
END;
"""

_INSERT = (
    "INSERT OR REPLACE INTO recall_vectors (tenant, thread_id, model, turn, last, part, seq, created_ms, digest, scale,"
    " vector) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)

_CANDIDATE = (
    "SELECT thread_id, turn, last, part, seq, created_ms, digest, scale, vector FROM recall_vectors"
    " WHERE model=? AND tenant=? AND id IN "
)

_CANDIDATES = 400
_CANDIDATES_A_RESULT = 20
_MOST_ROWS_IN_MEMORY = 4_000_000
_NAMES_A_STATEMENT = 400


class SqliteVectorIndex(VectorIndex):
    """Vectors in an SQLite file: that of a `sqlite:` store, or one of their own for any other store.

    Args:
        path: The file. If it is missing, it is created, readable by its owner only.
        embedder: The model that makes the vectors.
        create: Make an index that does not exist. Otherwise its first use raises `ConfigurationError`.
    """

    def __init__(self, path: str | os.PathLike[str], embedder: Embedder, *, create: bool = True) -> None:
        self._create = create
        self.model = f"{embedder.name}/{VERSION}"
        self.dimensions = embedder.dimensions
        self._path = Path(path)
        self._lock = threading.Lock()
        self._open_db: sqlite3.Connection | None = None
        self._model = 0
        self._signs: dict[str, _Signs] = {}

    async def open(self) -> None:
        """Open the file, and create the tables that are missing."""
        await self._run(lambda db: None)

    async def aclose(self) -> None:
        """Close the file."""

        def close() -> None:
            with self._lock:
                if self._open_db is not None:
                    self._open_db.close()
                self._open_db = None
                self._signs.clear()

        await asyncio.to_thread(close)

    async def marks(self, keys: Sequence[ThreadKey]) -> Mapping[ThreadKey, Mark]:
        """Return the marks of those threads that have one."""

        def read(db: sqlite3.Connection) -> dict[ThreadKey, Mark]:
            found: dict[ThreadKey, Mark] = {}
            for key in keys:
                row = self._mark_row(db, key)
                if row is not None:
                    found[key] = row
            return found

        return await self._run(read)

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

        def write(db: sqlite3.Connection) -> bool:
            of = (key.tenant, key.thread_id, self._model)
            rows = [(*of, *_row(each)) for each in entries]
            with _transaction(db):
                if self._mark_row(db, key) != expected:
                    return False
                for turn, part in remove:
                    db.execute(
                        "DELETE FROM recall_vectors WHERE tenant=? AND thread_id=? AND model=? AND turn=? AND part=?",
                        (*of, turn, part),
                    )
                db.executemany(_INSERT, rows)
                db.execute(
                    "INSERT OR REPLACE INTO recall_marks VALUES (?,?,?,?,?,?,?,?)",
                    (*of, mark.created_ms, mark.head_seq, mark.next_seq, mark.count, mark.size),
                )
            return True

        return await self._run(write)

    async def entries(self, key: ThreadKey) -> Mapping[tuple[int, int], bytes]:
        """Return the digests of a thread's entries by turn and part."""
        sql = "SELECT turn, part, digest FROM recall_vectors WHERE tenant=? AND thread_id=? AND model=?"
        rows = await self._run(lambda db: db.execute(sql, (key.tenant, key.thread_id, self._model)).fetchall())
        return {(turn, part): digest for turn, part, digest in rows}

    async def remove(self, key: ThreadKey) -> None:
        """Remove a thread's entries and its mark."""

        def write(db: sqlite3.Connection) -> None:
            with _transaction(db):
                for table in ("recall_vectors", "recall_marks"):
                    db.execute(
                        f"DELETE FROM {table} WHERE tenant=? AND thread_id=? AND model=?",  # noqa: S608 (own names)
                        (key.tenant, key.thread_id, self._model),
                    )

        await self._run(write)

    async def delete_tenant(self, tenant: str) -> int:
        """Remove everything of a tenant, of all models."""

        def write(db: sqlite3.Connection) -> int:
            with _transaction(db):
                removed = db.execute("DELETE FROM recall_vectors WHERE tenant=?", (tenant,)).rowcount
                db.execute("DELETE FROM recall_marks WHERE tenant=?", (tenant,))
            self._signs.pop(tenant, None)
            return removed

        return await self._run(write)

    async def tenants(self) -> Sequence[str]:
        """Return the tenants that have marks."""
        sql = "SELECT DISTINCT tenant FROM recall_marks WHERE model=? ORDER BY tenant"
        return [tenant for (tenant,) in await self._run(lambda db: db.execute(sql, (self._model,)).fetchall())]

    async def threads(self, tenant: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Return the IDs of threads that have a mark, in order, after an ID."""
        sql = "SELECT thread_id FROM recall_marks WHERE tenant=? AND thread_id>? AND model=? ORDER BY thread_id LIMIT ?"
        rows = await self._run(lambda db: db.execute(sql, (tenant, after, self._model, limit)).fetchall())
        return [thread_id for (thread_id,) in rows]

    async def count(self, tenant: str) -> int:
        """Return the number of a tenant's entries."""
        sql = "SELECT count(*) FROM recall_vectors WHERE model=? AND tenant=?"
        return await self._run(lambda db: int(db.execute(sql, (self._model, tenant)).fetchone()[0]))

    async def nearest(self, tenant: str, vector: NDArray[np.float32], limit: int) -> Sequence[Near]:
        """Return the entries with the highest scores, at most one a turn, the highest first."""
        return await self._run(lambda db: self._nearest(db, tenant, vector, limit))

    def _nearest(self, db: sqlite3.Connection, tenant: str, vector: NDArray[np.float32], limit: int) -> list[Near]:
        signs = self._signs_of(db, tenant)
        wanted = max(_CANDIDATES, _CANDIDATES_A_RESULT * limit)
        ids = signs.nearest(vector, wanted)
        found: list[Near] = []
        for start in range(0, len(ids), _NAMES_A_STATEMENT):
            some = ids[start : start + _NAMES_A_STATEMENT]
            sql = _CANDIDATE + f"({','.join('?' * len(some))})"
            rows = db.execute(sql, (self._model, tenant, *some)).fetchall()
            if not rows:
                continue
            stored = np.frombuffer(b"".join(row[8] for row in rows), np.int8).reshape(len(rows), self.dimensions)
            scores = (stored.astype(np.float32) @ vector) * np.array([row[7] for row in rows], np.float32)
            for (thread_id, turn, last, part, seq, created_ms, digest, *_), score in zip(rows, scores, strict=True):
                key = ThreadKey(thread_id, tenant)
                found.append(Near(key, turn, last, part, seq, created_ms, digest, float(score)))
        if len(found) < len(ids) // 2:
            self._signs.pop(tenant, None)  # most of the nearest were removed since: read the others anew
        return best_of_each_turn(found, limit)

    def _signs_of(self, db: sqlite3.Connection, tenant: str) -> _Signs:
        signs = self._signs.pop(tenant, None) or _Signs(self.dimensions)
        while rows := db.execute(
            "SELECT id, vector FROM recall_vectors WHERE model=? AND tenant=? AND id>? ORDER BY id LIMIT 10000",
            (self._model, tenant, signs.newest),
        ).fetchall():
            signs.add(rows)
        self._signs[tenant] = signs  # the last one, in order of use
        while len(self._signs) > 1 and sum(map(len, self._signs.values())) > _MOST_ROWS_IN_MEMORY:
            del self._signs[next(iter(self._signs))]
        return signs

    def _mark_row(self, db: sqlite3.Connection, key: ThreadKey) -> Mark | None:
        row = db.execute(
            "SELECT created_ms, head_seq, next_seq, count, size FROM recall_marks"
            " WHERE tenant=? AND thread_id=? AND model=?",
            (key.tenant, key.thread_id, self._model),
        ).fetchone()
        if row is None:
            return None
        created_ms, head_seq, next_seq, count, size = row
        return Mark(created_ms, head_seq, next_seq, count, size)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def locked() -> T:
            with self._lock:
                try:
                    if self._open_db is None:
                        self._open_db = self._connected()
                    return work(self._open_db)
                except sqlite3.OperationalError as error:
                    raise StoreUnavailableError(f"The index {self._path} cannot be used now: {error}.") from None
                except sqlite3.DatabaseError as error:
                    raise ConfigurationError(
                        f"The index {self._path} is not a usable SQLite database ({error}). An index can be deleted "
                        "and is then made anew."
                    ) from None

        return await asyncio.to_thread(locked)

    def _connected(self) -> sqlite3.Connection:
        if not self._create and not self._path.exists():
            raise self._missing()
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise ConfigurationError(f"The index {self._path} cannot be opened: {error.strerror}.") from None
        db = sqlite3.connect(self._path, timeout=30, check_same_thread=False, isolation_level=None)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
                db.execute(f"PRAGMA {pragma}").fetchall()
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if tables and "recall_models" not in tables and not {"threads", "messages"} <= tables:
                raise ConfigurationError(f"{self._path} is the database of another application; nothing was changed.")
            if not self._create and "recall_models" not in tables:
                raise self._missing()
            with _transaction(db):
                for statement in _statements(_SCHEMA + (_IN_STORE if {"threads", "messages"} <= tables else "")):
                    db.execute(statement)
                db.execute(
                    "INSERT OR IGNORE INTO recall_models (name, dimensions) VALUES (?,?)", (self.model, self.dimensions)
                )
            (self._model, dimensions) = db.execute(
                "SELECT id, dimensions FROM recall_models WHERE name=?", (self.model,)
            ).fetchone()
            if dimensions != self.dimensions:
                raise ConfigurationError(
                    f"The index has vectors of {dimensions} dimensions of the model {self.model}; this embedder gives "
                    f"{self.dimensions}. Give each version of a model its own name."
                )
        except BaseException:
            db.close()
            raise
        return db

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(
            f"There is no index in {self._path} yet. Make it with: everthread recall follow --once"
        )


class _Signs:
    """The signs of a tenant's vectors, one bit a dimension, in the order of their row IDs."""

    def __init__(self, dimensions: int) -> None:
        self._width = -(-dimensions // 64)
        self._bits = np.zeros((0, self._width), np.uint64)
        self._ids = np.zeros(0, np.int64)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def newest(self) -> int:
        return int(self._ids[self._used - 1]) if self._used else 0

    def add(self, rows: Sequence[tuple[int, bytes]]) -> None:
        needed = self._used + len(rows)
        if needed > len(self._ids):
            size = max(needed, 2 * len(self._ids), 1024)
            self._bits = np.concatenate([self._bits, np.zeros((size - len(self._bits), self._width), np.uint64)])
            self._ids = np.concatenate([self._ids, np.zeros(size - len(self._ids), np.int64)])
        vectors = np.frombuffer(b"".join(vector for _, vector in rows), np.int8).reshape(len(rows), -1)
        self._bits[self._used : needed] = self._packed(vectors)
        self._ids[self._used : needed] = [each for each, _ in rows]
        self._used = needed

    def nearest(self, vector: NDArray[np.float32], limit: int) -> list[int]:
        """Return the IDs of the vectors with the fewest signs that differ."""
        bits = self._bits[: self._used]
        if not len(bits):
            return []
        wanted = self._packed(vector.reshape(1, -1))[0]
        differ = np.zeros(len(bits), np.uint16)
        for column in range(self._width):
            differ += np.bitwise_count(bits[:, column] ^ wanted[column])
        if len(differ) > limit:
            return [int(each) for each in self._ids[np.argpartition(differ, limit)[:limit]]]
        return [int(each) for each in self._ids[: self._used]]

    def _packed(self, vectors: NDArray[np.float32] | NDArray[np.int8]) -> NDArray[np.uint64]:
        bits = np.zeros((len(vectors), self._width * 64), np.bool_)
        bits[:, : vectors.shape[1]] = vectors > 0
        return np.packbits(bits, axis=1).view(np.uint64)


def _row(entry: Entry) -> tuple[object, ...]:
    scale = float(np.abs(entry.vector).max()) / 127 or 1.0
    stored = np.round(entry.vector / scale).astype(np.int8).tobytes()
    place = (entry.turn, entry.last, entry.part, entry.seq, entry.created_ms, entry.digest)
    return (*place, scale, stored)


def _statements(script: str) -> Iterator[str]:
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""


@contextmanager
def _transaction(db: sqlite3.Connection) -> Generator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
