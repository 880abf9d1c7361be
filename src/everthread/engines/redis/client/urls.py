"""Parse Redis URLs and options, and make the router of a store from them. redis-py parses the rest of a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis.asyncio as redis

from everthread._url_options import engine_options, flag
from everthread.engines.redis.client.calls import Address
from everthread.engines.redis.client.connection import Durability
from everthread.engines.redis.client.dialing import Dialer, client_at, pool_at
from everthread.engines.redis.client.entra import EntraCredentials
from everthread.engines.redis.client.router import Limits, Router
from everthread.engines.redis.client.sentinels import SentinelTopology
from everthread.engines.redis.client.topology import ClusterTopology, Topology
from everthread.errors import ConfigurationError
from everthread.model import check_count
from everthread.urls import mask_url

_PARTS: Final = re.compile(r"(rediss?)\+(cluster|sentinel)://([^/?#]*)(/[^?#]*)?(.*)", re.IGNORECASE | re.DOTALL)
_PORTS: Final = {"cluster": 6379, "sentinel": 26379}

DEFAULT_TIMEOUT: Final = 5.0
DEFAULT_FAILOVER_TIMEOUT: Final = 30.0
DEFAULT_WAIT_MILLISECONDS: Final = 1000
_RETRIES: Final = {"": 3, "cluster": 60, "sentinel": 60}

_OWN: Final[Mapping[str, Callable[[str], Any]]] = {
    "prefix": str,
    "timeout": float,
    "retries": int,
    "failover_timeout": float,
    "wait_replicas": int,
    "wait_timeout": int,
    "auth": str,
    "spread": flag,
    "sentinel_username": str,
    "sentinel_password": str,
}


def connector(url: str, options: Mapping[str, Any]) -> tuple[Callable[[], Router], dict[str, Any]]:
    """Return a function that creates the router of a store, and the store's other arguments.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    rest, settings = engine_options(url, options, _OWN)
    target = target_of(rest)
    limits = _limits(target, settings)
    sentinel_user = settings.pop("sentinel_username", None), settings.pop("sentinel_password", None)
    provider = _provider(settings)
    dialer = Dialer(
        pool_at(target.url, limits.timeout, **provider),
        timeout=limits.timeout,
        must_be_primary=target.kind == "sentinel",
        one_certificate=target.kind == "cluster",
    )
    server = f"Redis at {target.address.partition('://')[2]}" if target.kind else dialer.server

    def connect() -> Router:
        topology = _topology(target, dialer, sentinel_user)
        return Router(topology, dialer, server, limits)

    address = target.address or dialer.address
    spread = settings.pop("spread", False)
    if spread and not target.kind:
        address += f"{'&' if '?' in address else '?'}spread=true"
    spread = spread or target.kind == "cluster"
    return connect, {"server": server, "address": address, "spread": spread, **settings}


def client_connector(client: Any, options: Mapping[str, Any]) -> tuple[Callable[[], Router], dict[str, Any]]:
    """Return the same for the server of a caller's ``redis.asyncio.Redis``, with the client's settings.

    Raises:
        ConfigurationError: The client is another object, or an option is wrong.
    """
    pool = getattr(client, "connection_pool", None)
    if pool is None or not hasattr(client, "execute_command"):
        raise ConfigurationError(f"from_client accepts a redis.asyncio.Redis, not {type(client).__name__}.")
    settings, given = dict(options), cast(dict[str, Any], pool.connection_kwargs)
    timeout = float(given.get("socket_timeout") or DEFAULT_TIMEOUT)
    limits = Limits(timeout, _RETRIES[""], timeout, _durability(settings, timeout))
    dialer = Dialer(pool, timeout=timeout)

    address, server = dialer.address, dialer.server
    if (name := getattr(pool, "service_name", None)) is not None:
        # A client of `redis.asyncio.Sentinel`: the address of the primary is not in its settings.
        known = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
        hosts = ",".join(f"{each['host']}:{each['port']}" for each in known) + f"/{name}"
        address, server = f"redis+sentinel://{hosts}/{given.get('db') or 0}", f"Redis at {hosts}"

    def connect() -> Router:
        return Router(Topology(), dialer, server, limits)

    return connect, {"server": server, "address": address, **settings}


def client_of(url: str, **options: Any) -> redis.Redis:
    """Return a redis-py client with a store's connection settings. It decodes responses; its first command connects.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        options: As for `RedisStore.from_url`; those that concern threads have no effect.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    rest, settings = engine_options(url, options, _OWN)
    target = target_of(rest)
    if target.kind:
        raise ConfigurationError("A client connects to one server: redis://, rediss:// or unix://.")
    return client_at(target.url, _limits(target, settings).timeout, **_provider(settings))


def _topology(target: Target, dialer: Dialer, sentinel_user: tuple[str | None, str | None]) -> Topology:
    if target.kind == "cluster":
        return ClusterTopology(target.hosts, dialer)
    if target.kind == "sentinel":
        return SentinelTopology(target.hosts, target.name, dialer.for_sentinels(*sentinel_user))
    return Topology()


def _provider(settings: dict[str, Any]) -> dict[str, Any]:
    """Remove the options that concern credentials and return the provider as an argument, if there is one."""
    auth, provider = settings.pop("auth", None), settings.pop("credential_provider", None)
    if auth not in (None, "entra"):
        raise ConfigurationError("The option auth accepts only 'entra'.")
    if auth == "entra" and provider is None:
        provider = EntraCredentials()
    if provider is not None and not hasattr(provider, "get_credentials"):
        raise ConfigurationError("credential_provider is a keyword argument: an object with get_credentials().")
    return {} if provider is None else {"credential_provider": provider}


def _limits(target: Target, settings: dict[str, Any]) -> Limits:
    seconds = partial(_seconds, settings)
    timeout = seconds("timeout", DEFAULT_TIMEOUT)
    patience = seconds("failover_timeout", DEFAULT_FAILOVER_TIMEOUT)
    retries = settings.pop("retries", _RETRIES[target.kind])
    check_count(retries, "retries")
    return Limits(timeout, retries, patience if target.kind else timeout, _durability(settings, timeout))


def _durability(settings: dict[str, Any], timeout: float) -> Durability | None:
    """Remove the options ``wait_replicas`` and ``wait_timeout`` and return them together.

    Raises:
        ConfigurationError: One is wrong, or the wait is not shorter than the timeout of a connection.
    """
    replicas, milliseconds = settings.pop("wait_replicas", 0), settings.pop("wait_timeout", None)
    check_count(replicas, "wait_replicas")
    check_count(milliseconds, "wait_timeout", optional=True, least=1)
    if not replicas:
        return None
    wait = DEFAULT_WAIT_MILLISECONDS if milliseconds is None else milliseconds
    if wait >= timeout * 1000:
        raise ConfigurationError(
            f"wait_timeout ({wait} ms) must be less than timeout ({timeout:g} s), or the connection is considered dead."
        )
    return Durability(replicas, wait)


def _seconds(settings: dict[str, Any], name: str, default: float) -> float:
    value = settings.pop(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 86_400:
        raise ConfigurationError(f"{name} must be a number of seconds above 0.")
    return float(value)


# Servers in the URL


class Target(NamedTuple):
    """The parts of a URL.

    Attributes:
        url: The URL for redis-py, with the first host.
        kind: ``""`` for one server, ``"cluster"`` or ``"sentinel"``.
        hosts: The servers or sentinels.
        name: The primary's name in the sentinels' configuration.
        address: The URL without user, password and options; empty for one server.
    """

    url: str
    kind: str = ""
    hosts: tuple[Address, ...] = ()
    name: str = ""
    address: str = ""


def target_of(url: str) -> Target:
    """Parse ``redis+cluster://h1,h2`` and ``redis+sentinel://h1,h2/name/database``, also with ``rediss``.

    Raises:
        ConfigurationError: A host or the primary's name is missing or wrong.
    """
    found = _PARTS.fullmatch(url)
    if found is None:
        _check_parts(url)
        return Target(url)
    scheme, kind, authority, path, rest = found[1].lower(), found[2].lower(), found[3], found[4] or "/", found[5]
    user, at, hosts_text = authority.rpartition("@")
    hosts = _hosts(hosts_text, _PORTS[kind])
    if not hosts:
        # Raised here, because the parser's errors may quote a part of the password.
        raise ConfigurationError(f"A host or port in this URL is wrong ({mask_url(url)}).")
    name, _, database = path[1:].partition("/") if kind == "sentinel" else ("", "", path[1:])
    if kind == "sentinel" and not name:
        raise ConfigurationError(
            "The URL needs the primary's name in the sentinels' configuration: redis+sentinel://host1,host2,host3/name."
        )
    if kind == "cluster" and database not in ("", "0"):
        raise ConfigurationError("A cluster has database 0 only.")
    shown = ",".join(f"{_bracketed(host)}:{port}" for host, port in hosts)
    address = f"{scheme}+{kind}://{shown}" + (f"/{name}" if name else "") + (f"/{database}" if database else "")
    plain = f"{scheme}://{user}{at}{_bracketed(hosts[0][0])}:{hosts[0][1]}/{database}{rest}"
    _check_parts(plain)
    return Target(plain, kind, hosts, unquote(name), address)


def _check_parts(url: str) -> None:
    """Check the parts that redis-py would ignore, or refuse without a name.

    Raises:
        ConfigurationError: The database, the port or an option is wrong.
    """
    shown = mask_url(url)
    if "#" in url:
        raise ConfigurationError(f"This Redis URL contains '#' ({shown}): percent-encode it (%23).")
    parts = _split(url)
    if parts is None:
        raise ConfigurationError(f"The host or port in this Redis URL is wrong ({shown}).")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigurationError(f"The option {twice} is given twice in the URL ({shown}).")
    database = options.get("db")
    path = "" if parts.scheme.lower() == "unix" else unquote(parts.path).strip("/")
    if path and database is not None:
        raise ConfigurationError(f"This Redis URL names a database in its path and as db ({shown}): use one of them.")
    if not re.fullmatch("[0-9]*", path) or not re.fullmatch("[0-9]+", "0" if database is None else database):
        example = "?db=0" if database is not None else "redis://host:6379/0"
        raise ConfigurationError(f"The database in this Redis URL is not a number from 0 up ({shown}): {example}.")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (a property that raises)
    except ValueError:
        return None
    return parts


def _hosts(text: str, port: int) -> tuple[Address, ...]:
    parts = [_split(f"//{host}") for host in text.split(",")]
    known = [(part.hostname, part.port or port) for part in parts if part is not None and part.hostname]
    return tuple(known) if len(known) == len(parts) else ()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
