"""Health checks that try whether a storage keeps the rules that the log relies on."""

from __future__ import annotations

import asyncio
import time

from everthread.engines._segments.log import Fence
from everthread.engines._segments.names import nonce
from everthread.engines._segments.storage import Storage
from everthread.errors import ConfigurationError, UnsupportedError
from everthread.model import HealthCheck

PROBES = "p/probes"
"""The folder of the objects that probes write."""

_RACERS = 8
_SLIGHT_S = 60.0
_OVERWRITTEN = (
    "Writers would overwrite each other: use a storage that knows conditional writes (If-None-Match, If-Match)."
)


async def probe(storage: Storage, fence: Fence) -> tuple[HealthCheck, ...]:
    """Try a storage with test objects, and remove them.

    Returns:
        The checks up to the first operation for which the credentials lack a right.
    """
    name, began = nonce(), time.time()
    checks: list[HealthCheck] = []
    right = "write"
    try:
        await storage.create(PROBES, name, b"1")
        right = "read or write"
        checks.append(await _creation(storage, name))
        checks.append(await _replacement(storage, name))
        right = "list"
        checks.append(await _listing(storage, name, fence, began))
        checks.extend(await storage.describe_object(PROBES, name))
        right = "delete"
        await _delete(storage, name, fence)
    except ConfigurationError as error:
        return (*checks, HealthCheck("rights", f"may not {right}: {error}", "error"))
    return (HealthCheck("rights", "read, write, list and delete"), *checks)


async def _creation(storage: Storage, name: str) -> HealthCheck:
    again = await storage.create(PROBES, name, b"2")
    found = await storage.get(PROBES, name)
    made = await asyncio.gather(*(storage.create(PROBES, f"{name}-race", b"%d" % racer) for racer in range(_RACERS)))
    if again or found is None or found.data != b"1" or sum(made) > 1:
        return HealthCheck("conditional create", "is not honored", "error", _OVERWRITTEN)
    return HealthCheck("conditional create", f"of {_RACERS} at the same time one was first")


async def _replacement(storage: Storage, name: str) -> HealthCheck:
    before = await storage.get(PROBES, name)
    tag = "" if before is None else before.tag
    try:
        done = [await storage.replace(PROBES, name, data, tag) for data in (b"3", b"4")]
    except UnsupportedError as error:
        return HealthCheck("conditional replace", str(error), "error")
    found = await storage.get(PROBES, name)
    if done != [True, False] or found is None or found.data != b"3":
        return HealthCheck("conditional replace", "is not honored", "error", _OVERWRITTEN)
    return HealthCheck("conditional replace", "only of an unchanged object")


async def _listing(storage: Storage, name: str, fence: Fence, began: float) -> HealthCheck:
    times = [each.modified_s async for chunk in storage.list(PROBES) for each in chunk if each.name == name]
    if not times:
        advice = "Strong consistency is needed."
        return HealthCheck("listing", "does not show a new object", "error", advice)
    now = time.time()
    # Services report whole seconds.
    apart = times[0] - now if times[0] > now else min(times[0] + 1 - began, 0.0)
    if abs(apart) < _SLIGHT_S:
        return HealthCheck("storage clock", "as this machine's")
    most = fence.grace_s - fence.trust_s
    return HealthCheck(
        "storage clock",
        f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's",
        "error" if abs(apart) >= most else "warning",
        f"Synchronise the clocks (NTP): {most / 60:.0f} minutes apart, turns may be lost.",
    )


async def _delete(storage: Storage, name: str, fence: Fence) -> None:
    """Delete the objects of this probe and those that killed probes left."""
    names = {name, f"{name}-race"}
    async for chunk in storage.list(PROBES):
        names.update(each.name for each in chunk if fence.is_past(each))
    await storage.delete(PROBES, names)
