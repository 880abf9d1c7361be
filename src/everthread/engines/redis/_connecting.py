"""From a Redis URL to an authenticated connection, by redis-py, and from there to a socket of our own.

redis-py knows URLs, TLS, users, credential providers (Entra ID), and database numbers. Nothing here runs
commands of threads.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import redis.asyncio as redis
from redis import exceptions

from everthread.engines.redis._errors import ServerError, refused
from everthread.errors import ConfigurationError, UnsupportedError
from everthread.settings import mask_url

OLDEST = (6, 2)


class Dialer:
    """Makes connections to the server that a URL names.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with redis-py's own options in its query.
        timeout: Seconds for connecting and for each step of signing in.
        options: Keyword arguments for redis-py's connection, e.g. ``credential_provider``.

    Raises:
        ConfigurationError: redis-py refuses the URL or an option.
    """

    def __init__(self, url: str, *, timeout: float, **options: Any) -> None:
        defaults: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
        if not url.lower().startswith("unix:"):
            defaults["socket_keepalive"] = True
        pool, reason = _pool(url, defaults, options)
        if pool is None:
            # Raised here, since errors of the parser may quote the password.
            raise ConfigurationError(f"This Redis URL cannot be used ({mask_url(url)}){reason}.")
        self._pool: Any = pool
        settings = pool.connection_kwargs
        self.server = server_of(settings)
        self.address = address_of(settings, tls=url.lower().startswith("rediss:"))
        self._has_password = bool(settings.get("password") or settings.get("credential_provider"))

    async def dial(self) -> asyncio.StreamWriter:
        """A connection that is ready for use.

        Raises:
            ConfigurationError: The server refuses the credentials or the database.
            UnsupportedError: It is too old.
        """
        connection: Any = self._pool.make_connection()
        try:
            await connection.connect()
            await self._check_version(connection)
        except exceptions.AuthenticationError:
            raise refused(self.server, ServerError("WRONGPASS" if self._has_password else "NOAUTH")) from None
        except exceptions.NoPermissionError:
            raise refused(self.server, ServerError("NOPERM")) from None
        except exceptions.ResponseError as error:
            if isinstance(error, exceptions.BusyLoadingError):
                raise
            raise ConfigurationError(f"{self.server} refuses the connection: {error}.") from None
        finally:
            writer, connection._reader = connection._writer, None
            connection._writer = None
        return writer

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


def address_of(settings: dict[str, Any], *, tls: bool) -> str:
    """The URL of a server without user, password and options."""
    database = settings.get("db") or 0
    if path := settings.get("path"):
        return f"unix://{path}?db={database}"
    host = str(settings.get("host", "localhost"))
    host = f"[{host}]" if ":" in host else host
    return f"redis{'s' * tls}://{host}:{settings.get('port', 6379)}/{database}"
