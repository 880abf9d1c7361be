"""Health checks of a Cosmos DB account and a container.

Each function takes the answer to a request, or the error if these credentials may not send it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from everthread.engines.cosmos.requests import PARTITION_KEY, AbsentError
from everthread.errors import ConfigurationError
from everthread.model import HealthCheck
from everthread.urls import split_url

_STALE = {"Eventual", "ConsistentPrefix"}


def encryption(url: str, *, verifies: bool) -> HealthCheck:
    """Check that no third party can read or change the traffic with an endpoint."""
    endpoint = split_url(url)
    is_local = endpoint.hostname in {"localhost", "127.0.0.1", "::1"}
    if endpoint.scheme != "https":
        return HealthCheck("encryption", "none", "ok" if is_local else "error", "" if is_local else "Use https://.")
    if verifies:
        return HealthCheck("encryption", "TLS")
    advice = "" if is_local else "An attacker on the network could impersonate the account: remove verify=false."
    return HealthCheck("encryption", "TLS, certificate not checked", "ok" if is_local else "warning", advice)


def of_account(name: str, account: Any) -> Iterator[HealthCheck]:
    """Describe the regions and the consistency of an account."""
    if isinstance(account, Exception):
        yield HealthCheck("server", "these credentials may not read it", "warning", "Grant readMetadata to see more.")
        return
    regions = [str(region["name"]) for region in account.ReadableLocations] or ["one region"]
    several = account._EnableMultipleWritableLocations  # the driver has no public attribute for it
    yield HealthCheck(
        "server",
        f"Azure Cosmos DB, account {name}, {', '.join(regions)}",
        "error" if several else "ok",
        "Several regions accept writes, so one ID could have two items. Let one region accept writes."
        if several
        else "",
    )
    policy = cast("Mapping[str, Any]", account.ConsistencyPolicy or {})
    level = str(policy.get("defaultConsistencyLevel", "unknown"))
    stale = level in _STALE
    advice = "A process may not see its own writes immediately: use Session or stronger." if stale else ""
    yield HealthCheck("consistency", level, "warning" if stale else "ok", advice)


def of_container(found: Any) -> Iterator[HealthCheck]:
    """Describe a container's partition key, time to live and indexing."""
    if isinstance(found, Exception):
        yield HealthCheck(
            "container", "these credentials may not read it", "warning", "Grant readMetadata to see more."
        )
        return
    container = cast("Mapping[str, Any]", found)
    yield HealthCheck("container", f"{container['id']}, partition key {PARTITION_KEY}")
    life = container.get("defaultTtl")
    advice = "Emptied items of deleted threads stay forever: turn it on, without a default." if life is None else ""
    state = "off" if life is None else "on" if life == -1 else f"on, {life} s by default, which every item overrides"
    yield HealthCheck("time to live", state, "ok" if life is not None else "warning", advice)
    paths = [str(path["path"]) for path in container.get("indexingPolicy", {}).get("includedPaths", [])]
    all_is_indexed = "/*" in paths
    advice = f"Each write pays for all paths: index only {PARTITION_KEY}/?, exclude /*." if all_is_indexed else ""
    yield HealthCheck("indexing", ", ".join(paths) or "the service's default", "ok", advice)


def throughput(found: Any) -> HealthCheck:
    """Describe the throughput of a container."""
    if isinstance(found, ConfigurationError):
        return HealthCheck("throughput", "serverless, or these credentials may not read it")
    if isinstance(found, AbsentError):
        return HealthCheck("throughput", "the database's, or serverless")
    most = cast("int | None", found.auto_scale_max_throughput)
    return HealthCheck("throughput", f"up to {most:,} RU/s" if most else f"{found.offer_throughput:,} RU/s")
