"""`PostgresStore` and `SearchingPostgresStore`: each hook is one statement of ``queries.sql``, so one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec

from everthread._url_options import engine_options, flag
from everthread.capabilities import SupportsReconciling
from everthread.engines._listing import PAGE_BYTES, Listed
from everthread.engines._names import NameRange
from everthread.engines._search import Position, Searching
from everthread.engines._tenants import ListingTenants
from everthread.engines.base import AppendRequest, ThreadChange, cannot_be_stored
from everthread.engines.batching import Coalescer, later
from everthread.engines.postgres.batch import MAX_BATCH_BYTES, call_for, results, size_of
from everthread.engines.postgres.connection import Access, Connections, Password
from everthread.engines.postgres.entra import entra_password
from everthread.engines.postgres.errors import is_of_one, translate
from everthread.engines.postgres.health import facts
from everthread.engines.postgres.reconcile import drifts
from everthread.engines.postgres.rows import pack, page_of, retention_of, thread_of, unpack
from everthread.engines.postgres.schema import check_name, newest_version, prepare, queries
from everthread.engines.postgres.search import SIMPLE, Indexing, Language, hit_of
from everthread.engines.postgres.urls import connect_timeout as libpq_seconds
from everthread.engines.postgres.urls import target_of
from everthread.errors import (
    ConfigurationError,
    ConflictError,
    EverthreadError,
    LimitExceededError,
    ThreadNotFoundError,
)
from everthread.model import (
    MAX_SEQ,
    Appended,
    Document,
    HealthCheck,
    Inconsistency,
    MessagePage,
    NewMessage,
    Rewrite,
    SearchHit,
    Thread,
    ThreadKey,
    Truncated,
    check_identifier,
)
from everthread.urls import mask_url

if TYPE_CHECKING:
    import ssl as tls

    from everthread.engines.postgres.connection import Pool, Record

MAX_TURN_BYTES = 512 * 1024 * 1024
"""Most bytes of one append: PostgreSQL accepts less than a gigabyte in one parameter."""

_PURGE_EVERY = 60.0
_DELETE_AT_ONCE = 100


class PostgresStore(ListingTenants, SupportsReconciling):
    """Store threads in a PostgreSQL database (12 or newer), one row per message.

    Concurrent appends of one process share a statement and a commit. An append that returned survives a crash of the
    server unless its ``synchronous_commit`` is off.

    Args:
        url: ``postgresql://user:password@host:5432/database?sslmode=verify-full``. asyncpg reads it as libpq does,
            with the environment's ``PGHOST``, ``PGPASSWORD``, ``PGSSLMODE`` and others.
        schema: The schema of the tables; created at opening if it is missing and the user may create it.
        table_prefix: A prefix for the names of all tables and functions.
        pool_size: Most connections. One is reserved for appends.
        timeout: Seconds that a statement may take.
        connect_timeout: Seconds for connecting, or for waiting for a free connection.
        pgbouncer: Set it for PgBouncer in transaction mode, or another pooler that keeps no sessions.
        migrate: ``False`` never changes the schema: an older one raises `SchemaError`.
        password: Replaces the URL's. A callable, async or not, is called for each new connection: see `entra_password`.
        ssl: A context that replaces the URL's ``sslmode``.
        clock: Seconds since 1970. The default is the server's clock, which all clients share.
        options: Options of every engine: see `Engine`.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "everthread",
        table_prefix: str = "",
        pool_size: int = 10,
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
        pgbouncer: bool = False,
        migrate: bool = True,
        password: Password | None = None,
        ssl: tls.SSLContext | bool | str | None = None,
        clock: Callable[[], float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(clock=clock or time.time, **options)
        self._has_own_clock = clock is not None
        self._schema = check_name(schema, "schema")
        self._prefix = check_name(table_prefix, "table_prefix", may_be_empty=True)
        self._migrate = migrate
        self._location = mask_url(url).partition("?")[0]
        for what, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            _check_seconds(seconds, what)
        if type(pool_size) is not int or not 2 <= pool_size <= 1000:
            raise ConfigurationError("pool_size is a number from 2 to 1000: one connection is kept for appends.")
        target = target_of(url)
        self._access = Access(target, password, ssl, pool_size, timeout, connect_timeout, pgbouncer)
        self._connections = Connections(self._access, self._location, queries(self._schema, self._prefix))
        self._appends: Coalescer[AppendRequest, Appended] = Coalescer(
            self._append_many, size_of=size_of, max_bytes=MAX_BATCH_BYTES, isolate=self._error_of_one
        )
        # The subclass that searches replaces both.
        self._text_of: Callable[[NewMessage], str] | None = None
        self._language = Language(SIMPLE)
        self._purge_at = 0.0
        self._purging: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        own: dict[str, Callable[[str], Any]] = {
            **dict.fromkeys(("schema", "table_prefix", "auth", "search_language"), str),
            "timeout": float,
            "connect_timeout": libpq_seconds,
            **dict.fromkeys(("pgbouncer", "migrate", "search"), flag),
            "pool_size": int,
        }
        rest, settings = engine_options(url, options, own)
        auth = settings.pop("auth", None)
        if auth not in (None, "entra"):
            raise ConfigurationError("auth is entra, or left out.")
        if auth == "entra":
            settings.setdefault("password", entra_password())
        if settings.pop("search", False):
            return cast(Self, SearchingPostgresStore(rest, **settings))
        return cls(rest, **settings)

    @classmethod
    def from_pool(cls, pool: Pool, **options: Any) -> Self:
        """Return a store on the caller's own asyncpg pool, which this store never closes.

        Args:
            pool: An open pool of this event loop. Behind PgBouncer it needs ``statement_cache_size=0``.
            options: As for the constructor, without options for connecting.
        """
        store = cls("postgresql://", **options)
        store._location = "postgresql: (a borrowed pool)"
        store._connections = Connections(store._access, store._location, store._connections.queries, pool)
        return store

    def beside(self) -> tuple[Connections, str, str]:
        """Return other connections to the same database, for tables beside the store's; and its schema and prefix."""
        access = msgspec.structs.replace(self._access, pool_size=4)
        return Connections(access, self._location, {}), self._schema, self._prefix

    @property
    def location(self) -> str:
        return self._location

    async def purge(self, limit: int = 1000) -> bool:
        """Delete at most ``limit`` messages of expired threads; return whether there may be more.

        Readers no longer see these. A store also purges automatically, about once a minute while it appends.
        """
        what = "purge", limit, self._now_ms()
        return bool((await self._call_to_write(self._connections.write, *what))[0][0])

    async def diagnose(self) -> tuple[HealthCheck, ...]:
        return await self._call(self._diagnose)

    async def _diagnose(self) -> tuple[HealthCheck, ...]:
        (row,) = await self._connections.read("health", self._schema, self._prefix)
        ((version,),) = await self._connections.read("schema_version")
        return facts(
            row,
            schema=self._schema,
            version=version,
            newest=newest_version(),
            keeps_no_sessions=self._access.pgbouncer,
        )

    async def reconcile(self, tenant: str = "", *, repair: bool = False) -> tuple[Inconsistency, ...]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        return await (self._call_to_write if repair else self._call)(self._reconcile, repair=repair)

    async def _reconcile(self, *, repair: bool) -> tuple[Inconsistency, ...]:
        return tuple([drift async for drift in self._drifts(repair=repair) if drift.count])

    def _drifts(self, *, repair: bool) -> AsyncIterator[Inconsistency]:
        return drifts(self._connections.append, repair=repair)

    async def _open(self) -> None:
        await self._connections.open()
        try:
            await prepare(
                self._connections.pool,
                self._schema,
                self._prefix,
                migrate=self._migrate,
                read_only=self.read_only,
                patience=self._access.timeout,
            )
        except BaseException:
            await self._connections.close()
            raise

    async def _close(self) -> None:
        await self._appends.drain()
        if self._purging is not None:
            await asyncio.wait({self._purging})
        await self._connections.close()

    def _release(self) -> None:
        self._connections.release()

    def _translate(self, error: Exception) -> EverthreadError | None:
        return translate(error, self._location)

    # Messages

    async def _append(self, request: AppendRequest) -> Appended:
        if (size := size_of(request)) > MAX_TURN_BYTES:
            what = f"A turn of {size:,} bytes for {request.key}: at most {MAX_TURN_BYTES:,} go into one append."
            raise LimitExceededError(what, size, MAX_TURN_BYTES)
        return await self._appends.submit(request)

    async def _append_many(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        call = call_for(batch, self._now_ms(), self._text_of, self._language.name)
        rows = await self._connections.append(call[0], *call[1])
        self._purge_sometimes()
        return results(batch, call, rows)

    def _error_of_one(self, request: AppendRequest, error: Exception) -> EverthreadError | None:
        """Return the error of one append, or ``None`` if the reason, such as a lost connection, concerns all."""
        if isinstance(error, EverthreadError):
            return None
        typed = self._translate(error)
        return cannot_be_stored(request, error) if typed is None else typed if is_of_one(error) else None

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        stop, limit = (MAX_SEQ + 1 if stop is None else stop), (MAX_SEQ if limit is None else limit)
        return page_of(await self._fetch("read", key, start, stop, limit))

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        below = MAX_SEQ + 1 if before is None else before
        return page_of((await self._fetch("read_last", key, below, count))[::-1])

    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated:
        rows = await self._write("truncate", key, start, stop, expected_seq)
        if not rows:
            raise ThreadNotFoundError(f"There is no {key}.")
        removed, head_seq, next_seq = rows[0]
        if removed is None:
            raise ConflictError.at_position(key, next_seq, expected_seq)
        return Truncated(removed, head_seq, next_seq)

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        formats: Sequence[str | None] | None = None
        texts: Sequence[str | None] | None = None
        if self._text_of is not None:
            changes, formats, texts = await self._indexed_changes(key, changes)
        size = sum(len(change.old) + len(change.new) for change in changes)
        if size > MAX_TURN_BYTES:
            what = f"Rewriting {size:,} bytes (old and new) of {key}: at most {MAX_TURN_BYTES:,} go into one call."
            raise LimitExceededError(what, size, MAX_TURN_BYTES)
        payloads = [[change.old for change in changes], [change.new for change in changes]]
        what = [change.seq for change in changes], *payloads, formats, texts, self._language.name
        return (await self._write("rewrite", key, *what))[0][0]

    async def _indexed_changes(
        self, key: ThreadKey, changes: Sequence[Rewrite]
    ) -> tuple[list[Rewrite], list[str], list[str]]:
        """Return the changes of messages that exist, their formats, and their new words."""
        rows = await self._fetch("formats", key, [change.seq for change in changes])
        formats: dict[int, str] = {row["seq"]: row["format"] for row in rows}
        there = [change for change in changes if change.seq in formats]
        texts = [self._language.words(change.new, unpack(formats[change.seq])) for change in there]
        return there, [formats[change.seq] for change in there], texts

    # Threads

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        rows = await self._fetch("get_thread", key)
        return thread_of(key.tenant, rows[0]) if rows else None

    async def _list_tenants(self, after: str, limit: int) -> list[str]:
        return [unpack(row["tenant"]) for row in await self._connections.read("list_tenants", pack(after), limit)]

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        name, position = ("list_first", ()) if after is None else ("list_after", (after[0], pack(after[1])))
        what = pack(tenant), self._now_ms(), limit, *position, PAGE_BYTES
        rows = await self._connections.read(name, *what)
        more = len(rows) == limit or (len(rows) > 0 and rows[-1]["weight"] >= PAGE_BYTES)
        return [thread_of(tenant, row) for row in rows], more

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        title = None if change.title is None else pack(change.title)
        metadata = None if change.metadata is None else change.metadata.decode()
        what = title, metadata, change.expected_revision, *retention_of(change)
        rows = await self._write("update_thread", key, *what)
        if rows:
            return thread_of(key.tenant, rows[0])
        current = await self._get_thread(key)
        if current is None:
            raise ThreadNotFoundError(f"There is no {key}.")
        raise ConflictError.at_revision(key, current.revision, change.expected_revision)

    async def _restore_position(self, key: ThreadKey, next_seq: int, expected_seq: int, expire_ms: int | None) -> None:
        if next_seq and not expected_seq:
            await self._write("claim", key)
        what = next_seq, expected_seq, expire_ms
        if next_seq == expected_seq or not await self._write("restore_position", key, *what):
            found = await self._get_thread(key)
            if (at := 0 if found is None else found.next_seq) != next_seq:
                raise ConflictError.at_position(key, at, expected_seq)

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        rows = await self._write("restore_times", key, created_ms, updated_ms)
        if not rows:
            raise ThreadNotFoundError(f"There is no {key}.")
        return thread_of(key.tenant, rows[0])

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        lived, kept_at = (await self._write("delete_thread", key, expected_seq))[0]
        if kept_at is not None:
            raise ConflictError.at_position(key, kept_at, expected_seq)
        return lived

    async def _delete_tenant(self, tenant: str) -> int:
        lived, last = 0, None
        while True:
            # In steps, so that a large tenant's locks are not all held at the same time.
            what = pack(tenant), last, _DELETE_AT_ONCE, self._now_ms()
            rows = await self._connections.write("delete_tenant", *what)
            some, last = rows[0]
            lived += some
            if last is None:
                return lived

    # Documents

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        rows = await self._fetch("get_document", key, pack(name))
        return Document(name, *rows[0]) if rows else None

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        what = pack(name), value, expected_revision
        written, revision, updated_ms = (await self._write("put_document", key, *what))[0]
        if not written:
            raise ConflictError.at_revision(f"Document {name!r} of {key}", revision, expected_revision)
        return Document(name, value, revision, updated_ms)

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        return bool(await self._write("delete_document", key, pack(name)))

    async def _list_documents(self, key: ThreadKey, names: NameRange) -> tuple[str, ...]:
        stop = None if names.stop is None else pack(names.stop)
        rows = await self._fetch("list_documents", key, pack(names.start), stop, names.limit)
        return tuple(unpack(row[0]) for row in rows)

    # Shared

    async def _fetch(self, query: str, key: ThreadKey, *args: object) -> Sequence[Record]:
        """Run a statement that reads one thread."""
        return await self._connections.read(query, pack(key.tenant), pack(key.thread_id), self._now_ms(), *args)

    async def _write(self, query: str, key: ThreadKey, *args: object) -> Sequence[Record]:
        """Run a statement that changes one thread."""
        return await self._connections.write(query, pack(key.tenant), pack(key.thread_id), self._now_ms(), *args)

    def _now_ms(self) -> int | None:
        return int(self._clock() * 1000) if self._has_own_clock else None

    def _purge_sometimes(self) -> None:
        now = time.monotonic()
        if now >= self._purge_at:
            self._purge_at = now + _PURGE_EVERY
            self._purging = later(self._purge_quietly())

    async def _purge_quietly(self) -> None:
        # No caller waits for it. After a failure, a later purge or another store deletes the rows.
        with contextlib.suppress(Exception):
            await self._connections.write("purge", 1000, self._now_ms())


def _check_seconds(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise ConfigurationError(f"{what} is a number of seconds above 0.")


class SearchingPostgresStore(Searching, PostgresStore):
    """Add full-text search with a GIN index, which each append updates in its one statement.

    Args:
        url: As for `PostgresStore`.
        search_language: A text search configuration of the server, e.g. ``"english"``, which decides what counts as
            the same word. With ``"simple"``, words are the same as on every engine (`everthread.messages.tokenizer`),
            which suits mixed languages. Call `index` after a change.
        options: As for `PostgresStore`.
    """

    def __init__(self, url: str, *, search_language: str = SIMPLE, **options: Any) -> None:
        super().__init__(url, **options)
        self._language = Language(search_language)
        self._text_of = self._language.text_of

    async def index(self, *, advance: Callable[[int], None] = lambda messages: None) -> int:
        """Index messages that were stored without search, or in another ``search_language``; return their number.

        Processes all tenants, a few messages at a time, in bounded memory. Readers and writers continue at the same
        time. It can be stopped at any moment; the next call continues.

        Args:
            advance: Called with the number of messages that were just indexed.
        """
        return await self._call_to_write(Indexing(self._connections.append, self._language, advance).run)

    async def _drifts(self, *, repair: bool) -> AsyncIterator[Inconsistency]:
        async for drift in super()._drifts(repair=repair):
            yield drift
        indexing = Indexing(self._connections.append, self._language, lambda messages: None)
        left = await (indexing.run() if repair else indexing.count())
        yield Inconsistency("messages that search does not find", left, repaired=repair)

    async def _search(
        self, tenant: str, text: str, limit: int, after: Position | None
    ) -> Sequence[tuple[SearchHit, Position]]:
        below = (MAX_SEQ, MAX_SEQ, MAX_SEQ) if after is None else after
        phrases = self._language.phrases(text)
        what = pack(tenant), phrases, self._language.name, self._now_ms(), limit, *below
        rows = await self._connections.read("search", *what)
        return [(hit_of(tenant, row, text), (row["created_ms"], row["thread"], row["seq"])) for row in rows]
