"""The doctor: whether a store can be reached, what it is, and whether reading and writing work.

    async with open_store(url) as store:
        for fact in await examine(store): print(fact.status, fact.name, fact.value, fact.advice)

What is found in the threads themselves, and mended, is in `everthread.repairing`.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from secrets import token_hex

from everthread._arguments import KEYS_TENANT
from everthread.contract import Store, SupportsDiagnosis, SupportsSealing
from everthread.errors import ConflictError, EverthreadError, StoreUnavailableError
from everthread.model import Fact, NewMessage, Retention, ThreadKey

SCRATCH_TENANT = "everthread-doctor"
"""Where the doctor's own thread is for the moment in which it tries writing."""

_WHERE_KEYS_ARE = "EVERTHREAD_KEYRING, or the named store, says where they are."
_ROUNDS = 9
_SLOW_MS = 20.0
_SKEW_MS = 2000.0
# Should the doctor be killed, the thread goes by itself.
_SCRATCH = Retention(expire_after=timedelta(minutes=5))
# Few names, since some storages keep the name of each thread that was ever deleted; several, for doctors at one time.
_SCRATCH_THREADS = 8


async def examine(
    store: Store, *, write: bool = True, tenant: str = SCRATCH_TENANT, clock: Callable[[], float] = time.time
) -> AsyncIterator[Fact]:
    """What is known of a store, as it is found out. No fact holds a secret or message content.

    Errors of the store are facts too: after one that says it cannot be reached, there is nothing more.

    Args:
        write: Append a message to a thread of the doctor's own, read it, and delete that thread.
        tenant: Where that thread is; another than the doctor's own for those who may write for one tenant only.
        clock: Seconds since 1970, as the store's clock is compared with.
    """
    began = time.perf_counter()
    try:
        await store.open()
    except EverthreadError as error:
        yield _failed("connection" if isinstance(error, StoreUnavailableError) else "opening", error)
        return
    yield Fact("connection", f"{store.location} in {_ms(began):.0f} ms")
    if isinstance(store, SupportsDiagnosis):
        try:
            for fact in (*await store.diagnose(), *(await store.probe() if write else ())):
                yield fact
        except EverthreadError as error:
            yield _failed("diagnosis", error)
    if not isinstance(store, SupportsSealing) and await _holds_keys(store):
        yield Fact("content", "encrypted, and opened without its keys", advice=_WHERE_KEYS_ARE)
    yield await _reading(store, tenant)
    if write:
        async for fact in _writing(store, tenant, clock):
            yield fact


async def _holds_keys(store: Store) -> bool:
    try:
        return len(await store.list_threads(KEYS_TENANT, limit=1)) > 0
    except EverthreadError:
        # Not everybody may look into that tenant.
        return False


async def _reading(store: Store, tenant: str) -> Fact:
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


async def _writing(store: Store, tenant: str, clock: Callable[[], float]) -> AsyncIterator[Fact]:
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
        yield Fact("writing", "what was written did not come back", "error", "Is this a replica, or another's store?")
    elif page[-1].created_ms is not None:
        yield _clock(page[-1].created_ms, before * 1000, after * 1000)


async def _own_thread(store: Store, tenant: str, message: NewMessage) -> ThreadKey:
    """A thread that this doctor has begun, and so may delete."""
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


def _clock(created_ms: int, before_ms: float, after_ms: float) -> Fact:
    # Whole milliseconds, so one may be cut off.
    apart = created_ms - after_ms if created_ms > after_ms else min(created_ms + 1 - before_ms, 0.0)
    value = f"{abs(apart) / 1000:.1f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    if abs(apart) < _SKEW_MS:
        return Fact("clock", "as this machine's" if abs(apart) < 100 else value)
    return Fact("clock", value, "warning", "Times of messages and expiry follow it: synchronise the clocks (NTP).")


def _latency(name: str, ms: float) -> Fact:
    slow = ms > _SLOW_MS
    advice = "Is the store far away, or busy? An append is one such round trip." if slow else ""
    return Fact(name, f"{ms:.2f} ms, median of {_ROUNDS}", "warning" if slow else "ok", advice)


def _failed(name: str, error: EverthreadError) -> Fact:
    return Fact(name, str(error), "error")


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
