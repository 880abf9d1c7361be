"""Forgets what is no longer wanted of the threads of a tenant: by count, size, age and idleness.

Where every append goes through stores that were opened with a `Retention`, that holds by itself; pruning is for what
`Retention` does not know (age, size), for threads that nobody appends to any more, and for what others wrote.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import msgspec

from everthread.contract import Store, SupportsCompaction, read_all
from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, ThreadNotFoundError
from everthread.model import Message, Thread, ThreadKey, Truncated, check_count, to_milliseconds
from everthread.spans import SpanReader, readable_view
from everthread.threads import find_threads, for_each, is_another

MOST_TRIES = 10
"""How often a thread that grows all the time is tried before it is left for the next run."""

AT_ONCE = 8
"""How many threads are looked at together: engines far away are waited for less, those on a disk write together."""


class PrunePolicy(msgspec.Struct, frozen=True):
    """What is to be forgotten; each thread is held to everything that is given.

    The oldest messages go first, and a tool result is never cut from its call: where it would be, more is dropped.

    Attributes:
        max_messages: Keep at most so many of a thread's newest messages.
        max_bytes: Keep at most so many bytes of a thread's newest messages (their payloads).
        max_age: Drop a thread's messages from its head on as long as they are older. Messages whose time is not known
            (another program wrote them) go only together with a newer one whose time is known and too old.
        max_idle: Forget threads as a whole, with titles and documents, in which nothing happened for so long.

    Raises:
        ConfigurationError: Nothing is given, a limit is negative, or a time is not a positive duration.
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
    """What went of one thread, or would go.

    Attributes:
        start: Messages at lower positions went; 0 where none did or the thread is forgotten.
        messages: How many messages went.
        size: Their payloads' bytes.
        is_deleted: The thread was idle and is forgotten as a whole.
        is_busy: Somebody wrote to the thread at the same time; it is left as it is, for the next run.
        failure: Why this thread could not be pruned; the others were.
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
        """Whether anything went."""
        return self.is_deleted or self.messages > 0


def prune(
    store: Store, policy: PrunePolicy, tenant: str = "", *, now: datetime | None = None, dry_run: bool = False
) -> AsyncGenerator[Pruned, None]:
    """Holds a tenant's threads to a policy, the newest activity first; tells of every thread what went.

    Stopped at any moment and run again, it ends where one undisturbed run would. Memory is bounded by pages. A
    thread costs a round trip only if it exceeds a limit or its age matters, and then what is dropped is read once.
    Where a thread lies in many small objects (`SupportsCompaction`), those of a shortened one are joined.

    A turn that comes at the same time is never lost: the thread is left for the next run where it would be.

    Args:
        store: Where the threads are.
        policy: What is to be forgotten.
        tenant: Whose threads.
        now: The time that ages and idleness are measured from; this process's clock if not given.
        dry_run: Change nothing; tell exactly what would go.

    Raises:
        StoreUnavailableError: The store does not answer. What was told of is done; a few more threads may be.
    """
    at = to_milliseconds(now or datetime.now(UTC))
    oldest = None if policy.max_age is None else at - policy.max_age // timedelta(milliseconds=1)
    last_active = None if policy.max_idle is None else at - policy.max_idle // timedelta(milliseconds=1)

    async def hold(thread: Thread) -> Pruned:
        try:
            if last_active is not None and 0 < thread.updated_ms < last_active:
                return await _forget(store, thread, dry_run=dry_run)
            return await _shorten(store, thread, policy, oldest, dry_run=dry_run)
        except CorruptRecordError as error:
            return Pruned(thread.key, failure=str(error))

    return for_each(find_threads(store, tenant), hold, at_once=AT_ONCE)


async def _forget(store: Store, thread: Thread, *, dry_run: bool) -> Pruned:
    pruned = Pruned(thread.key, messages=thread.count, size=thread.size, is_deleted=True)
    if dry_run:
        return pruned
    latest = await store.get_thread(thread.key)
    if latest is None:
        return Pruned(thread.key)
    if latest.updated_ms != thread.updated_ms:
        # Somebody came back to it since it was listed.
        return Pruned(thread.key, is_busy=True)
    try:
        return pruned if await store.delete_thread(thread.key, expected_seq=thread.next_seq) else Pruned(thread.key)
    except ConflictError:
        return Pruned(thread.key, is_busy=True)


async def _shorten(store: Store, thread: Thread, policy: PrunePolicy, oldest: int | None, *, dry_run: bool) -> Pruned:
    cut = _Cut(thread, policy, oldest)
    if not cut.is_needed and (oldest is None or await _begins_after(store, thread.key, oldest)):
        return Pruned(thread.key)
    async for message in read_all(store, thread.key):
        if cut.is_found(message):
            break
    pruned = cut.pruned()
    if dry_run or not pruned.is_changed:
        return pruned
    try:
        truncated = await _drop_head(store, thread, pruned.start, may_grow=cut.is_settled)
    except ThreadNotFoundError:
        return Pruned(thread.key)
    if truncated is None:
        return Pruned(thread.key, is_busy=True)
    if isinstance(store, SupportsCompaction):
        await store.compact(thread.key)
    return msgspec.structs.replace(pruned, messages=truncated.removed)


async def _drop_head(store: Store, thread: Thread, start: int, *, may_grow: bool) -> Truncated | None:
    """Drops what is below ``start`` of a thread that was read; nothing where that could take what came since.

    It could where a call below waits for its result, and where the thread was deleted and begun anew.
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
    """Whether a thread's first message tells that nothing at its head is too old: so it is with most threads."""
    page = await store.read(key, limit=1)
    return not page or (page[0].created_ms is not None and page[0].created_ms >= oldest)


class _Cut:
    """Where one thread is to be cut, found by going over its messages from the head on."""

    def __init__(self, thread: Thread, policy: PrunePolicy, oldest: int | None) -> None:
        self._key = thread.key
        self._surplus = 0 if policy.max_messages is None else max(thread.count - policy.max_messages, 0)
        self._surplus_size = 0 if policy.max_bytes is None else max(thread.size - policy.max_bytes, 0)
        self._oldest = oldest
        self._spans = SpanReader()
        self._wanted = 0
        self._ends = False
        self._seen = self._seen_size = self._dropped = self._dropped_size = 0
        self._after: list[tuple[int, int]] = []
        """Position and size of what follows the wanted cut, of which some must go with it."""

    @property
    def is_needed(self) -> bool:
        """Whether the thread exceeds a limit; its age is not known yet."""
        return self._surplus > 0 or self._surplus_size > 0

    def is_found(self, message: Message) -> bool:
        """Takes the thread's next message; whether no more are needed."""
        self._spans.add(message, readable_view(message, self._key))
        self._after.append((message.seq, len(message.payload)))
        if not self._ends:
            if self._goes(message):
                self._drop_up_to(message.seq + 1)
            else:
                # What has no time of its own goes if something too old follows.
                self._ends = message.created_ms is not None or self._oldest is None
        self._seen, self._seen_size = self._seen + 1, self._seen_size + len(message.payload)
        return self._ends and (self._wanted == 0 or self._is_safe_before(message))

    def _is_safe_before(self, message: Message) -> bool:
        """Whether the cut is known: what follows this message can no longer move it."""
        start = self._spans.safe_start(self._wanted)
        return message.seq >= start and self._spans.is_settled(start)

    @property
    def is_settled(self) -> bool:
        """Whether what comes later has nothing to do with what goes."""
        return self._spans.is_settled(self._wanted)

    def pruned(self) -> Pruned:
        """What goes: up to the wanted cut, and on to where no result is cut from its call."""
        if self._wanted:
            self._drop_up_to(self._spans.safe_start(self._wanted))
        return Pruned(self._key, self._wanted, self._dropped, self._dropped_size)

    def _goes(self, message: Message) -> bool:
        if self._seen < self._surplus or self._seen_size < self._surplus_size:
            return True
        return self._oldest is not None and message.created_ms is not None and message.created_ms < self._oldest

    def _drop_up_to(self, cut: int) -> None:
        going = [size for seq, size in self._after if seq < cut]
        self._wanted = cut
        self._dropped += len(going)
        self._dropped_size += sum(going)
        del self._after[: len(going)]
