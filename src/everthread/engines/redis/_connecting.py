"""From a Redis URL to authenticated connections, by redis-py, and from there to sockets of our own.

redis-py knows URLs, TLS, users, credential providers (Entra ID), and database numbers. Nothing here runs
commands of threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from copy import copy
from ipaddress import ip_address
from typing import Any, cast

import redis.asyncio as redis
from redis import exceptions

from everthread.engines.redis._errors import ServerError, refused
from everthread.engines.redis._line import Address
from everthread.errors import ConfigurationError, UnsupportedError
from everthread.settings import mask_url

OLDEST = (6, 2)


class Dialer:
    """Makes connections to the servers that a URL names, or that were found through it.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with redis-py's own options in its query.
        timeout: Seconds for connecting and for each step of signing in.
        must_be_primary: Refuses servers that are replicas.
        one_certificate: Servers that were found by number are checked for the name in the URL.
        options: Keyword arguments for redis-py's connection, e.g. ``credential_provider``.

    Raises:
        ConfigurationError: redis-py refuses the URL or an option.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        must_be_primary: bool = False,
        one_certificate: bool = False,
        **options: Any,
    ) -> None:
        defaults: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
        if not url.lower().startswith("unix:"):
            defaults["socket_keepalive"] = True
        if url.lower().startswith("rediss:"):
            # Below 6.0 redis-py does not look at the name.
            defaults["ssl_check_hostname"] = True
        pool, reason = _pool(url, defaults, options)
        if pool is None:
            # Raised here, since errors of the parser may quote the password.
            raise ConfigurationError(f"This Redis URL cannot be used ({mask_url(url)}){reason}.")
        self._settings: dict[str, Any] = pool.connection_kwargs
        self._make = pool.connection_class
        self._must_be_primary = must_be_primary
        is_tls = url.lower().startswith("rediss:")
        self._one_certificate = one_certificate and is_tls
        self.server = server_of(self._settings)
        self.address = address_of(self._settings, tls=is_tls)

    def for_sentinels(self, user: str | None, password: str | None) -> Dialer:
        """A dialer with the same options that signs in as sentinels want it."""
        other = copy(self)
        own = {"db": 0, "username": user, "password": password, "credential_provider": None}
        other._settings = {**self._settings, **own}
        other._must_be_primary = False
        return other

    async def dial(self, address: Address) -> asyncio.StreamWriter:
        """A connection that is ready for use.

        Raises:
            ConfigurationError: The server refuses the credentials or the database.
            UnsupportedError: It is too old.
        """
        connection = self._connection(address)
        try:
            with self._typed(connection):
                await connection.connect()
                await self._check_version(connection)
                if self._must_be_primary:
                    await _check_role(connection)
        finally:
            # From here on the socket is not redis-py's.
            writer, connection._reader = connection._writer, None
            connection._writer = None
        return writer

    async def ask(self, address: Address, *command: str) -> Any:
        """A server's reply to one command, over a connection of its own.

        Raises:
            ConfigurationError: The server refuses the credentials or the command.
        """
        connection = self._connection(address)
        try:
            with self._typed(connection):
                await connection.connect()
                await connection.send_command(*command, check_health=False)
                return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)

    def _connection(self, address: Address) -> Any:
        host, port = address
        if not host:
            return self._make(**self._settings)
        connection = self._make(**{**self._settings, "host": host, "port": port})
        named = str(self._settings.get("host"))
        if self._one_certificate and _is_ip(host) and not _is_ip(named):
            # Clusters tell of their servers by number, and certificates speak of the name that the user knows.
            # (What sentinels tell of has a certificate of its own, which speaks of what they tell.)
            arguments = connection._connection_arguments
            connection._connection_arguments = lambda: {**arguments(), "server_hostname": named}
        return connection

    @contextmanager
    def _typed(self, connection: Any) -> Generator[None]:
        server = server_of(cast(dict[str, Any], vars(connection)))
        try:
            yield
        except exceptions.AuthenticationError:
            is_known = self._settings.get("password") or self._settings.get("credential_provider")
            raise refused(server, ServerError("WRONGPASS" if is_known else "NOAUTH")) from None
        except exceptions.NoPermissionError as error:
            raise refused(server, ServerError(f"NOPERM {error}")) from None
        except exceptions.ResponseError as error:
            if isinstance(error, (exceptions.BusyLoadingError, exceptions.MasterDownError)):
                raise
            raise ConfigurationError(f"{server} refuses the connection: {error}.") from None

    async def _check_version(self, connection: Any) -> None:
        await connection.send_command("HELLO", check_health=False)
        try:
            told = await connection.read_response()
        except exceptions.NoPermissionError:
            return
        version = dict(zip(told[::2], told[1::2], strict=False)).get(b"version", b"").decode()
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers and numbers < OLDEST:
            raise UnsupportedError(f"{self.server} is version {version}; everthread takes Redis ≥ 6.2 or Valkey.")


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _check_role(connection: Any) -> None:
    # Sentinels may still name a primary that has become a replica.
    await connection.send_command("ROLE", check_health=False)
    role = (await connection.read_response())[0]
    if role != b"master":
        raise exceptions.ConnectionError("it is not the primary yet")


def _pool(url: str, defaults: dict[str, Any], options: dict[str, Any]) -> tuple[Any, str]:
    """redis-py's pool for a URL, or ``None`` and what is wrong."""
    try:
        pool = cast(Any, redis.ConnectionPool).from_url(url, **defaults)
        # Answers are matched by their order: nothing may come that was not asked for, and as bytes.
        pool.connection_kwargs.update(options, protocol=2, decode_responses=False)
        pool.make_connection()
    except TypeError as error:
        # An option that redis-py does not know; the error names it alone.
        return None, f": {error}"
    except (ValueError, AttributeError, exceptions.RedisError, OSError):
        return None, ": see the forms that redis-py takes"
    return pool, ""


def server_of(settings: dict[str, Any]) -> str:
    """What errors call a server: its host and port, or its socket's path; no secret."""
    if path := settings.get("path"):
        where = f"Redis at {path}"
    else:
        where = f"Redis at {settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
    database = settings.get("db")
    return f"{where}, database {database}" if database else where


def is_encrypted(pool: Any) -> bool:
    """Whether a pool of redis-py makes connections that speak TLS."""
    return issubclass(pool.connection_class, redis.SSLConnection)


def address_of(settings: dict[str, Any], *, tls: bool) -> str:
    """The URL of a server without user, password and options."""
    database = settings.get("db") or 0
    if path := settings.get("path"):
        return f"unix://{path}?db={database}"
    host = str(settings.get("host", "localhost"))
    host = f"[{host}]" if ":" in host else host
    return f"redis{'s' * tls}://{host}:{settings.get('port', 6379)}/{database}"
