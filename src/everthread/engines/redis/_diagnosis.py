"""What is known of a Redis server, from what INFO tells (https://redis.io/docs/latest/commands/info/)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from everthread.engines.redis._scripts import Script
from everthread.model import Fact

FACTS = Script("facts")
OLDEST = (6, 2)


def facts(info: str, address: str) -> tuple[Fact, ...]:
    """The facts from the text of INFO.

    Args:
        address: The server's URL without secrets.
    """
    lines = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    known = {name: value for name, colon, value in lines if colon}
    if not known:
        advice = "Allow this user INFO, if more is to be told: ACL SETUSER … +info"
        return (_encryption(address), Fact("server", "this user may not ask it", "warning", advice))
    return (_encryption(address), *_of_server(known), *_of_memory(known), _durability(known))


def _encryption(address: str) -> Fact:
    if address.startswith("rediss"):
        return Fact("encryption", "TLS")
    if address.startswith("unix") or any(host in address for host in ("//127.", "//localhost", "//[::1]")):
        return Fact("encryption", "none, within this machine")
    return Fact("encryption", "none", "warning", "Passwords and messages cross the network as they are: use rediss://.")


def _of_server(known: Mapping[str, str]) -> Iterator[Fact]:
    name, version = "Redis", known.get("redis_version", "0")
    if "valkey_version" in known:
        name, version = "Valkey", known["valkey_version"]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    old = numbers < OLDEST
    yield Fact("server", f"{name} {version}", "error" if old else "ok", "Redis 6.2 or newer is needed." if old else "")
    mode = known.get("redis_mode") or known.get("server_mode") or "standalone"
    role = known.get("role", "master")
    is_replica = role != "master"
    yield Fact(
        "role",
        f"{'replica' if is_replica else 'primary'}, {mode}, {known.get('connected_slaves', '0')} replicas",
        "error" if is_replica else "ok",
        "A replica takes no writes: connect to the primary." if is_replica else "",
    )


def _of_memory(known: Mapping[str, str]) -> Iterator[Fact]:
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
