"""What a Redis URL names: one server, a cluster, or a primary that sentinels know. redis-py parses the rest."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from everthread.engines.redis._line import Address
from everthread.errors import ConfigurationError
from everthread.settings import mask_url

_PARTS: Final = re.compile(r"(rediss?)\+(cluster|sentinel)://([^/?#]*)(/[^?#]*)?(.*)", re.IGNORECASE | re.DOTALL)
_PORTS: Final = {"cluster": 6379, "sentinel": 26379}


class Target(NamedTuple):
    """What a URL names.

    Attributes:
        url: For redis-py, with the first host.
        kind: ``""`` for one server, ``"cluster"`` or ``"sentinel"``.
        hosts: The servers or sentinels that are named.
        name: What sentinels call the primary.
        address: The URL without user, password and options; for one server redis-py knows it.
    """

    url: str
    kind: str = ""
    hosts: tuple[Address, ...] = ()
    name: str = ""
    address: str = ""


def target_of(url: str) -> Target:
    """Takes apart ``redis+cluster://h1,h2`` and ``redis+sentinel://h1,h2/name/database``, also with ``rediss``.

    Raises:
        ConfigurationError: A host or the primary's name is missing or wrong.
    """
    found = _PARTS.fullmatch(url)
    if found is None:
        return Target(url)
    scheme, kind, authority, path, rest = found[1].lower(), found[2].lower(), found[3], found[4] or "/", found[5]
    user, at, places = authority.rpartition("@")
    try:
        hosts = tuple(_host(place, _PORTS[kind]) for place in places.split(","))
    except ValueError:
        raise ConfigurationError(f"A host or port in this URL is wrong ({mask_url(url)}).") from None
    name, _, database = path[1:].partition("/") if kind == "sentinel" else ("", "", path[1:])
    if kind == "sentinel" and not name:
        raise ConfigurationError("Which primary? redis+sentinel://host1,host2,host3/name, as the sentinels call it.")
    if kind == "cluster" and database not in ("", "0"):
        raise ConfigurationError("A cluster has database 0 only.")
    shown = ",".join(f"{_bracketed(host)}:{port}" for host, port in hosts)
    address = f"{scheme}+{kind}://{shown}" + (f"/{name}" if name else "") + (f"/{database}" if database else "")
    plain = f"{scheme}://{user}{at}{_bracketed(hosts[0][0])}:{hosts[0][1]}/{database}{rest}"
    return Target(plain, kind, hosts, unquote(name), address)


def _host(place: str, port: int) -> Address:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError
    return parts.hostname, parts.port or port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
