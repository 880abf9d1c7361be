"""Connections to PostgreSQL: a pool of our own or a borrowed one, and what is done when one breaks."""

from __future__ import annotations

import asyncio
import contextlib
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

    Idle connections of our own pool are kept aside while nobody waits for one: giving one back to the
    pool and taking it out again costs as much as reading a few messages. A borrowed pool gets all back.
    """

    def __init__(self, access: Access, location: str, borrowed: Pool | None = None) -> None:
        self._access = access
        self._location = location
        self._borrowed = borrowed
        self._pool: Pool | None = borrowed
        self._idle: list[tuple[Connection, float]] = []
        self._keeps_idle = borrowed is None
        self._takers = 0

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
                # Compiling small statements costs more than it gains. A plan is kept for the life of a connection,
                # so it must be one that is good when the tables have grown.
                "jit": "off",
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
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
        self._keeps_idle = False
        if self._pool is None or self._borrowed is not None:
            return
        while self._idle:
            await self._pool.release(self._idle.pop()[0])
        try:
            await asyncio.wait_for(self._pool.close(), self._access.connect_timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    async def read(self, query: str, *args: object) -> list[Record]:
        """Runs a statement that changes nothing."""
        return await self._patiently(query, args, writes=False)

    async def write(self, query: str, *args: object) -> list[Record]:
        """Runs a statement that changes something; repeats it only where it certainly did nothing.

        Raises:
            OutcomeUnknownError: It may have been carried out.
        """
        return await self._patiently(query, args, repeatable=False)

    async def append(self, query: str, args: Sequence[object]) -> list[Record]:
        """Runs a statement that changes something and may be repeated.

        Raises:
            OutcomeUnknownError: It may have been carried out.
        """
        return await self._patiently(query, args)

    async def _patiently(
        self, query: str, args: Sequence[object], *, writes: bool = True, repeatable: bool = True
    ) -> list[Record]:
        until = time.monotonic() + PATIENCE
        for delay in _DELAYS:
            try:
                return await self._fetch(query, args)
            except _UnsentError as unsent:
                error, did_nothing = unsent.reason, True
            except Exception as failed:
                error, did_nothing = failed, not writes or is_refused_for_now(failed)
            if not _may_help(error) or not (did_nothing or repeatable) or time.monotonic() + delay > until:
                raise error if did_nothing else _of_unknown_outcome(error, self._location) from None
            await asyncio.sleep(delay)
        raise AssertionError("the delays are more than patience lasts")

    async def _fetch(self, query: str, args: Sequence[object]) -> list[Record]:
        connection = await self._take()
        try:
            rows = await connection.fetch(query, *args, timeout=self._access.timeout + _GRACE)
        except BaseException as error:
            if is_lost(error):
                await self._discard(connection)
            else:
                # The pool waits until the server is done with a cancelled statement.
                await self.pool.release(connection)
            raise
        await self._give_back(connection)
        return rows

    async def _take(self) -> Connection:
        while self._idle:
            connection, since = self._idle.pop()
            if time.monotonic() - since < IDLE and _is_open(connection):
                return connection
            await self._discard(connection)
        self._takers += 1
        try:
            return await self.pool.acquire(timeout=self._access.connect_timeout)
        except Exception as error:
            raise _UnsentError(error) from None
        finally:
            self._takers -= 1

    async def _discard(self, connection: Connection) -> None:
        # A connection whose end was noticed has gone back to the pool by itself, and takes no calls.
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.terminate()
        await self.pool.release(connection)

    async def _give_back(self, connection: Connection) -> None:
        if self._takers or not self._keeps_idle:
            await self.pool.release(connection)
        else:
            self._idle.append((connection, time.monotonic()))


class _UnsentError(Exception):
    """No connection could be had, so nothing was sent."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def _is_open(connection: Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


def _may_help(error: Exception) -> bool:
    return is_lost(error) or is_refused_for_now(error)


def _of_unknown_outcome(error: Exception, location: str) -> Exception:
    if isinstance(error, TimeoutError):
        return unanswered(location)
    return lost(location) if is_lost(error) else error


async def _nothing(_connection: object) -> None:
    """Instead of resetting a connection, which costs a round trip: statements here leave nothing behind in it."""
