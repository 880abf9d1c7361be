"""What is known of a Cosmos DB account and a container, from their own descriptions; read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from everthread.engines.cosmos._requests import PARTITION_KEY, AbsentError
from everthread.errors import ConfigurationError
from everthread.model import Fact

if TYPE_CHECKING:
    from everthread.engines.cosmos._storage import CosmosStorage

_STALE = {"Eventual", "ConsistentPrefix"}


async def described(storage: CosmosStorage) -> tuple[Fact, ...]:
    """The facts, for three requests."""
    account, container, throughput = await asyncio.gather(
        _asked(storage, "_get_database_account"), _asked(storage, "read"), _asked(storage, "get_throughput")
    )
    return (
        encryption(storage),
        *_of_account(storage, account),
        Fact("credential", storage.credential_name),
        *_of_container(container),
        _throughput(throughput),
    )


async def _asked(storage: CosmosStorage, question: str) -> Any:
    """The answer, or the error where these credentials may not ask or there is none."""
    asked = storage.client if question.startswith("_") else storage.container
    try:
        return await storage.requests.tried(getattr(asked, question))
    except (ConfigurationError, AbsentError) as error:
        return error


def encryption(storage: CosmosStorage) -> Fact:
    """Whether others can read or change what goes to the account."""
    endpoint = urlsplit(storage.account.endpoint)
    is_local = endpoint.hostname in {"localhost", "127.0.0.1", "::1"}
    if endpoint.scheme != "https":
        return Fact("encryption", "none", "ok" if is_local else "error", "" if is_local else "Use https://.")
    if storage.verifies:
        return Fact("encryption", "TLS")
    advice = "" if is_local else "Anybody between could pose as the account: leave out verify=false."
    return Fact("encryption", "TLS, certificate not checked", "ok" if is_local else "warning", advice)


def _of_account(storage: CosmosStorage, account: Any) -> Iterator[Fact]:
    if isinstance(account, Exception):
        yield Fact("server", "these credentials may not ask", "warning", "Grant readMetadata, if more is to be told.")
        return
    regions = [str(region["name"]) for region in account.ReadableLocations] or ["one region"]
    several = account._EnableMultipleWritableLocations  # the driver tells it nowhere else
    yield Fact(
        "server",
        f"Azure Cosmos DB, account {storage.account.name}, {', '.join(regions)}",
        "error" if several else "ok",
        "Several regions take writes: two could give one id to two items. Let only one write." if several else "",
    )
    policy = cast("Mapping[str, Any]", account.ConsistencyPolicy or {})
    level = str(policy.get("defaultConsistencyLevel", "unknown"))
    stale = level in _STALE
    advice = "A process may not see at once what it wrote itself: take Session or stronger." if stale else ""
    yield Fact("consistency", level, "warning" if stale else "ok", advice)


def _of_container(found: Any) -> Iterator[Fact]:
    if isinstance(found, Exception):
        yield Fact(
            "container", "these credentials may not ask", "warning", "Grant readMetadata, if more is to be told."
        )
        return
    container = cast("Mapping[str, Any]", found)
    yield Fact("container", f"{container['id']}, partition key {PARTITION_KEY}")
    life = container.get("defaultTtl")
    advice = "Emptied items of deleted threads stay: turn it on, without a default." if life is None else ""
    told = "off" if life is None else "on" if life == -1 else f"on, {life} s by default, which no item here follows"
    yield Fact("time to live", told, "ok" if life is not None else "warning", advice)
    paths = [str(path["path"]) for path in container.get("indexingPolicy", {}).get("includedPaths", [])]
    all_is_indexed = "/*" in paths
    advice = f"Each write pays for it: index {PARTITION_KEY}/? only, exclude /*." if all_is_indexed else ""
    yield Fact("indexing", ", ".join(paths) or "of the service's choice", "ok", advice)


def _throughput(found: Any) -> Fact:
    if isinstance(found, ConfigurationError):
        return Fact("throughput", "serverless, or these credentials may not ask")
    if isinstance(found, AbsentError):
        return Fact("throughput", "the database's, or serverless")
    most = cast("int | None", found.auto_scale_max_throughput)
    return Fact("throughput", f"up to {most:,} RU/s" if most else f"{found.offer_throughput:,} RU/s")
