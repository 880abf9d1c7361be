"""Put the threads of a source into a store, many at a time. A run can stop at any moment and start again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from hashlib import blake2b
from typing import Any

from everthread._validation import check_not_reserved
from everthread.capabilities import SupportsImport, capability
from everthread.contract import Store
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    ThreadNotFoundError,
    UnsupportedError,
)
from everthread.model import ThreadKey
from everthread.transfer.model import Outcome, Report, Skipped, Source, SourceThread, Status, Watcher
from everthread.transfer.thread_writer import DifferenceError, ThreadWriter

AT_ONCE = 16
"""How many threads are written at the same time."""


async def transfer(
    source: Source,
    target: Store,
    *,
    key_of: Callable[[ThreadKey], ThreadKey] = lambda key: key,
    dry_run: bool = False,
    skip_unreadable: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Put every thread of a source into a store.

    Args:
        source: Not opened yet.
        target: Its own retention does not apply to moved messages. A dry run only reads it.
        key_of: Maps a key in the source to its key in the target.
        dry_run: Write nothing; report what a run would do.
        skip_unreadable: Skip unreadable records; the report lists them.
        watcher: Receives the progress.

    Raises:
        EverthreadError: The source or target cannot be used. The report has the problems of single threads.
    """
    watcher = watcher or Watcher()
    report = Report(keeps_times=capability(target, SupportsImport) is not None)
    under_way: dict[ThreadKey, asyncio.Event] = {}
    taking = asyncio.Lock()
    statuses: dict[bytes, Status] = {}

    async def take(threads: AsyncIterator[SourceThread | Skipped]) -> SourceThread | None:
        async with taking:
            while isinstance(thread := await anext(threads, None), Skipped):
                report.skipped.append(thread)
            if thread is not None:
                # A thread may come twice; the second time waits for the first.
                while earlier := under_way.get(thread.heading.key):
                    await earlier.wait()
                under_way[thread.heading.key] = asyncio.Event()
            return thread

    async def work(threads: AsyncIterator[SourceThread | Skipped]) -> None:
        while (thread := await take(threads)) is not None:
            key = key_of(thread.heading.key)
            writer = ThreadWriter(target, key, thread, watcher, dry_run=dry_run, skip_unreadable=skip_unreadable)
            outcome = await _put_thread(writer, key, thread)
            mark = _mark(thread.heading.key)
            statuses[mark] = report.add(outcome, statuses.get(mark))
            watcher.finished(outcome)
            under_way.pop(thread.heading.key).set()

    async with source:
        report.skipped += source.skipped
        watcher.begin(source.total)
        threads = source.threads()
        await _together(work(threads) for _ in range(AT_ONCE))
    return report


def _mark(key: ThreadKey) -> bytes:
    """Return a short name of a thread: there may be many."""
    return blake2b(repr((key.tenant, key.thread_id)).encode(), digest_size=16).digest()


async def _together(workers: Iterable[Coroutine[Any, Any, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _put_thread(writer: ThreadWriter, key: ThreadKey, thread: SourceThread) -> Outcome:
    reason = ""
    try:
        check_not_reserved(key.tenant)
        status = await writer.run()
    except (DifferenceError, ConflictError) as error:
        status, reason = "conflict", str(error)
    except (
        CorruptRecordError,
        InvalidMessageError,
        InvalidIdentifierError,
        LimitExceededError,
        ThreadNotFoundError,
        UnsupportedError,
    ) as error:
        # A thread may expire while it is written; the target has deleted it then.
        gone = isinstance(error, ThreadNotFoundError) and writer.is_expired()
        status, reason = ("expired", "") if gone else ("failed", str(error))
    if thread.place and reason and thread.place.partition(", ")[0] not in reason:
        reason = f"{thread.place}: {reason}"
    counts = writer.written, writer.present, writer.documents
    return Outcome(key, status, *counts, reason, (*writer.skipped, *thread.left_out.values()))
