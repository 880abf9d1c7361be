"""Health checks of Redis servers, from the reply to INFO and from the TLS of connections.

https://redis.io/docs/latest/commands/info/
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from everthread.model import HealthCheck

OLDEST: Final = (6, 2)
CERTIFICATE_MARGIN: Final = timedelta(days=14)
"""How long before its end a certificate should be renewed."""

_RANKS: Final = ("ok", "warning", "error")
_MAX_SHOWN: Final = 3


def checks(
    infos: Mapping[str, str], address: str, tls: Sequence[ssl.SSLObject], now: datetime
) -> Iterator[HealthCheck]:
    """Yield the checks of all primaries.

    Args:
        infos: The reply to INFO of each server, by its name.
        address: The URL without secrets.
        tls: The encryption of each open connection.
    """
    yield _encryption(address, tls, now)
    if len(infos) > 1:
        yield HealthCheck("cluster", f"{len(infos)} primaries have all keys")
    needs_replicas = "+sentinel:" in address
    by_server = {server: tuple(_of_server(text, needs_replicas=needs_replicas)) for server, text in infos.items()}
    for name in dict.fromkeys(check.name for each in by_server.values() for check in each):
        yield _together([(server, check) for server, each in by_server.items() for check in each if check.name == name])


def _together(rows: Sequence[tuple[str, HealthCheck]]) -> HealthCheck:
    """Return one check for all servers; if they differ, it names the worst."""
    _, worst = max(rows, key=lambda row: _RANKS.index(row[1].status))
    if len({check.value for _, check in rows}) == 1:
        return worst
    alike = [f"{check.value} at {server}" for server, check in rows if check.status == worst.status]
    shown = alike[:1] if worst.status == "ok" else alike[:_MAX_SHOWN]
    more = len(rows) - len(shown)
    return HealthCheck(worst.name, "; ".join([*shown, *([f"{more} more"] if more else [])]), worst.status, worst.advice)


def _encryption(address: str, tls: Sequence[ssl.SSLObject], now: datetime) -> HealthCheck:
    if address.startswith("rediss"):
        return _certificate(tls, now)
    if address.startswith("unix") or any(host in address for host in ("//127.", "//localhost", "//[::1]")):
        return HealthCheck("encryption", "none, within this machine")
    advice = "Passwords and messages cross the network unencrypted: use rediss://."
    return HealthCheck("encryption", "none", "warning", advice)


def _certificate(tls: Sequence[ssl.SSLObject], now: datetime) -> HealthCheck:
    # Without verification, Python returns nothing of a certificate.
    ends = [str(certificate["notAfter"]) for each in tls if (certificate := each.getpeercert())]
    if not ends:
        return HealthCheck("encryption", "TLS")
    end = min(datetime.fromtimestamp(ssl.cert_time_to_seconds(each), UTC) for each in ends)
    is_soon = end - now < CERTIFICATE_MARGIN
    advice = "Renew the certificate: no connection can be made after that." if is_soon else ""
    return HealthCheck("encryption", f"TLS, certificate until {end:%Y-%m-%d}", "warning" if is_soon else "ok", advice)


def _of_server(info: str, *, needs_replicas: bool) -> Iterator[HealthCheck]:
    lines = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    known = {name: value for name, colon, value in lines if colon}
    if not known:
        advice = "Allow this user INFO to get more checks: ACL SETUSER … +info"
        yield HealthCheck("server", "this user may not run INFO", "warning", advice)
        return
    yield _version(known)
    yield _role(known, needs_replicas=needs_replicas)
    yield from _memory(known)
    yield _durability(known)


def _version(known: Mapping[str, str]) -> HealthCheck:
    name, version = "Redis", known.get("redis_version", "0")
    if "valkey_version" in known:
        name, version = "Valkey", known["valkey_version"]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return HealthCheck("server", f"{name} {version}", "error", "Redis 6.2 or newer is needed.")
    return HealthCheck("server", f"{name} {version}")


def _role(known: Mapping[str, str], *, needs_replicas: bool) -> HealthCheck:
    mode = known.get("redis_mode") or known.get("server_mode") or "standalone"
    count = int(known.get("connected_slaves", "0"))
    value = f"{mode}, {count} replica{'' if count == 1 else 's'}"
    if known.get("role", "master") != "master":
        advice = "A replica accepts no writes: connect to the primary."
        return HealthCheck("role", f"replica, {value}", "error", advice)
    if count == 0 and (needs_replicas or mode == "cluster"):
        return HealthCheck("role", f"primary, {value}", "warning", "If it fails, no server can replace it.")
    return HealthCheck("role", f"primary, {value}")


def _memory(known: Mapping[str, str]) -> Iterator[HealthCheck]:
    policy, limit = known.get("maxmemory_policy", "noeviction"), int(known.get("maxmemory", "0"))
    used = int(known.get("used_memory", "0"))
    value = f"{used:,} bytes{f' of {limit:,}' if limit else ', without a limit'}"
    if limit and used > 0.9 * limit:
        yield HealthCheck("memory", value, "warning", "Give it more, or prune.")
    else:
        yield HealthCheck("memory", value)
    if policy == "noeviction":
        yield HealthCheck("eviction", policy)
    else:
        advice = "If memory is full, the server drops threads: set maxmemory-policy to noeviction."
        yield HealthCheck("eviction", policy, "warning", advice)


def _durability(known: Mapping[str, str]) -> HealthCheck:
    if known.get("aof_enabled") == "1":
        if known.get("aof_last_write_status", "ok") == "ok":
            return HealthCheck("durability", "append-only file")
        return HealthCheck("durability", "append-only file", "error", "The server cannot write it.")
    if known.get("rdb_last_bgsave_status", "ok") != "ok":
        return HealthCheck("durability", "snapshots", "error", "The last one failed: see the server's log.")
    advice = "A crash loses the writes since the last snapshot: appendonly yes."
    return HealthCheck("durability", "snapshots at most", "warning", advice)
