"""Delete old messages and idle threads of a tenant, by count, size, age and idleness.

A store with a `Retention` trims with each append. Pruning is for limits that `Retention` lacks (age, size), for threads
without further appends, and for threads of other programs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from everthread.capabilities import SupportsCompaction, capability
from everthread.contract import Store, read_all
from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, ThreadNotFoundError
from everthread.listing import find_threads, for_each, is_another
from everthread.messages.link_reader import SpanReader, readable_view
from everthread.model import Thread, ThreadKey, Truncated, check_count, to_milliseconds

MOST_TRIES = 10
"""The number of attempts on a growing thread before the next run has to prune it."""

AT_ONCE = 8
"""The number of threads pruned at the same time: hides latency, and groups writes to disk."""


class PrunePolicy(msgspec.Struct, frozen=True):
    """The limits of a thread; all that are set apply.

    The oldest messages go first. A tool result stays with its call: if a limit would separate them, both go.

    Attributes:
        max_messages: Keep at most this number of a thread's newest messages.
        max_bytes: Keep at most this number of bytes of a thread's newest messages (their payloads).
        max_age: Drop older messages from the head of a thread. Messages of unknown time (another program wrote them) go
            only together with a later message that is too old.
        max_idle: Delete whole threads, with title and documents, after this time without activity.

    Raises:
        ConfigurationError: No limit is set, one is negative, or a time is not a positive duration.
    """

    max_messages: int | None = None
    max_bytes: int | None = None
    max_age: timedelta | None = None
    max_idle: timedelta | None = None

    def __post_init__(self) -> None:
        check_count(self.max_messages, "max_messages", optional=True)
        check_count(self.max_bytes, "max_bytes", optional=True)
        for name, value in (("max_age", self.max_age), ("max_idle", self.max_idle)):
            if value is not None and (not isinstance(value, timedelta) or value <= timedelta(0)):
                raise ConfigurationError(f"{name} must be a timedelta above zero.")
        if all(limit is None for limit in (self.max_messages, self.max_bytes, self.max_age, self.max_idle)):
            raise ConfigurationError("A prune policy needs at least one limit: of messages, bytes, age or idleness.")


class Pruned(msgspec.Struct, frozen=True):
    """The result for one thread; of a dry run, the planned one.

    Attributes:
        start: Messages at lower positions were dropped; 0 if none were, or the thread was deleted.
        messages: The number of dropped messages.
        size: The bytes of their payloads.
        is_deleted: The thread was idle, and was deleted.
        is_busy: Another writer appended to the thread at the same time. It is unchanged, for the next run.
        failure: The reason why this thread could not be pruned.
    """

    key: ThreadKey
    start: int = 0
    messages: int = 0
    size: int = 0
    is_deleted: bool = False
    is_busy: bool = False
    failure: str | None = None

    @property
    def is_changed(self) -> bool:
        """Return whether anything was deleted."""
        return self.is_deleted or self.messages > 0


def prune(
    store: Store, policy: PrunePolicy, tenant: str = "", *, now: datetime | None = None, dry_run: bool = False
) -> AsyncGenerator[Pruned, None]:
    """Apply a policy to a tenant's threads, the newest activity first, and yield the result for every thread.

    A run that stops at any moment can be repeated. Memory is bounded by pages. A thread costs a round trip only if it
    exceeds a limit or its age matters; then the dropped messages are read once. The small objects of a shortened thread
    are joined (`SupportsCompaction`).

    A concurrent append is never lost: its thread stays unchanged for the next run if necessary.

    Args:
        store: The store.
        policy: The limits.
        tenant: The owner of the threads.
        now: The time to measure age and idleness from. Default: this process's clock.
        dry_run: Change nothing; yield the exact results of a run.

    Raises:
        StoreUnavailableError: The store does not answer. The threads yielded before are done, perhaps a few more.
    """
    at = to_milliseconds(now or datetime.now(UTC))
    oldest = None if policy.max_age is None else at - policy.max_age // timedelta(milliseconds=1)
    last_active = None if policy.max_idle is None else at - policy.max_idle // timedelta(milliseconds=1)

    async def hold(thread: Thread) -> Pruned:
        try:
            if last_active is not None and 0 < thread.updated_ms < last_active:
                return await _delete(store, thread, dry_run=dry_run)
            return await _shorten(store, thread, policy, oldest, dry_run=dry_run)
        except CorruptRecordError as error:
            return Pruned(thread.key, failure=str(error))

    return for_each(find_threads(store, tenant), hold, at_once=AT_ONCE)


async def _delete(store: Store, thread: Thread, *, dry_run: bool) -> Pruned:
    pruned = Pruned(thread.key, messages=thread.count, size=thread.size, is_deleted=True)
    if dry_run:
        return pruned
    latest = await store.get_thread(thread.key)
    if latest is None:
        return Pruned(thread.key)
    if latest.updated_ms != thread.updated_ms:
        # It was active after the listing.
        return Pruned(thread.key, is_busy=True)
    try:
        return pruned if await store.delete_thread(thread.key, expected_seq=thread.next_seq) else Pruned(thread.key)
    except ConflictError:
        return Pruned(thread.key, is_busy=True)


async def _shorten(store: Store, thread: Thread, policy: PrunePolicy, oldest: int | None, *, dry_run: bool) -> Pruned:
    surplus = 0 if policy.max_messages is None else thread.count - policy.max_messages
    surplus_size = 0 if policy.max_bytes is None else thread.size - policy.max_bytes
    if max(surplus, surplus_size) <= 0 and (oldest is None or await _begins_after(store, thread.key, oldest)):
        return Pruned(thread.key)
    pruned, is_settled = await _find_cut(store, thread.key, surplus, surplus_size, oldest)
    if dry_run or not pruned.is_changed:
        return pruned
    try:
        truncated = await _drop_head(store, thread, pruned.start, may_grow=is_settled)
    except ThreadNotFoundError:
        return Pruned(thread.key)
    if truncated is None:
        return Pruned(thread.key, is_busy=True)
    compactable = capability(store, SupportsCompaction)
    if compactable is not None:
        await compactable.compact(thread.key)
    return msgspec.structs.replace(pruned, messages=truncated.removed)


async def _drop_head(store: Store, thread: Thread, start: int, *, may_grow: bool) -> Truncated | None:
    """Drop the messages below ``start`` of a thread that was read; return ``None`` if that could drop newer ones.

    It could if a call below waits for its result, or if the thread was deleted and created again.
    """
    seen, tries = thread, 0
    while True:
        try:
            return await store.truncate(thread.key, start=start, expected_seq=seen.next_seq)
        except ConflictError:
            tries += 1
            latest = await store.get_thread(thread.key)
            if not may_grow or tries == MOST_TRIES or latest is None or is_another(latest, seen):
                return None
            seen = latest


async def _begins_after(store: Store, key: ThreadKey, oldest: int) -> bool:
    """Return whether the first message is not too old, as in most threads."""
    page = await store.read(key, limit=1)
    return not page or (page[0].created_ms is not None and page[0].created_ms >= oldest)


class _Cut(NamedTuple):
    """What to drop, and whether no later message belongs to a dropped one."""

    pruned: Pruned
    is_settled: bool


async def _find_cut(store: Store, key: ThreadKey, surplus: int, surplus_size: int, oldest: int | None) -> _Cut:
    """Read a thread from its head until the cut is known: past the limits, and so that no result loses its call."""
    spans, wanted, is_ended = SpanReader(), 0, False
    seen = seen_size = dropped = dropped_size = 0
    after: list[tuple[int, int]] = []  # position and size of messages after the wanted cut, which may have to go too
    async for message in read_all(store, key):
        size, at = len(message.payload), message.created_ms
        spans.add(message, readable_view(message, key))
        after.append((message.seq, size))
        is_old = oldest is not None and at is not None and at < oldest
        if not is_ended and (seen < surplus or seen_size < surplus_size or is_old):
            wanted = message.seq + 1
            dropped, dropped_size = dropped + len(after), dropped_size + sum(size for _, size in after)
            after.clear()
        else:
            # A message of unknown time goes if a later one is too old.
            is_ended = is_ended or at is not None or oldest is None
        seen, seen_size = seen + 1, seen_size + size
        if is_ended and (not wanted or _is_settled_before(spans, wanted, message.seq)):
            break
    start = spans.safe_start(wanted) if wanted else 0
    more = [size for seq, size in after if seq < start]
    return _Cut(Pruned(key, start, dropped + len(more), dropped_size + sum(more)), spans.is_settled(start))


def _is_settled_before(spans: SpanReader, cut: int, seq: int) -> bool:
    """Return whether no message after ``seq`` can move the cut."""
    start = spans.safe_start(cut)
    return seq >= start and spans.is_settled(start)
