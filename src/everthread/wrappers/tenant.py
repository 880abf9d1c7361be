"""One tenant's part of a store: whoever holds this view reaches nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar, Unpack

import msgspec

from everthread.contract import Store, SupportsImport, SupportsSealing, SupportsSearch
from everthread.errors import InvalidIdentifierError, LimitExceededError, OutcomeUnknownError
from everthread.model import Appended, NewMessage, ThreadKey, check_count, check_identifier
from everthread.threads import usage
from everthread.wrappers._forwarding import AppendOptions, ForwardingStore

REFRESH_SECONDS = 60.0
LEAST_SECONDS_BETWEEN = 1.0
"""A tenant that keeps knocking at its limit does not make the store add up its threads more often than this."""

MOST_SEALING_ADDS = 100
"""Beside a third, as `SupportsSealing` says: an append is measured before it is sealed, and the sum after."""

T = TypeVar("T")

_MAKE_ROOM = frozenset({"truncate", "delete_thread", "delete_tenant"})


class Quota(msgspec.Struct, frozen=True):
    """The most that a tenant may keep. It is enforced by the view that it was given to.

    No engine keeps such a sum, so the view adds up the tenant's threads (`everthread.threads.usage`)
    before its first append and every ``refresh_seconds``, and counts its own appends in between. An append
    costs nothing more meanwhile. Views in other processes may therefore together go over
    the limit by what they write within that time; one view alone does not. What trimming frees counts
    from the next sum on, which is taken at once where an append would be refused.

    Raises:
        ConfigurationError: A limit is negative or not a whole number.
    """

    max_messages: int | None = None
    max_bytes: int | None = None
    refresh_seconds: float = REFRESH_SECONDS

    def __post_init__(self) -> None:
        check_count(self.max_messages, "max_messages", optional=True)
        check_count(self.max_bytes, "max_bytes", optional=True)


class TenantStore(ForwardingStore):
    """A store in which there is only one tenant; made by `Store.tenant`.

    In it the default tenant ``""`` stands for the view's own, so that code which knows nothing of
    tenants works within one. A key of any other tenant is refused with `InvalidIdentifierError`.
    What comes back carries the tenant's true name.

    The view shares the store's connection and never closes it: close the store when all its views
    are done with. It searches, and takes threads in with their times, if the store does; what is for operators
    (diagnosis, reconciling, rewriting, shredding) is asked of the store itself.

    Args:
        inner: The store that the view is of.
        tenant: The only one that there is here.
        quota: See `Quota`.
        clock: Seconds, for the age of the quota's sum.
    """

    carries = frozenset({SupportsImport, SupportsSealing, SupportsSearch})

    def __init__(
        self, inner: Store, tenant: str, *, quota: Quota | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(inner)
        self._name = check_identifier(tenant, "tenant", may_be_empty=True)
        self._meter = None if quota is None else _Meter(inner, tenant, quota, clock)

    @property
    def location(self) -> str:
        return f"{self._inner.location} (tenant {self._name!r})"

    def __repr__(self) -> str:
        return f"<TenantStore {self._name!r} of {self._inner!r}>"

    def tenant(self, tenant: str, *, quota: Quota | None = None) -> TenantStore:
        """A view of the same tenant; a limit that this view has stays in force."""
        own = self._tenant(tenant)
        return self if quota is None else TenantStore(self, own, quota=quota)

    async def aclose(self) -> None:
        """Does nothing: the store may have other views."""

    async def append(
        self, key: ThreadKey, messages: Sequence[NewMessage], **options: Unpack[AppendOptions]
    ) -> Appended:
        append = partial(super().append, self._key(key), messages, **options)
        return await (append() if self._meter is None else self._meter.around(append, messages))

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        result = await proceed()
        if self._meter is not None and call in _MAKE_ROOM:
            self._meter.room_was_made()
        return result

    def _key(self, key: ThreadKey) -> ThreadKey:
        if not isinstance(key, ThreadKey):
            raise InvalidIdentifierError(f"A thread is named by a ThreadKey, not by {type(key).__name__}.")
        return key if key.tenant == self._name else ThreadKey(key.thread_id, self._tenant(key.tenant))

    def _tenant(self, tenant: str) -> str:
        if check_identifier(tenant, "tenant", may_be_empty=True) not in {"", self._name}:
            raise InvalidIdentifierError(f"Only tenant {self._name!r} can be reached through this view.")
        return self._name


class _Meter:
    """How much a tenant keeps, as far as one view knows."""

    def __init__(self, store: Store, tenant: str, quota: Quota, clock: Callable[[], float]) -> None:
        self._store = store
        self._tenant = tenant
        self._quota = quota
        self._clock = clock
        self._kept = _Amount()
        self._landed = _Amount()
        # Appends that are under way count too, or many at once would all find room.
        self._under_way = _Amount()
        self._taken_at: float | None = None
        self._may_have_room = False
        self._taking = asyncio.Lock()

    async def around(self, proceed: Callable[[], Awaitable[Appended]], messages: Sequence[NewMessage]) -> Appended:
        """Appends if there is room.

        Raises:
            LimitExceededError: The tenant would keep more than it may.
        """
        amount = _amount(messages, is_sealed=isinstance(self._store, SupportsSealing))
        async with self._taking:
            await self._make_sure_of_room(amount)
            self._under_way = self._under_way.plus(amount)
        is_kept = False
        try:
            appended = await proceed()
            is_kept = not appended.replayed
            return appended
        except OutcomeUnknownError:
            is_kept = True
            raise
        finally:
            self._under_way = self._under_way.plus(amount, -1)
            if is_kept:
                self._kept = self._kept.plus(amount)
                self._landed = self._landed.plus(amount)

    async def _make_sure_of_room(self, amount: _Amount) -> None:
        if self._age() > self._quota.refresh_seconds:
            await self._take_sum()
        excess = self._excess(amount)
        if excess is not None and (self._may_have_room or self._age() > LEAST_SECONDS_BETWEEN):
            await self._take_sum()
            excess = self._excess(amount)
        if excess is not None:
            raise excess

    def room_was_made(self) -> None:
        """Says that something was dropped through this view: a refusal is then not by an older sum."""
        self._may_have_room = True

    def _age(self) -> float:
        return float("inf") if self._taken_at is None else self._clock() - self._taken_at

    async def _take_sum(self) -> None:
        self._may_have_room = False
        before = self._landed
        found = await usage(self._store, self._tenant)
        # What landed while the threads were listed may or may not be in the sum. Rather too much than too little.
        meanwhile = self._landed.plus(before, -1)
        self._kept, self._taken_at = _Amount(found.messages, found.size).plus(meanwhile), self._clock()

    def _excess(self, amount: _Amount) -> LimitExceededError | None:
        after = self._kept.plus(self._under_way).plus(amount)
        limits = (("messages", after.messages, self._quota.max_messages), ("bytes", after.size, self._quota.max_bytes))
        for what, size, limit in limits:
            if limit is not None and size > limit:
                return LimitExceededError(
                    f"Tenant {self._tenant!r} would keep {size:,} {what}: its quota is {limit:,}.", size, limit
                )
        return None


class _Amount(msgspec.Struct, frozen=True):
    messages: int = 0
    size: int = 0

    def plus(self, other: _Amount, times: int = 1) -> _Amount:
        return _Amount(self.messages + times * other.messages, self.size + times * other.size)


def _amount(messages: Sequence[NewMessage], *, is_sealed: bool) -> _Amount:
    # What is no message is refused by the store, with its own words.
    found = (
        [message for message in messages if isinstance(message, NewMessage)] if isinstance(messages, Sequence) else []
    )
    sizes = [len(message.payload) for message in found]
    return _Amount(len(found), sum(size * 4 // 3 + MOST_SEALING_ADDS if is_sealed else size for size in sizes))
