"""Connections to PostgreSQL: the store's own pool or a borrowed one, and retries after a connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from everthread.engines._sockets import disconnect
from everthread.engines.postgres.errors import is_lost, is_refused_for_now, unconfirmed
from everthread.engines.postgres.urls import Target, certificates

if TYPE_CHECKING:
    import ssl

    Record = asyncpg.Record
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

Password = str | Callable[[], str] | Callable[[], Awaitable[str]]

_log = logging.getLogger("everthread.postgres")

PATIENCE = 10.0
"""Seconds for which a call is retried while the server restarts, if it is safe to repeat."""

IDLE = 120.0
"""Seconds without use after which a connection is replaced: network address translators drop it silently."""

# The server's own timeout expires first, and proves that nothing was written. This is for a silent network.
_GRACE = 5.0

# The first retry is immediate: a connection that broke in the pool says nothing about the server.
_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.4, *(0.5 for _ in range(100)))


class Access(msgspec.Struct, frozen=True):
    """Settings for connections.

    Attributes:
        target: The URL's settings.
        password, ssl, pool_size, timeout, connect_timeout, pgbouncer: As for `PostgresStore`.
    """

    target: Target
    password: Password | None = None
    ssl: ssl.SSLContext | bool | str | None = None
    pool_size: int = 10
    timeout: float = 30.0
    connect_timeout: float = 10.0
    pgbouncer: bool = False

    def __repr__(self) -> str:
        return "Access(…)"


class Connector:
    """Connects for a pool, in tasks that no cancelled call interrupts.

    The driver abandons a cancelled attempt, and the event loop then reports "Future exception was never retrieved".
    So an attempt always runs to its end, and its connection is closed if no caller waits for it.
    """

    def __init__(self) -> None:
        # Adding the same filter again does nothing.
        logging.getLogger("asyncpg.pool").addFilter(_in_one_line)
        self._attempts: set[asyncio.Task[Any]] = set()

    async def connect(self, *args: Any, **options: Any) -> Any:
        """Connect as `asyncpg.connect` does; its ``timeout`` also bounds an attempt that no caller waits for."""
        attempt = asyncio.get_running_loop().create_task(asyncpg.connect(*args, **options))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        try:
            await asyncio.wait({attempt})
        except asyncio.CancelledError:
            attempt.add_done_callback(_drop)
            raise
        return attempt.result()

    async def wait(self) -> None:
        """Wait until all attempts have ended."""
        if self._attempts:
            await asyncio.wait(self._attempts)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Replace the driver's traceback of a failed `Connector` attempt by one line; return whether the driver logs it.

    Its pool logs each attempt while the server restarts. The caller's own pools log as before.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    if all(frame.f_code is not Connector.connect.__code__ for frame, _ in traceback.walk_tb(error.__traceback__)):
        return True
    # The text of the error may name the address.
    _log.warning("A connection to PostgreSQL was lost and is being restored (%s).", type(error).__name__)
    return False


def _drop(attempt: asyncio.Task[Any]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


class Connections:
    """Run named statements, and repeat them if that is safe.

    Idle connections of the store's own pool stay acquired while no call waits for one: releasing and acquiring one
    costs as much as reading a few messages. A borrowed pool gets every connection back.
    """

    def __init__(self, access: Access, location: str, queries: Mapping[str, str], borrowed: Pool | None = None) -> None:
        self.queries = queries
        self._access = access
        self._location = location
        self._borrowed = borrowed
        self._pool: Pool | None = borrowed
        self._idle: list[tuple[Connection, float]] = []
        self._keeps_idle = borrowed is None
        self._takers = 0
        self._connector = Connector()

    @property
    def pool(self) -> Pool:
        """The open pool."""
        assert self._pool is not None, "statements run only on an open store"
        return self._pool

    async def open(self) -> None:
        """Connect once, so that configuration errors appear now."""
        if self._borrowed is not None:
            return
        access = self._access
        ssl = certificates(access.target.options, os.environ) if access.ssl is None else access.ssl
        optional: dict[str, Any] = {"password": access.password, "ssl": ssl}
        if access.pgbouncer:
            optional["server_settings"] = access.target.server_settings
            optional["statement_cache_size"] = 0
            optional["init"] = _learn_types
        else:
            optional["server_settings"] = {
                "application_name": "everthread",
                **access.target.server_settings,
                # Roles that may create objects in another schema cannot plant functions that statements then call.
                "search_path": "pg_catalog, pg_temp",
                # Compiling small statements costs more than it gains. A plan lives as long as its connection, so it
                # must suit tables that have grown.
                "jit": "off",
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
                "statement_timeout": str(int(access.timeout * 1000)),
                # Shorter, so that the error names the lock as the reason.
                "lock_timeout": str(int(access.timeout * 1000) // 3),
            }
        self._pool = await asyncpg.create_pool(
            access.target.dsn,
            min_size=1,
            max_size=access.pool_size,
            max_inactive_connection_lifetime=IDLE,
            timeout=access.connect_timeout,
            command_timeout=access.timeout + _GRACE,
            connect=self._connector.connect,
            reset=_nothing,
            **{name: value for name, value in optional.items() if value is not None},
        )

    async def close(self) -> None:
        """Close the pool unless it is borrowed."""
        self._keeps_idle = False
        if self._pool is None or self._borrowed is not None:
            await self._connector.wait()
            return
        try:
            while self._idle:
                await self._pool.release(self._idle.pop()[0])
            await asyncio.wait_for(self._pool.close(), self._access.connect_timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()
        except asyncio.CancelledError:
            # The loop may be about to end.
            self._pool.terminate()
            raise
        await self._connector.wait()

    def release(self) -> None:
        """Disconnect without the event loop, which is closed."""
        holders = () if self._pool is None or self._borrowed is not None else getattr(self._pool, "_holders", ())
        for holder in holders:
            # asyncpg can only disconnect in its loop, and has no public access to the transport.
            transport = getattr(getattr(holder, "_con", None), "_transport", None)
            if isinstance(transport, asyncio.BaseTransport):
                disconnect(transport)
        self._pool = self._borrowed
        self._idle.clear()

    async def read(self, query: str, *args: object) -> list[Record]:
        """Run a statement that changes nothing."""
        return await self._patiently(query, args, writes=False)

    async def write(self, query: str, *args: object) -> list[Record]:
        """Run a statement that changes data; repeat it only if it certainly did nothing.

        Raises:
            OutcomeUnknownError: It may have taken effect.
        """
        return await self._patiently(query, args, repeatable=False)

    async def append(self, query: str, *args: object) -> list[Record]:
        """Run a statement that changes data and may be repeated; raises as `write` does."""
        return await self._patiently(query, args)

    async def _patiently(
        self, query: str, args: Sequence[object], *, writes: bool = True, repeatable: bool = True
    ) -> list[Record]:
        until = time.monotonic() + PATIENCE
        for delay in _DELAYS:
            try:
                return await self._fetch(self.queries[query], args)
            except _UnsentError as unsent:
                error, did_nothing = unsent.reason, True
            except Exception as failed:
                error, did_nothing = failed, not writes or is_refused_for_now(failed)
            may_help = is_lost(error) or is_refused_for_now(error)
            if not may_help or not (did_nothing or repeatable) or time.monotonic() + delay > until:
                raise error if did_nothing else unconfirmed(error, self._location) from None
            await asyncio.sleep(delay)
        raise AssertionError("the delays last longer than the patience")

    async def _fetch(self, query: str, args: Sequence[object]) -> list[Record]:
        connection = await self._take()
        try:
            rows = await connection.fetch(query, *args, timeout=self._access.timeout + _GRACE)
        except BaseException as error:
            if is_lost(error):
                await self._discard(connection)
            else:
                # The pool waits until the server has ended a cancelled statement.
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
        # The driver has already returned a connection to the pool if it knows that it is closed.
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.terminate()
        await self.pool.release(connection)

    async def _give_back(self, connection: Connection) -> None:
        if self._takers or not self._keeps_idle:
            await self.pool.release(connection)
        else:
            self._idle.append((connection, time.monotonic()))


class _UnsentError(Exception):
    """There was no connection, so nothing was sent."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def _is_open(connection: Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


async def _learn_types(connection: Connection) -> None:
    """Make the driver look up the array types now: its query names no schema, and behind a pooler only a transaction
    can pin the search path.
    """
    async with connection.transaction():
        await connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        await connection.fetchrow("SELECT NULL::bigint[], NULL::int[], NULL::boolean[], NULL::bytea[], NULL::text[]")


async def _nothing(_connection: object) -> None:
    """Replace the reset of a connection, which costs a round trip: statements here leave no session state."""
