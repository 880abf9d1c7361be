"""From a store's URL and options to what makes its link: servers found, connections signed in, limits kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from everthread.engines.redis._connecting import Dialer
from everthread.engines.redis._entra import EntraCredentials, keep_signed_in
from everthread.engines.redis._line import Durability
from everthread.engines.redis._places import ClusterPlaces, OnePlace, Places, SentinelPlaces
from everthread.engines.redis._router import Limits, Router
from everthread.engines.redis._urls import Target, target_of
from everthread.errors import ConfigurationError
from everthread.model import check_count
from everthread.settings import engine_options, flag

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
    """What makes the link of a store, and the store's other arguments.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    rest, settings = engine_options(url, options, _OWN)
    target = target_of(rest)
    limits = _limits(target, settings)
    sentinel_user = settings.pop("sentinel_username", None), settings.pop("sentinel_password", None)
    provider = _provider(settings)
    dialer = Dialer(
        target.url,
        timeout=limits.timeout,
        must_be_primary=target.kind == "sentinel",
        one_certificate=target.kind == "cluster",
        **({} if provider is None else {"credential_provider": provider}),
    )
    server = f"Redis at {target.address.partition('://')[2]}" if target.kind else dialer.server

    def connect() -> Router:
        keep = None if provider is None else partial(keep_signed_in, provider)
        return Router(_places(target, dialer, sentinel_user), dialer, server, limits, keep)

    address = target.address or dialer.address
    spread = settings.pop("spread", False)
    if spread and not target.kind:
        address += f"{'&' if '?' in address else '?'}spread=true"
    spread = spread or target.kind == "cluster"
    return connect, {"server": server, "address": address, "spread": spread, **settings}


def _places(target: Target, dialer: Dialer, sentinel_user: tuple[str | None, str | None]) -> Places:
    if target.kind == "cluster":
        return ClusterPlaces(target.hosts, dialer)
    if target.kind == "sentinel":
        return SentinelPlaces(target.hosts, target.name, dialer.for_sentinels(*sentinel_user))
    return OnePlace()


def _provider(settings: dict[str, Any]) -> object | None:
    auth, provider = settings.pop("auth", None), settings.pop("credential_provider", None)
    if auth not in (None, "entra"):
        raise ConfigurationError("auth is entra, or left out.")
    return EntraCredentials() if auth == "entra" and provider is None else provider


def _limits(target: Target, settings: dict[str, Any]) -> Limits:
    seconds = partial(_seconds, settings)
    timeout = seconds("timeout", DEFAULT_TIMEOUT)
    patience = seconds("failover_timeout", DEFAULT_FAILOVER_TIMEOUT)
    retries = settings.pop("retries", _RETRIES[target.kind])
    check_count(retries, "retries")
    return Limits(timeout, retries, patience if target.kind else timeout, durability_of(settings, timeout))


def durability_of(settings: dict[str, Any], timeout: float = math.inf) -> Durability | None:
    """What writes wait for, by the options ``wait_replicas`` and ``wait_timeout``, which are taken out.

    Raises:
        ConfigurationError: They are wrong, or the wait is not shorter than the timeout of a connection.
    """
    replicas, milliseconds = settings.pop("wait_replicas", 0), settings.pop("wait_timeout", None)
    check_count(replicas, "wait_replicas")
    check_count(milliseconds, "wait_timeout", optional=True, least=1)
    if not replicas:
        return None
    wait = DEFAULT_WAIT_MILLISECONDS if milliseconds is None else milliseconds
    if wait >= timeout * 1000:
        raise ConfigurationError(
            f"wait_timeout ({wait} ms) must be less than timeout ({timeout:g} s), or a connection is taken for dead."
        )
    return Durability(replicas, wait)


def _seconds(settings: dict[str, Any], name: str, default: float) -> float:
    value = settings.pop(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 86_400:
        raise ConfigurationError(f"{name} must be a number of seconds above 0.")
    return float(value)
