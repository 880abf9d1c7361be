"""What is known of Redis servers: from what INFO tells, and from their TLS.

https://redis.io/docs/latest/commands/info/
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from everthread.engines.redis._scripts import Script
from everthread.model import Fact

FACTS: Final = Script("facts")
OLDEST: Final = (6, 2)
CERTIFICATE_MARGIN: Final = timedelta(days=14)
"""How long before its end a certificate should be renewed."""

_RANKS: Final = ("ok", "warning", "error")
_MOST_SHOWN: Final = 3


def facts(infos: Mapping[str, str], address: str, tls: Sequence[ssl.SSLObject], now: datetime) -> Iterator[Fact]:
    """The facts of all primaries.

    Args:
        infos: The text of INFO, by what the server is called.
        address: The URL without secrets.
        tls: The encryption of each open connection.
    """
    yield _encryption(address, tls, now)
    if len(infos) > 1:
        yield Fact("cluster", f"{len(infos)} primaries have all keys")
    needs_replicas = "+sentinel:" in address
    by_server = {server: tuple(_of_server(text, needs_replicas=needs_replicas)) for server, text in infos.items()}
    for name in dict.fromkeys(fact.name for each in by_server.values() for fact in each):
        yield _together([(server, fact) for server, each in by_server.items() for fact in each if fact.name == name])


def _together(rows: Sequence[tuple[str, Fact]]) -> Fact:
    """One fact for all servers; where they differ, the worst are named."""
    _, worst = max(rows, key=lambda row: _RANKS.index(row[1].status))
    if len({fact.value for _, fact in rows}) == 1:
        return worst
    alike = [f"{fact.value} at {server}" for server, fact in rows if fact.status == worst.status]
    shown = alike[:1] if worst.status == "ok" else alike[:_MOST_SHOWN]
    more = len(rows) - len(shown)
    return Fact(worst.name, "; ".join([*shown, *([f"{more} more"] if more else [])]), worst.status, worst.advice)


def _encryption(address: str, tls: Sequence[ssl.SSLObject], now: datetime) -> Fact:
    if address.startswith("rediss"):
        return _certificate(tls, now)
    if address.startswith("unix") or any(host in address for host in ("//127.", "//localhost", "//[::1]")):
        return Fact("encryption", "none, within this machine")
    return Fact("encryption", "none", "warning", "Passwords and messages cross the network as they are: use rediss://.")


def _certificate(tls: Sequence[ssl.SSLObject], now: datetime) -> Fact:
    # Without verification nothing is told of a certificate.
    ends = [str(told["notAfter"]) for each in tls if (told := each.getpeercert())]
    if not ends:
        return Fact("encryption", "TLS")
    end = min(datetime.fromtimestamp(ssl.cert_time_to_seconds(each), UTC) for each in ends)
    is_soon = end - now < CERTIFICATE_MARGIN
    advice = "Renew the certificate: after that, no connection can be made." if is_soon else ""
    return Fact("encryption", f"TLS, certificate until {end:%Y-%m-%d}", "warning" if is_soon else "ok", advice)


def _of_server(info: str, *, needs_replicas: bool) -> Iterator[Fact]:
    lines = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    known = {name: value for name, colon, value in lines if colon}
    if not known:
        advice = "Allow this user INFO, if more is to be told: ACL SETUSER … +info"
        yield Fact("server", "this user may not ask it", "warning", advice)
        return
    yield _version(known)
    yield _role(known, needs_replicas=needs_replicas)
    yield from _memory(known)
    yield _durability(known)


def _version(known: Mapping[str, str]) -> Fact:
    name, version = "Redis", known.get("redis_version", "0")
    if "valkey_version" in known:
        name, version = "Valkey", known["valkey_version"]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    old = numbers < OLDEST
    return Fact("server", f"{name} {version}", "error" if old else "ok", "Redis 6.2 or newer is needed." if old else "")


def _role(known: Mapping[str, str], *, needs_replicas: bool) -> Fact:
    mode = known.get("redis_mode") or known.get("server_mode") or "standalone"
    count = int(known.get("connected_slaves", "0"))
    value = f"{mode}, {count} replica{'' if count == 1 else 's'}"
    if known.get("role", "master") != "master":
        return Fact("role", f"replica, {value}", "error", "A replica takes no writes: connect to the primary.")
    if count == 0 and (needs_replicas or mode == "cluster"):
        return Fact("role", f"primary, {value}", "warning", "When it fails, no server can take its place.")
    return Fact("role", f"primary, {value}")


def _memory(known: Mapping[str, str]) -> Iterator[Fact]:
    policy, limit = known.get("maxmemory_policy", "noeviction"), int(known.get("maxmemory", "0"))
    used = int(known.get("used_memory", "0"))
    of = f" of {limit:,}" if limit else ", without a limit"
    full = bool(limit) and used > 0.9 * limit
    yield Fact("memory", f"{used:,} bytes{of}", "warning" if full else "ok", "Give it more, or prune." if full else "")
    forgets = policy != "noeviction"
    advice = "When memory is full, the server drops threads: set maxmemory-policy to noeviction."
    yield Fact("eviction", policy, "warning" if forgets else "ok", advice if forgets else "")


def _durability(known: Mapping[str, str]) -> Fact:
    if known.get("aof_enabled") == "1":
        healthy = known.get("aof_last_write_status", "ok") == "ok"
        return Fact(
            "durability", "append-only file", "ok" if healthy else "error", "" if healthy else "Writing it fails."
        )
    if known.get("rdb_last_bgsave_status", "ok") != "ok":
        return Fact("durability", "snapshots", "error", "The last one failed: see the server's log.")
    advice = "After a crash, what came since the last snapshot is lost: appendonly yes."
    return Fact("durability", "snapshots at most", "warning", advice)
