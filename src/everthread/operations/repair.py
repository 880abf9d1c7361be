"""Find faults in threads, and repair them: on every engine, through the contract.

`everthread.messages.rules` says what a fault is. A repair changes the payloads of the affected messages, in one step
for each thread: positions, times, turns and all other messages stay. Where a message has to go, a note of the assistant
takes its place. A payload is replaced only if it is the one that was read, so a running program loses nothing. The
former payloads go into a backup file first, from which `everthread.operations.undo_repair` restores them.

Wrong counts are reported. Of an encrypted store without its keys only counts can be checked: a thread with a sealed
record is never repaired then. With its keys, the backup is sealed too. A record that cannot be opened is reported and
stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec

from everthread._validation import is_sealed
from everthread.capabilities import SupportsRewrite, SupportsSealing, capability, required_capability
from everthread.contract import Store, read_all
from everthread.errors import ConflictError, EverthreadError, StoreUnavailableError
from everthread.listing import find_threads
from everthread.messages.rules.rows import Row, row_of_stored
from everthread.model import Message, Rewrite, Thread, ThreadKey
from everthread.operations._backup import Entry, write_backup
from everthread.operations._planning import Problem, plan
from everthread.operations._targets import Change, Target

LONGEST = 100_000
"""The messages of the longest thread that is examined: they are in memory."""

GRACE = timedelta(hours=1)
"""How long the calls of a thread's last turn may wait for their results before they count as lost."""

_LOOKS = 5
"""How often a thread is read again while other writers append to it."""

_log = logging.getLogger("everthread.repair")


class Outcome(msgspec.Struct, frozen=True):
    """The result for one thread.

    Attributes:
        thread: The name of the thread in its store.
        status: ``"found"``: nothing was changed; ``"repaired"``; ``"undone"``; ``"partial"``: undone, except for
            records that stay in the backup; ``"failed"``: see ``reason``; ``"sealed"``: it cannot be checked without
            keys, and no problem is known.
        changes: The changes that a repair makes, or made.
        key: Its key, for a thread of everthread.
    """

    thread: str
    problems: tuple[Problem, ...]
    status: Literal["found", "repaired", "undone", "partial", "failed", "sealed"]
    reason: str = ""
    changes: tuple[Change, ...] = ()
    key: ThreadKey | None = None

    @property
    def is_well(self) -> bool:
        """Whether no fault is left."""
        if self.status == "repaired":
            return all(problem.repair or problem.is_harmless for problem in self.problems)
        return self.status in {"undone", "sealed"} or (
            self.status == "found" and all(problem.is_harmless for problem in self.problems)
        )


class StoredThread(Target):
    """A thread of a store, with its messages."""

    is_in_place = True

    def __init__(self, store: Store, thread: Thread, messages: Sequence[Message]) -> None:
        self._store = store
        self.thread = thread
        self.messages = messages
        self.name = thread.key.thread_id
        self.payloads = [message.payload for message in messages]

    def rows(self) -> list[Row]:
        return [row_of_stored(message) for message in self.messages]

    def position(self, at: int) -> int:
        return self.messages[at].seq

    async def apply(self, changes: Sequence[Change]) -> None:
        key = self.thread.key
        rewrites = [Rewrite(self.position(each.at), each.old or b"", each.new or b"") for each in changes]
        done = await required_capability(self._store, SupportsRewrite).rewrite(key, rewrites)
        if done < len(changes):
            raise ConflictError(f"Another program changed {key}: {done} of {len(changes)} changes were made.", 0)

    async def for_backup(self, changes: Sequence[Change]) -> list[Change]:
        sealing = capability(self._store, SupportsSealing)
        named = [msgspec.structs.replace(each, row=self.position(each.at)) for each in changes]
        if sealing is None:
            return named
        key = self.thread.key
        return [
            msgspec.structs.replace(
                each, old=await sealing.seal(key, each.old or b""), new=await sealing.seal(key, each.new or b"")
            )
            for each in named
        ]


async def inspect(
    store: Store, tenant: str = "", *, is_stopped: bool = False, clock: Callable[[], float] = time.time
) -> AsyncIterator[Outcome]:
    """Yield the threads of a tenant that have problems. Changes nothing."""
    async for outcome in repair(store, tenant, is_stopped=is_stopped, clock=clock):
        yield outcome


async def repair(
    store: Store,
    tenant: str = "",
    *,
    backup: Path | None = None,
    is_stopped: bool = False,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Outcome]:
    """Repair the threads of a tenant, and yield the result for each with problems.

    A thread that another writer changes at the same time fails with a reason, and can be tried again. A run that stops
    at any moment leaves each thread unchanged or repaired.

    Args:
        store: The store.
        tenant: The owner of the threads.
        backup: The file that receives each thread's changes before its repair. It may exist. ``None``: change nothing.
        is_stopped: No program is running on the store, so calls without a result are lost at any age.
        clock: Returns seconds since 1970, for the grace of unanswered calls.
    """
    async for thread in find_threads(store, tenant, page_size=100):
        try:
            outcome = await _treat(store, thread, backup, is_stopped=is_stopped, now_ms=clock() * 1000)
        except StoreUnavailableError:
            raise
        except EverthreadError as error:
            outcome = Outcome(thread.key.thread_id, (), "failed", str(error), key=thread.key)
        if outcome is not None:
            yield outcome


async def _treat(
    store: Store, thread: Thread, backup: Path | None, *, is_stopped: bool, now_ms: float
) -> Outcome | None:
    key = thread.key
    if thread.count > LONGEST:
        reason = f"it has {thread.count:,} messages; at most {LONGEST:,} are looked at"
        return Outcome(key.thread_id, (), "failed", reason, key=key)
    seen = await _look_at(store, thread)
    if seen is None:
        return None
    thread, messages, is_steady = seen
    compare_sizes = capability(store, SupportsSealing) is None
    counts = [*count_problems(thread, messages, compare_sizes=compare_sizes)] if is_steady else []
    if any(is_sealed(message.payload) for message in messages):
        return Outcome(key.thread_id, tuple(counts), "found" if counts else "sealed", key=key)
    target = StoredThread(store, thread, messages)
    target.is_running = not is_stopped and now_ms - thread.updated_ms <= GRACE / timedelta(milliseconds=1)
    outcome = await treat(target, backup, Entry("", key.thread_id, key.tenant, []), counts)
    return None if outcome is None else msgspec.structs.replace(outcome, key=key)


async def treat(target: Target, backup: Path | None, entry: Entry, problems: Sequence[Problem] = ()) -> Outcome | None:
    """Examine one thread, and repair it if there is a backup file.

    Args:
        target: The thread.
        backup: The file that receives the changes first; ``None``: change nothing.
        entry: Names the thread in the backup.
        problems: Problems found before.

    Returns:
        ``None`` if it has no problems.
    """
    found, changes = plan(target)
    if target.is_report_only:
        found, changes = [msgspec.structs.replace(each, repair="") for each in found], []
    outcome = Outcome(target.name, (*problems, *found), "found", changes=tuple(changes))
    if not outcome.problems:
        return None
    if backup is None or not changes:
        return outcome
    try:
        if target.refusal:
            return msgspec.structs.replace(outcome, status="failed", reason=target.refusal)
        write_backup(backup, msgspec.structs.replace(entry, changes=await target.for_backup(changes)))
        await target.apply(changes)
    except StoreUnavailableError:
        raise
    except EverthreadError as error:
        return msgspec.structs.replace(outcome, status="failed", reason=str(error))
    for problem in outcome.problems:
        _log.info("%s: %s at position %s: %s", target.name, problem.kind, problem.seq, problem.repair or "not repaired")
    return msgspec.structs.replace(outcome, status="repaired")


def count_problems(thread: Thread, messages: Sequence[Message], *, compare_sizes: bool) -> Iterator[Problem]:
    """Yield the differences between a thread's counts and its messages."""
    size = sum(len(message.payload) for message in messages) if compare_sizes else thread.size
    text = "the counts of the thread differ from its messages"
    if (thread.count, thread.size) != (len(messages), size):
        yield Problem("count", None, text=text)
    seqs = [message.seq for message in messages]
    if seqs != sorted(set(seqs)) or (seqs and not thread.head_seq <= seqs[0] <= seqs[-1] < thread.next_seq):
        yield Problem("count", seqs[0] if seqs else None, text=text)


async def _look_at(store: Store, thread: Thread) -> tuple[Thread, Sequence[Message], bool] | None:
    """Read a thread's messages.

    Returns:
        The thread, its messages, and whether it did not change in between, so that counts can be compared with
        messages; ``None`` for a deleted thread.
    """
    messages: Sequence[Message] = ()
    for _ in range(_LOOKS):
        messages = [message async for message in read_all(store, thread.key)]
        now = await store.get_thread(thread.key)
        if now is None:
            return None
        if _content(now) == _content(thread):
            return now, messages, True
        thread = now
    return thread, messages, False


def _content(thread: Thread) -> tuple[int, ...]:
    return thread.head_seq, thread.next_seq, thread.count, thread.size, thread.created_ms, thread.updated_ms
