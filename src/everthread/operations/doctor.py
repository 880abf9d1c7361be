"""Check a store: its connection, server and settings, and whether reading and writing work.

    async with open_store(url) as store:
        async for check in examine(store): print(check.status, check.name, check.value, check.advice)

`everthread.operations.repair` checks the threads themselves.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from secrets import token_hex

from everthread._validation import KEYS_TENANT
from everthread.capabilities import SupportsDiagnosis, SupportsSealing, capability
from everthread.contract import Store
from everthread.errors import ConflictError, EverthreadError, StoreUnavailableError
from everthread.model import HealthCheck, NewMessage, Retention, ThreadKey

SCRATCH_TENANT = "everthread-doctor"
"""The tenant of the thread that a trial write creates and deletes."""

_WHERE_KEYS_ARE = "EVERTHREAD_KEYRING, or the named store, says where they are."
_ROUNDS = 9
_SLOW_MS = 20.0
_SKEW_MS = 2000.0
# If the process is killed, the thread expires.
_SCRATCH = Retention(expire_after=timedelta(minutes=5))
# Few names: some storages keep the name of every deleted thread. Several: checks may run at the same time.
_SCRATCH_THREADS = 8


async def examine(
    store: Store, *, write: bool = True, tenant: str = SCRATCH_TENANT, clock: Callable[[], float] = time.time
) -> AsyncIterator[HealthCheck]:
    """Yield health checks of a store. None holds a secret or message content.

    Errors of the store are checks too. After a failed connection there are no more.

    Args:
        write: Append messages to a test thread, read them, and delete that thread.
        tenant: The tenant of that thread, for users with rights to one tenant only.
        clock: Returns seconds since 1970, to compare with the store's clock.
    """
    began = time.perf_counter()
    try:
        await store.open()
    except EverthreadError as error:
        yield _failed("connection" if isinstance(error, StoreUnavailableError) else "opening", error)
        return
    yield HealthCheck("connection", f"{store.location} in {_ms(began):.0f} ms")
    engine = capability(store, SupportsDiagnosis)
    if engine is not None:
        try:
            for fact in (*await engine.diagnose(), *(await engine.probe() if write else ())):
                yield fact
        except EverthreadError as error:
            yield _failed("diagnosis", error)
    if capability(store, SupportsSealing) is None and await _holds_keys(store):
        yield HealthCheck("content", "encrypted, and opened without its keys", advice=_WHERE_KEYS_ARE)
    yield await _reading(store, tenant)
    if write:
        async for fact in _writing(store, tenant, clock):
            yield fact


async def _holds_keys(store: Store) -> bool:
    try:
        return len(await store.list_threads(KEYS_TENANT, limit=1)) > 0
    except EverthreadError:
        # The user may lack the right to read that tenant.
        return False


async def _reading(store: Store, tenant: str) -> HealthCheck:
    key = ThreadKey(token_hex(8), tenant)
    took: list[float] = []
    try:
        await store.list_threads(tenant, limit=1)
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            await store.get_thread(key)
            took.append(_ms(began))
    except EverthreadError as error:
        return _failed("reading", error)
    return _latency("reading", statistics.median(took))


async def _writing(store: Store, tenant: str, clock: Callable[[], float]) -> AsyncIterator[HealthCheck]:
    message = NewMessage(b'"everthread doctor"')
    took: list[float] = []
    before = clock()
    try:
        key = await _own_thread(store, tenant, message)
        try:
            for _ in range(_ROUNDS):
                began, before = time.perf_counter(), clock()
                await store.append(key, [message], retention=_SCRATCH)
                took.append(_ms(began))
            page = await store.read_last(key, 1)
            after = clock()
        finally:
            await store.delete_thread(key)
    except EverthreadError as error:
        yield _failed("writing", error)
        return
    yield _latency("writing", statistics.median(took))
    if not page or page[-1].payload != message.payload:
        yield HealthCheck(
            "writing",
            "the message read is not the one written",
            "error",
            "Is this a replica, or a store of another program?",
        )
    elif page[-1].created_ms is not None:
        yield _clock(page[-1].created_ms, before * 1000, after * 1000)


async def _own_thread(store: Store, tenant: str, message: NewMessage) -> ThreadKey:
    """Return a thread that this call created, and so may delete."""
    conflict: ConflictError | None = None
    for number in random.sample(range(_SCRATCH_THREADS), _SCRATCH_THREADS):
        key = ThreadKey(f"everthread-doctor-{number}", tenant)
        try:
            await store.append(key, [message], expected_seq=0, retention=_SCRATCH)
        except ConflictError as error:
            conflict = error
        else:
            return key
    assert conflict is not None
    raise conflict


def _clock(created_ms: int, before_ms: float, after_ms: float) -> HealthCheck:
    # The store may cut off a millisecond.
    apart = created_ms - after_ms if created_ms > after_ms else min(created_ms + 1 - before_ms, 0.0)
    value = f"{abs(apart) / 1000:.1f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    if abs(apart) < _SKEW_MS:
        return HealthCheck("clock", "as this machine's" if abs(apart) < 100 else value)
    return HealthCheck(
        "clock", value, "warning", "Times of messages and expiry follow it: synchronize the clocks (NTP)."
    )


def _latency(name: str, ms: float) -> HealthCheck:
    slow = ms > _SLOW_MS
    advice = "Is the store far away, or busy? An append is one such round trip." if slow else ""
    return HealthCheck(name, f"{ms:.2f} ms, median of {_ROUNDS}", "warning" if slow else "ok", advice)


def _failed(name: str, error: EverthreadError) -> HealthCheck:
    return HealthCheck(name, str(error), "error")


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
