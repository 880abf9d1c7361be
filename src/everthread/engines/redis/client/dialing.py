"""Authenticated connections, made by redis-py; from then on, `Connection` drives their sockets.

redis-py handles URLs, TLS, users, credential providers (Entra ID) and database numbers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import redis.asyncio as redis
from redis import exceptions
from redis.credentials import CredentialProvider

from everthread.engines.redis.client.calls import Address
from everthread.engines.redis.client.entra import EntraCredentials
from everthread.engines.redis.errors import TRANSIENT, ServerError, refused
from everthread.errors import ConfigurationError, EverthreadError, UnsupportedError
from everthread.urls import mask_url

OLDEST = (6, 2)
_TEMPORARY = (
    exceptions.BusyLoadingError,
    exceptions.MasterDownError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
)
# Options of redis-py that its URL parser would pass on as text.
_PYTHON_OBJECTS = frozenset(
    [
        "connection_class",
        "credential_provider",
        "encoder_class",
        "event_dispatcher",
        "parser_class",
        "redis_connect_func",
        "retry",
        "retry_on_error",
        "socket_keepalive_options",
    ]
)
_QUOTED_NAME = re.compile(r"['`]([a-z_]{1,40})['`]")


class Dialer:
    """Makes connections with the settings of a pool of redis-py, also to servers that others report.

    Args:
        pool: The pool; it makes none of the connections.
        timeout: Seconds for connecting and for each step of authentication.
        must_be_primary: Refuse servers that are replicas.
        one_certificate: Check the certificates of servers with a numeric address for the name in the settings.
    """

    def __init__(
        self, pool: Any, *, timeout: float, must_be_primary: bool = False, one_certificate: bool = False
    ) -> None:
        # Replies are matched by their order, so the server must send no other ones; and they are bytes. Settings that
        # were derived from another protocol are left out: newer releases refuse combinations.
        self._settings = _without_protocol(pool) | {"protocol": 2, "decode_responses": False}
        self.provider = cast(CredentialProvider | None, self._settings.get("credential_provider"))
        if self.provider is not None and not isinstance(self.provider, EntraCredentials):
            self._settings["credential_provider"] = _Discreet(self.provider)
        self._pool = pool  # a connection of `redis.asyncio.Sentinel` refers to it weakly
        self._make = pool.connection_class
        self._timeout = timeout
        self._must_be_primary = must_be_primary
        is_tls = issubclass(pool.connection_class, redis.SSLConnection)
        self._one_certificate = one_certificate and is_tls
        self.server = server_of(self._settings)
        self.address = address_of(self._settings, tls=is_tls)

    def for_sentinels(self, user: str | None, password: str | None) -> Dialer:
        """Return a dialer with the same options and the sentinels' own credentials."""
        other = copy(self)
        own = {"db": 0, "username": user, "password": password, "credential_provider": None}
        other._settings = {**self._settings, **own}
        other._must_be_primary = False
        return other

    async def dial(self, address: Address) -> asyncio.StreamWriter:
        """Return a connection that is ready for use.

        Raises:
            ConfigurationError: The server refuses the credentials or the database.
            UnsupportedError: The server is too old.
        """
        async with self._connected(address) as connection:
            await self._check_version(connection)
            if self._must_be_primary:
                await _check_role(connection)
            # From here on, the socket is not redis-py's.
            writer = cast(asyncio.StreamWriter, connection._writer)
            connection._reader = connection._writer = None
            return writer

    async def ask(self, address: Address, *command: str) -> Any:
        """Connect to a server, send one command, and return the reply.

        Raises:
            ConfigurationError: The server refuses the credentials or the command.
        """
        async with self._connected(address) as connection:
            await connection.send_command(*command, check_health=False)
            return await connection.read_response()

    async def listen(self, address: Address, *channels: str) -> AsyncGenerator[tuple[bytes, bytes], None]:
        """Connect to a server and yield the messages that it publishes, as channel and text, until the connection ends.

        The first channel is empty: no message that is published later is missed.

        Raises:
            ConfigurationError: The server refuses the credentials or the command.
        """
        is_silent = False
        async with self._connected(address) as connection:
            await connection.send_command("SUBSCRIBE", *channels, check_health=False)
            await connection.read_response()
            yield b"", b""
            while True:
                reply = await connection.read_response(timeout=self._timeout, disconnect_on_error=False)
                if reply is None:
                    if is_silent:
                        return
                    await connection.send_command("PING", check_health=False)
                elif reply[0] == b"message":
                    yield reply[1], reply[2]
                is_silent = reply is None

    @asynccontextmanager
    async def _connected(self, address: Address) -> AsyncGenerator[Any]:
        connection = self._connection(address)
        try:
            with self._typed(connection):
                await connection.connect()
                yield connection
        finally:
            await connection.disconnect(nowait=True)

    def _connection(self, address: Address) -> Any:
        host, port = address
        if not host:
            return self._make(**self._settings)
        connection = self._make(**{**self._settings, "host": host, "port": port})
        named = str(self._settings.get("host"))
        if self._one_certificate and _is_ip(host) and not _is_ip(named):
            # A cluster reports numeric addresses, and its certificates are for the name that the user knows.
            # (A server that sentinels report has a certificate for the reported address.)
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
        except _TEMPORARY as error:
            raise exceptions.ConnectionError(f"it refuses calls at the moment: {type(error).__name__}") from None
        except exceptions.ResponseError as error:
            if (code := ServerError(str(error)).code) in TRANSIENT:
                raise exceptions.ConnectionError(f"it refuses calls at the moment: {code}") from None
            if "unknown command" in str(error).lower():
                raise refused(server, ServerError(str(error))) from None
            raise ConfigurationError(f"{server} refuses the connection: {self._without_secrets(str(error))}.") from None

    def _without_secrets(self, text: str) -> str:
        """Return a server's words, or only their code if they quote the password."""
        password = str(self._settings.get("password") or "")
        is_quoted = password and (password in text or quote(password, safe="") in text)
        return ServerError(text).code if is_quoted else text

    async def _check_version(self, connection: Any) -> None:
        await connection.send_command("HELLO", check_health=False)
        try:
            reply = await connection.read_response()
        except exceptions.NoPermissionError:
            return
        version = dict(zip(reply[::2], reply[1::2], strict=False)).get(b"version", b"").decode()
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers and numbers < OLDEST:
            raise UnsupportedError(
                f"{self.server} has version {version}; everthread needs Redis 6.2 or newer, or Valkey."
            )


class _Discreet(CredentialProvider):
    """A provider that reports only the type of an error, because the text may quote credentials."""

    def __init__(self, provider: CredentialProvider) -> None:
        self._provider = provider

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        try:
            return await self._provider.get_credentials_async()
        except EverthreadError:
            raise
        except Exception as error:
            raise exceptions.ConnectionError(f"the credential provider raised {type(error).__name__}") from None


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _check_role(connection: Any) -> None:
    # Sentinels may name a primary that has become a replica.
    await connection.send_command("ROLE", check_health=False)
    role = (await connection.read_response())[0]
    if role != b"master":
        raise exceptions.ConnectionError("it is not the primary yet")


def pool_at(url: str, timeout: float, **options: Any) -> Any:
    """Return redis-py's pool for a URL. Does not connect.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with redis-py's own options in its query.
        timeout: Default seconds for connecting and for each step of authentication.
        options: Keyword arguments for connections, e.g. ``credential_provider``.

    Raises:
        ConfigurationError: redis-py refuses the URL or an option.
    """
    defaults: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
    if not url.lower().startswith("unix:"):
        defaults["socket_keepalive"] = True
    if url.lower().startswith("rediss:"):
        # redis-py below 6.0 does not check the name.
        defaults["ssl_check_hostname"] = "none" not in parse_qs(urlsplit(url).query).get("ssl_cert_reqs", ())
    objects = _PYTHON_OBJECTS.intersection(parse_qs(urlsplit(url).query))
    reason = f": the option {min(objects)} takes a Python object, which a URL cannot name" if objects else ""
    try:
        if not objects:
            pool = cast(Any, redis.ConnectionPool).from_url(url, **defaults)
            pool.connection_kwargs.update(options)
            pool.connection_class(**_without_protocol(pool))
            return pool
    except (TypeError, ValueError, AttributeError, exceptions.RedisError, OSError) as error:
        # Only the name of the option, because the text may quote its value.
        name = _QUOTED_NAME.search(str(error))
        problem = "is not known" if isinstance(error, TypeError) else "has a wrong value"
        reason = f": the option {name[1]} {problem}" if name else ": see redis-py's documentation for its form"
    # Raised here, because the parser's errors may quote the password.
    raise ConfigurationError(f"This Redis URL cannot be used ({mask_url(url)}){reason}.")


def client_at(url: str, timeout: float, **options: Any) -> redis.Redis:
    """Return a client of redis-py for a URL that decodes responses. Its first command connects."""
    return client_like(pool_at(url, timeout, **options), decode_responses=True)


def client_like(pool: Any, **changes: Any) -> redis.Redis:
    """Return a client of redis-py with the settings of a pool, and these changes. It owns a pool of its own."""
    settings = {**_without_protocol(pool), **changes}
    return redis.Redis.from_pool(cast(Any, redis.ConnectionPool)(connection_class=pool.connection_class, **settings))


def _without_protocol(pool: Any) -> dict[str, Any]:
    """Return the settings of a pool without the protocol and the settings derived from it."""
    settings = cast(dict[str, Any], pool.connection_kwargs)
    return {name: value for name, value in settings.items() if not name.startswith(("protocol", "maint_"))}


def server_of(settings: dict[str, Any]) -> str:
    """Return the name of a server in errors: its host and port, or its socket's path."""
    if path := settings.get("path"):
        where = f"Redis at {path}"
    else:
        where = f"Redis at {settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
    database = settings.get("db")
    return f"{where}, database {database}" if database else where


def address_of(settings: dict[str, Any], *, tls: bool) -> str:
    """Return the URL of a server without user, password and options."""
    database = settings.get("db") or 0
    if path := settings.get("path"):
        return f"unix://{path}?db={database}"
    host = str(settings.get("host", "localhost"))
    host = f"[{host}]" if ":" in host else host
    return f"redis{'s' * tls}://{host}:{settings.get('port', 6379)}/{database}"
