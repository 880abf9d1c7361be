"""Connections to PostgreSQL: a pool of our own or a borrowed one, and what is done when one breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from everthread.engines.postgres._errors import is_lost, is_refused_for_now, lost, unanswered

if TYPE_CHECKING:
    import ssl

    Record = asyncpg.Record
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

Attempt = Callable[[str, Sequence[object]], Awaitable["list[Record]"]]
Password = str | Callable[[], str] | Callable[[], Awaitable[str]]

PATIENCE = 10.0
"""Seconds for which a call that is safe to repeat is repeated while the server is away, e.g. restarts."""

IDLE = 120.0
"""Seconds without use after which a connection is replaced: address translators on the way forget it silently."""

# The server's own timeout comes first, and says that nothing was written; this is for a network that is silent.
_GRACE = 5.0

# The first repetition is at once: a connection that broke while it lay in the pool says nothing of the server.
_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.4, *(0.5 for _ in range(100)))


class Access(msgspec.Struct, frozen=True):
    """How to connect.

    Attributes:
        url: For asyncpg, which parses it as libpq does.
        password: Instead of the URL's; a callable is asked for each new connection.
        ssl: Instead of the URL's sslmode.
        pool_size: Most connections of this store.
        timeout: Seconds that one statement may take.
        connect_timeout: Seconds that connecting may take, or waiting for a free connection.
        pgbouncer: No prepared statements and no settings that outlive a transaction.
    """

    url: str
    password: Password | None = None
    ssl: ssl.SSLContext | bool | str | None = None
    pool_size: int = 10
    timeout: float = 30.0
    connect_timeout: float = 10.0
    pgbouncer: bool = False


class Connections:
    """Runs statements, again where that is safe.

    One connection is kept for the appends, which go one batch at a time: taking it from the pool and
    giving it back costs a fifth of an append. A borrowed pool is not kept waiting for it.
    """

    def __init__(self, access: Access, location: str, borrowed: Pool | None = None) -> None:
        self._access = access
        self._location = location
        self._borrowed = borrowed
        self._pool: Pool | None = borrowed
        self._appender: Connection | None = None
        self._used_at = 0.0

    @property
    def pool(self) -> Pool:
        """The open pool."""
        assert self._pool is not None, "statements run only on an open store"
        return self._pool

    async def open(self) -> None:
        """Connects once, so that what is wrong shows now."""
        if self._borrowed is not None:
            return
        access = self._access
        optional: dict[str, Any] = {"password": access.password, "ssl": access.ssl}
        if access.pgbouncer:
            optional["statement_cache_size"] = 0
        else:
            optional["server_settings"] = {
                "application_name": "everthread",
                # Compiling small statements costs more than it gains.
                "jit": "off",
                "statement_timeout": str(int(access.timeout * 1000)),
                # Sooner, so that a lock is known as the reason.
                "lock_timeout": str(int(access.timeout * 1000) // 3),
            }
        self._pool = await asyncpg.create_pool(
            access.url,
            min_size=1,
            max_size=access.pool_size,
            max_inactive_connection_lifetime=IDLE,
            timeout=access.connect_timeout,
            command_timeout=access.timeout + _GRACE,
            reset=_nothing,
            **{name: value for name, value in optional.items() if value is not None},
        )

    async def close(self) -> None:
        """Closes what was opened here; a borrowed pool stays open."""
        await self._release_appender()
        pool, self._pool = self._pool, None
        if pool is None or self._borrowed is not None:
            return
        try:
            await asyncio.wait_for(pool.close(), self._access.connect_timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    async def read(self, query: str, *args: object) -> list[Record]:
        """Runs a statement that changes nothing."""
        return await self._patiently(self._fetch, query, args, writes=False)

    async def write(self, query: str, *args: object) -> list[Record]:
        """Runs a statement that changes something; repeats it only where it certainly did nothing.

        Raises:
            OutcomeUnknownError: It may have been carried out.
        """
        return await self._patiently(self._fetch, query, args, repeatable=False)

    async def append(self, query: str, args: Sequence[object]) -> list[Record]:
        """Runs a statement that changes something and may be repeated, on a connection kept for it.

        Raises:
            OutcomeUnknownError: It may have been carried out.
        """
        attempt = self._fetch if self._borrowed is not None else self._fetch_on_appender
        return await self._patiently(attempt, query, args)

    async def _patiently(
        self, attempt: Attempt, query: str, args: Sequence[object], *, writes: bool = True, repeatable: bool = True
    ) -> list[Record]:
        until = time.monotonic() + PATIENCE
        for delay in _DELAYS:
            try:
                return await attempt(query, args)
            except _UnsentError as unsent:
                error, did_nothing = unsent.reason, True
            except Exception as failed:
                error, did_nothing = failed, not writes or is_refused_for_now(failed)
            if not _may_help(error) or not (did_nothing or repeatable) or time.monotonic() + delay > until:
                raise error if did_nothing else _of_unknown_outcome(error, self._location) from None
            await asyncio.sleep(delay)
        raise AssertionError("the delays are more than patience lasts")

    async def _fetch(self, query: str, args: Sequence[object]) -> list[Record]:
        connection = await self._acquire()
        try:
            return await connection.fetch(query, *args, timeout=self._access.timeout + _GRACE)
        finally:
            await self.pool.release(connection)

    async def _fetch_on_appender(self, query: str, args: Sequence[object]) -> list[Record]:
        now = time.monotonic()
        if self._appender is not None and now - self._used_at > IDLE:
            self._appender.terminate()
            await self._release_appender()
        if self._appender is None:
            self._appender = await self._acquire()
        self._used_at = now
        try:
            return await self._appender.fetch(query, *args)
        except BaseException:
            await self._release_appender()
            raise

    async def _acquire(self) -> Connection:
        try:
            return await self.pool.acquire(timeout=self._access.connect_timeout)
        except Exception as error:
            raise _UnsentError(error) from None

    async def _release_appender(self) -> None:
        connection, self._appender = self._appender, None
        if connection is not None:
            await self.pool.release(connection)


class _UnsentError(Exception):
    """No connection could be had, so nothing was sent."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def _may_help(error: Exception) -> bool:
    return is_lost(error) or is_refused_for_now(error)


def _of_unknown_outcome(error: Exception, location: str) -> Exception:
    if isinstance(error, TimeoutError):
        return unanswered(location)
    return lost(location) if is_lost(error) else error


async def _nothing(_connection: object) -> None:
    """Instead of resetting a connection, which costs a round trip: statements here leave nothing behind in it."""
