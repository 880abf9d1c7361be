"""`PostgresStore`: each hook is one statement of ``queries.sql``, and so one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec

from everthread.contract import SupportsDiagnosis, SupportsReconciling
from everthread.engines._base import AppendRequest, Engine, ThreadChange
from everthread.engines._importing import Importing
from everthread.engines._rewriting import Rewriting
from everthread.engines.postgres._batch import (
    arguments,
    arguments_of_one,
    in_rounds,
    is_usual,
    message_ends,
    results,
    size_of,
    split,
)
from everthread.engines.postgres._connections import Access, Connections, Password
from everthread.engines.postgres._diagnosis import QUERY, facts
from everthread.engines.postgres._entra import entra_password
from everthread.engines.postgres._errors import is_of_one, translate
from everthread.engines.postgres._reconciling import drifts
from everthread.engines.postgres._schema import newest_version, prepare
from everthread.engines.postgres._sql import check_name, queries
from everthread.engines.postgres._text import pack, unpack
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
    Drift,
    Fact,
    Message,
    MessagePage,
    NewMessage,
    Retention,
    Rewrite,
    Thread,
    ThreadKey,
    Truncated,
    check_identifier,
)
from everthread.settings import engine_options, flag, mask_url

if TYPE_CHECKING:
    import ssl as tls

    from everthread.engines.postgres._connections import Pool, Record

MAX_TURN_BYTES = 512 * 1024 * 1024
"""Most bytes of one append: PostgreSQL takes less than a gigabyte in one parameter."""

_PURGE_EVERY = 60.0
_DELETE_AT_ONCE = 100


class PostgresStore(Rewriting, Importing, Engine, SupportsDiagnosis, SupportsReconciling):
    """Keeps threads in a PostgreSQL database (12 or newer), one row a message.

    Appends that wait at the same time in one process are one statement and one commit. An append
    that returned survives a crash of the server unless its ``synchronous_commit`` is off.

    Args:
        url: ``postgresql://user:password@host:5432/database?sslmode=verify-full``; asyncpg parses
            it as libpq does, the environment's ``PGHOST``, ``PGPASSWORD``, ``PGSSLMODE`` … included.
        schema: Where the tables are; made at opening if it is missing and the user may.
        table_prefix: Before the names of all tables and functions in it.
        pool_size: Most connections. One is kept for appends.
        timeout: Seconds that a statement may take.
        connect_timeout: Seconds that connecting may take, or waiting for a free connection.
        pgbouncer: For PgBouncer in transaction mode, or another pooler that does not keep sessions.
        migrate: False never changes the schema: an older one is then a `SchemaError`.
        password: Instead of the URL's. A callable, async or not, is asked for each new connection:
            see `entra_password`.
        ssl: A context, instead of the URL's ``sslmode``.
        clock: Seconds since 1970; without one, the server's clock is used, which all clients share.
        options: What every engine takes: see `Engine`.
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
        self._queries = queries(self._schema, self._prefix)
        self._migrate = migrate
        self._location = mask_url(url).partition("?")[0]
        for what, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            _check_seconds(seconds, what)
        if type(pool_size) is not int or not 2 <= pool_size <= 1000:
            raise ConfigurationError("pool_size is a number from 2 to 1000: one connection is kept for appends.")
        self._access = Access(url, password, ssl, pool_size, timeout, connect_timeout, pgbouncer)
        self._connections = Connections(self._access, self._location)
        # Set by the subclass that searches.
        self._text_of: Callable[[NewMessage], str] | None = None
        self._language = "simple"
        self._purge_at = 0.0
        self._purging: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        own: dict[str, Callable[[str], Any]] = {
            **dict.fromkeys(("schema", "table_prefix", "auth", "search_language"), str),
            **dict.fromkeys(("timeout", "connect_timeout"), float),
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
            from everthread.engines.postgres._searching import SearchingPostgresStore

            return cast(Self, SearchingPostgresStore(rest, **settings))
        return cls(rest, **settings)

    @classmethod
    def from_pool(cls, pool: Pool, **options: Any) -> Self:
        """A store on a caller's own asyncpg pool, which is never closed here.

        Args:
            pool: An open pool of this event loop. Behind PgBouncer it needs ``statement_cache_size=0``.
            options: As for the constructor, without what concerns connecting.
        """
        store = cls("postgresql://", **options)
        store._location = "postgresql: (a borrowed pool)"
        store._connections = Connections(Access("", timeout=store._access.timeout), store._location, pool)
        return store

    @property
    def location(self) -> str:
        return self._location

    async def purge(self, limit: int = 1000) -> bool:
        """Removes at most ``limit`` messages of threads that have expired, which readers see no more.

        A store does this by itself about once a minute while it appends.

        Returns:
            Whether there may be more to remove.
        """
        return bool((await self._call(self._write("purge", limit, self._now_ms())))[0][0])

    async def diagnose(self) -> tuple[Fact, ...]:
        return await self._call(self._diagnose())

    async def _diagnose(self) -> tuple[Fact, ...]:
        (row,) = await self._connections.read(QUERY, self._schema, self._prefix)
        ((version,),) = await self._connections.read(self._queries["schema_version"])
        return facts(
            row,
            schema=self._schema,
            version=version,
            newest=newest_version(),
            keeps_no_sessions=self._access.pgbouncer,
        )

    async def reconcile(self, tenant: str = "", *, mend: bool = False) -> tuple[Drift, ...]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        return await self._call(self._reconcile(mend=mend))

    async def _reconcile(self, *, mend: bool) -> tuple[Drift, ...]:
        return tuple([drift async for drift in self._drifts(mend=mend) if drift.count])

    def _drifts(self, *, mend: bool) -> AsyncIterator[Drift]:
        return drifts(self._repeat, mend=mend)

    async def _open(self) -> None:
        await self._connections.open()
        try:
            await prepare(self._connections.pool, self._schema, self._prefix, migrate=self._migrate)
        except BaseException:
            await self._connections.close()
            raise

    async def _close(self) -> None:
        if self._purging is not None:
            await asyncio.wait({self._purging})
        await self._connections.close()

    def _translate(self, error: Exception) -> EverthreadError | None:
        return translate(error, self._location)

    # Messages

    async def _append_many(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        done: list[Appended | EverthreadError] = []
        for part in split(batch):
            done += await self._append_part(part)
        self._purge_sometimes()
        return done

    async def _append_part(self, part: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        if len(part) == 1 and (size := size_of(part[0])) > MAX_TURN_BYTES:
            what = f"A turn of {size:,} bytes for {part[0].key}: at most {MAX_TURN_BYTES:,} go into one append."
            return [LimitExceededError(what, size, MAX_TURN_BYTES)]
        try:
            return await self._append_together(part)
        except Exception as error:
            if len(part) == 1 or not is_of_one(error):
                raise
            # What one thread is refused (somebody holds its row's lock, say) must not fail the others.
            return [done for request in part for done in await self._append_alone(request)]

    async def _append_together(self, part: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        if self._text_of is None and is_usual(part):
            one = await self._connections.append(self._queries["append_one"], arguments_of_one(part[0], self._now_ms()))
            return results(part, [one[0][0]])
        turns, ends = in_rounds(part)
        args = arguments(turns, self._now_ms(), self._text_of, self._language)
        if len(ends) == 1:
            return results(turns, await self._connections.append(self._queries["append"], args))
        args = [ends, message_ends(turns, ends), *args]
        done = results(turns, await self._connections.append(self._queries["append_rounds"], args))
        of_turn = {id(turn): result for turn, result in zip(turns, done, strict=True)}
        return [of_turn[id(request)] for request in part]

    async def _append_alone(self, request: AppendRequest) -> Sequence[Appended | EverthreadError]:
        try:
            return await self._append_part([request])
        except Exception as error:
            typed = error if isinstance(error, EverthreadError) else self._translate(error)
            if typed is None:
                raise
            return [typed]

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        stop, limit = (MAX_SEQ + 1 if stop is None else stop), (MAX_SEQ if limit is None else limit)
        return _page(await self._fetch("read", *_names(key), start, stop, limit, self._now_ms()))

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        below = MAX_SEQ + 1 if before is None else before
        return _page((await self._fetch("read_last", *_names(key), below, count, self._now_ms()))[::-1])

    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated:
        rows = await self._write("truncate", *_names(key), start, stop, expected_seq, self._now_ms())
        if not rows:
            raise ThreadNotFoundError(f"There is no {key}.")
        removed, head_seq, next_seq = rows[0]
        if removed is None:
            raise _elsewhere(key, next_seq, expected_seq)
        return Truncated(removed, head_seq, next_seq)

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        return await self._rewrite_with_words(key, changes, None, None)

    async def _rewrite_with_words(
        self,
        key: ThreadKey,
        changes: Sequence[Rewrite],
        formats: Sequence[str | None] | None,
        texts: Sequence[str | None] | None,
    ) -> int:
        size = sum(len(change.old) + len(change.new) for change in changes)
        if size > MAX_TURN_BYTES:
            what = f"Rewriting {size:,} bytes (old and new) of {key}: at most {MAX_TURN_BYTES:,} go into one call."
            raise LimitExceededError(what, size, MAX_TURN_BYTES)
        payloads = [[change.old for change in changes], [change.new for change in changes]]
        what = (*_names(key), [change.seq for change in changes], *payloads, formats, texts, self._language)
        return (await self._write("rewrite", *what, self._now_ms()))[0][0]

    # Threads

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        rows = await self._fetch("get_thread", *_names(key), self._now_ms())
        return _thread(key.tenant, rows[0]) if rows else None

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Sequence[Thread]:
        if after is None:
            rows = await self._fetch("list_first", pack(tenant), self._now_ms(), limit)
        else:
            rows = await self._fetch("list_after", pack(tenant), self._now_ms(), limit, after[0], pack(after[1]))
        return [_thread(tenant, row) for row in rows]

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        title = None if change.title is None else pack(change.title)
        metadata = None if change.metadata is None else change.metadata.decode()
        what = (*_names(key), self._now_ms(), title, metadata, change.expected_revision)
        rows = await self._write("update_thread", *what, *_retention(change))
        if rows:
            return _thread(key.tenant, rows[0])
        current = await self._get_thread(key)
        if current is None:
            raise ThreadNotFoundError(f"There is no {key}.")
        conflict = f"{key} has revision {current.revision}, not {change.expected_revision}."
        raise ConflictError(conflict, current.revision)

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        rows = await self._write("restore_times", *_names(key), self._now_ms(), created_ms, updated_ms)
        if not rows:
            raise ThreadNotFoundError(f"There is no {key}.")
        return _thread(key.tenant, rows[0])

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        lived, kept_at = (await self._write("delete_thread", *_names(key), expected_seq, self._now_ms()))[0]
        if kept_at is not None:
            raise _elsewhere(key, kept_at, expected_seq)
        return lived

    async def _delete_tenant(self, tenant: str) -> int:
        lived, last = 0, None
        while True:
            # In steps, so that the locks of a large tenant are not all held at once.
            rows = await self._write("delete_tenant", pack(tenant), last, _DELETE_AT_ONCE, self._now_ms())
            some, last = rows[0]
            lived += some
            if last is None:
                return lived

    # Documents

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        rows = await self._fetch("get_document", *_names(key), self._now_ms(), pack(name))
        return Document(name, *rows[0]) if rows else None

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        what = (*_names(key), pack(name), value, expected_revision, self._now_ms())
        written, revision, updated_ms = (await self._write("put_document", *what))[0]
        if not written:
            raise ConflictError(f"Document {name!r} of {key} has revision {revision}.", revision)
        return Document(name, value, revision, updated_ms)

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        return bool(await self._write("delete_document", *_names(key), self._now_ms(), pack(name)))

    async def _list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        rows = await self._fetch("list_documents", *_names(key), self._now_ms())
        return tuple(unpack(row[0]) for row in rows)

    # Shared

    async def _fetch(self, query: str, *args: object) -> Sequence[Record]:
        return await self._connections.read(self._queries[query], *args)

    async def _write(self, query: str, *args: object) -> Sequence[Record]:
        return await self._connections.write(self._queries[query], *args)

    async def _repeat(self, query: str, *args: object) -> Sequence[Record]:
        return await self._connections.append(self._queries[query], args)

    def _now_ms(self) -> int | None:
        return int(self._clock() * 1000) if self._has_own_clock else None

    def _purge_sometimes(self) -> None:
        now = time.monotonic()
        if now >= self._purge_at:
            self._purge_at = now + _PURGE_EVERY
            self._purging = asyncio.get_running_loop().create_task(self._purge_quietly())

    async def _purge_quietly(self) -> None:
        # Nobody waits for it; what it fails to do now is done at another time or by another store.
        with contextlib.suppress(Exception):
            await self._write("purge", 1000, self._now_ms())


def _names(key: ThreadKey) -> tuple[str, str]:
    return pack(key.tenant), pack(key.thread_id)


def _page(rows: Sequence[Record]) -> MessagePage:
    if not rows:
        return MessagePage((), 0, 0)
    head_seq, next_seq, first = rows[0][:3]
    messages = () if first is None else tuple(_message(*row) for row in rows)
    return MessagePage(messages, head_seq, next_seq)


def _message(_head: int, _next: int, seq: int, payload: bytes, format: str, created_ms: int, turn: int) -> Message:
    return Message(seq, payload, unpack(format), created_ms, turn)


def _thread(tenant: str, row: Record) -> Thread:
    thread_id, head_seq, next_seq, count, size, created, updated, title, metadata, revision, expires = row[:11]
    has_retention, own_most, own_expire = row[11:]
    retention = Retention(own_most, _duration(own_expire)) if has_retention else None
    return Thread(
        ThreadKey(unpack(thread_id), tenant),
        head_seq,
        next_seq,
        count,
        size,
        created,
        updated,
        None if title is None else unpack(title),
        cast(Mapping[str, object], msgspec.json.decode(metadata)),
        revision,
        expires,
        retention,
    )


def _retention(change: ThreadChange) -> tuple[bool, bool, int | None, int | None, int | None]:
    if change.retention is None:
        return False, False, None, None, None
    own = change.own_retention or Retention()
    return True, change.own_retention is not None, own.max_messages, own.expire_ms, change.expire_ms


def _duration(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)


def _elsewhere(key: ThreadKey, next_seq: int, expected_seq: int | None) -> ConflictError:
    return ConflictError(f"The next position of {key} is {next_seq}, not {expected_seq}.", next_seq)


def _check_seconds(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise ConfigurationError(f"{what} is a number of seconds above 0.")
