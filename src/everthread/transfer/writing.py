"""Puts threads into a store so that it can be broken off at any moment and begun again.

A thread keeps its positions. So what the target lacks follows from its next position, and an append is
safe to repeat: it is made with ``expected_seq``. Where the source has no messages (a head that was
trimmed, a tail that was dropped) the target's positions are used up by fillers, which are dropped at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from everthread import codec
from everthread.contract import Store, SupportsImport
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    ThreadNotFoundError,
)
from everthread.model import MAX_SEQ, Message, NewMessage, Retention, Thread, ThreadKey, from_milliseconds
from everthread.transfer.model import Heading, Outcome, Report, Skipped, Source, SourceThread, Status, Watcher

AT_ONCE = 16
"""How many threads are under way at the same time."""

FILLER = NewMessage(b"null", "everthread-filler")
FILLERS_AT_ONCE = 5000

_ADDED_TO_ID = "transfer:"
_Entry = tuple[Message, NewMessage]


class DifferenceError(EverthreadError):
    """The target has other messages at the same positions; nothing was written over them."""


class Manner(NamedTuple):
    """How threads are put into a store.

    Attributes:
        dry_run: Write nothing.
        skip_unreadable: Leave out the records that are no JSON, and tell which.
        watcher: Is told how it goes.
    """

    dry_run: bool = False
    skip_unreadable: bool = False
    watcher: Watcher = Watcher()


async def transfer(
    source: Source,
    target: Store,
    *,
    key_of: Callable[[ThreadKey], ThreadKey] = lambda key: key,
    dry_run: bool = False,
    skip_unreadable: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Puts every thread of a source into a store.

    Args:
        source: Not yet opened.
        target: Its own retention is not applied to what is moved.
        key_of: What a thread is called in the target.
        dry_run: Write nothing; the report says what would be.
        skip_unreadable: Leave out what cannot be read; the report says which records.
        watcher: Is told how it goes.

    Raises:
        EverthreadError: The source or target cannot be used. What is wrong with a single thread stands in
            the report.
    """
    how = Manner(dry_run, skip_unreadable, watcher or Watcher())
    report = Report(keeps_times=isinstance(target, SupportsImport))
    under_way: dict[ThreadKey, asyncio.Event] = {}
    taking = asyncio.Lock()

    async def take(threads: AsyncIterator[SourceThread]) -> SourceThread | None:
        async with taking:
            thread = await anext(threads, None)
            if thread is not None:
                # A thread may come twice; its second coming waits for the first.
                while earlier := under_way.get(thread.heading.key):
                    await earlier.wait()
                under_way[thread.heading.key] = asyncio.Event()
            return thread

    async def work(threads: AsyncIterator[SourceThread]) -> None:
        while (thread := await take(threads)) is not None:
            outcome = await put_thread(target, key_of(thread.heading.key), thread, how)
            report.add(outcome)
            how.watcher.finished(outcome)
            under_way.pop(thread.heading.key).set()

    async with source:
        report.skipped += source.skipped
        how.watcher.begin(source.total)
        threads = source.threads()
        await _together(work(threads) for _ in range(AT_ONCE))
    return report


async def _together(workers: Iterable[Coroutine[Any, Any, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def put_thread(target: Store, key: ThreadKey, thread: SourceThread, how: Manner) -> Outcome:
    """Brings one thread of the target to where the source's is, and compares all of it.

    Raises:
        EverthreadError: The source or target cannot be used.
    """
    writer = _ThreadWriter(target, key, thread, how)
    reason = ""
    try:
        status = await writer.run()
    except (DifferenceError, ConflictError) as error:
        status, reason = "conflict", str(error)
    except (
        CorruptRecordError,
        InvalidMessageError,
        InvalidIdentifierError,
        LimitExceededError,
        ThreadNotFoundError,
    ) as error:
        status, reason = "failed", str(error)
    counts = writer.written, writer.present, writer.documents
    return Outcome(key, status, *counts, reason, tuple(writer.skipped))


class _ThreadWriter:
    def __init__(self, target: Store, key: ThreadKey, thread: SourceThread, how: Manner) -> None:
        self._target = target
        self._key = key
        self._source = thread
        self._how = how
        self._retention = _retention_for(thread.heading, target)
        self._found: Thread | None = None
        self._resume_at = 0
        self._at = 0
        self._pending: list[_Entry] = []
        self._compared_to: int | None = None
        self._is_compared = False
        self._has_title = False
        self.present = 0
        self.written = 0
        self.documents = 0
        self.skipped: list[Skipped] = []

    async def run(self) -> Status:
        heading = self._source.heading
        if heading.expires_ms is not None and heading.expires_ms <= _now_ms():
            return "expired"
        self._found = await self._target.get_thread(self._key)
        if self._found is not None and not self._how.dry_run and await _drop_fillers(self._target, self._key):
            self._found = await self._target.get_thread(self._key)
        self._at = self._resume_at = 0 if self._found is None else self._found.next_seq
        last = -1
        async for page in self._source.pages():
            await self._take(page)
            self._how.watcher.advance(len(page))
            last = page[-1].seq
        next_seq = last + 1 if heading.next_seq is None else heading.next_seq
        is_ahead = next_seq < self._resume_at
        await self._end_comparison(next_seq if is_ahead else self._resume_at)
        if is_ahead:
            return "ahead"
        await self._write(len(self._pending))
        await self._advance_to(next_seq)
        return self._status(await self._describe())

    def _status(self, is_changed: bool) -> Status:
        if self._found is None:
            return "new"
        if self._at != self._resume_at:
            return "extended"
        return "updated" if is_changed else "unchanged"

    # Messages

    async def _take(self, page: Sequence[Message]) -> None:
        head = 0 if self._found is None else self._found.head_seq
        shared: list[Message] = []
        for message in page:
            is_new = message.seq >= self._resume_at
            new = self._new_message(message) if is_new or self._how.skip_unreadable else None
            if is_new and new is not None:
                self._pending.append((message, new))
            elif not is_new and message.seq >= head and (new is not None or not self._how.skip_unreadable):
                shared.append(message)
        if shared:
            await self._compare(shared)
        if self._pending:
            await self._end_comparison(self._resume_at)
            # The last turn may go on with the next page.
            await self._write(_last_turn(self._pending))

    def _new_message(self, message: Message) -> NewMessage | None:
        """The message as the target takes it; nothing if it is to be left out."""
        try:
            return codec.new_message(message.payload, format=message.format, created_at=message.created_at)
        except (InvalidMessageError, CorruptRecordError) as error:
            if not self._how.skip_unreadable:
                where = f"The message at position {message.seq} cannot be stored"
                raise InvalidMessageError(f"{where}: {error}") from None
            self.skipped.append(Skipped(f"{self._key}, position {message.seq}", str(error)))
            return None

    async def _compare(self, shared: Sequence[Message]) -> None:
        """Refuses to go on with a thread that is another."""
        start = shared[0].seq if self._compared_to is None else self._compared_to
        self._compared_to = shared[-1].seq + 1
        if not _are_equal(shared, await self._stored(start, self._compared_to, len(shared))):
            raise DifferenceError(f"There is another {self._key}: it differs below position {self._compared_to}.")
        self.present += len(shared)

    async def _end_comparison(self, stop: int) -> None:
        """Refuses a thread that has messages below ``stop`` of which the source knows nothing."""
        if self._is_compared or self._found is None:
            return
        self._is_compared = True
        if self._compared_to is None:
            if self._found.count and not await self._came_by_transfer():
                raise DifferenceError(f"There is another {self._key}, of which the source has nothing (any more).")
        elif await self._stored(self._compared_to, stop, 0):
            raise DifferenceError(f"There is another {self._key}: it differs below position {stop}.")

    async def _came_by_transfer(self) -> bool:
        """Whether the newest turn was written here; then the source has dropped what the target keeps."""
        newest = await self._target.read_last(self._key, 1)
        if not newest:
            return True
        append_id = f"{_ADDED_TO_ID}{newest[0].turn}"
        try:
            # No thread gets so far: this is refused unless the id is known, and then nothing is written either.
            await self._target.append(self._key, [FILLER], append_id=append_id, expected_seq=MAX_SEQ)
        except ConflictError:
            return False
        return True

    async def _write(self, count: int) -> None:
        """Appends the first ``count`` messages that wait, turn by turn, all under way at once; and reads them back."""
        entries, self._pending = self._pending[:count], self._pending[count:]
        if not entries:
            return
        batch: list[Sequence[_Entry]] = []
        for turn in _turns_of(entries):
            if turn[0][0].seq != self._at:
                await self._append_all(batch)
                batch = []
                await self._advance_to(turn[0][0].seq)
            batch.append(turn)
            self._at = turn[-1][0].seq + 1
        await self._append_all(batch)
        await self._verify([message for message, _ in entries])

    async def _append_all(self, turns: Sequence[Sequence[_Entry]]) -> None:
        self.written += sum(map(len, turns))
        if self._how.dry_run or not turns:
            return
        appends = [
            self._target.append(
                self._key,
                [new for _, new in turn],
                append_id=f"{_ADDED_TO_ID}{turn[0][0].seq}",
                expected_seq=turn[0][0].seq,
                retention=self._retention,
                default_title=self._default_title(turn),
            )
            for turn in turns
        ]
        for result in await asyncio.gather(*appends, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _default_title(self, turn: Sequence[_Entry]) -> str | None:
        """The title that a thread of another program gets: these know none."""
        if self._source.heading.next_seq is not None or self._has_title:
            return None
        title = codec.title_from(codec.view(message, self._key) for message, _ in turn)
        self._has_title = title is not None
        return title

    async def _advance_to(self, seq: int) -> None:
        """Uses up the positions below ``seq``."""
        while self._at < seq:
            count = min(seq - self._at, FILLERS_AT_ONCE)
            if not self._how.dry_run:
                await self._fill(count)
            self._at += count

    async def _fill(self, count: int) -> None:
        is_empty = not self.written and (self._found is None or not self._found.count)
        # In a thread that keeps nothing, they are dropped in the step that writes them.
        retention = Retention(0, self._retention.expire_after) if is_empty else self._retention
        append_id = f"{_ADDED_TO_ID}{self._at}"
        fillers = [FILLER] * count
        await self._target.append(self._key, fillers, append_id=append_id, expected_seq=self._at, retention=retention)
        if not is_empty:
            await self._target.truncate(self._key, stop=self._at, expected_seq=self._at + count)

    async def _verify(self, messages: Sequence[Message]) -> None:
        """Reads back what was written, while it is at hand, so that memory stays bounded."""
        if self._how.dry_run:
            return
        stored = await self._stored(messages[0].seq, messages[-1].seq + 1, len(messages))
        if not _are_equal(messages, stored):
            raise CorruptRecordError(f"What was read back of {self._key} is not what was written.")

    async def _stored(self, start: int, stop: int, most: int) -> list[Message]:
        """What the target has there; no more than tells that it is more than ``most``."""
        found: list[Message] = []
        while start < stop and len(found) <= most:
            page = await self._target.read(self._key, start=start, stop=stop, limit=most + 1)
            if not page:
                break
            found += [message for message in page if message.format != FILLER.format]
            start = page[-1].seq + 1
        return found

    # The rest of a thread

    async def _describe(self) -> bool:
        """Documents, title, metadata, retention and times, where they differ; says whether any did."""
        async for name, value in self._source.documents():
            stored = await self._target.get_document(self._key, name)
            if stored is None or stored.value != value:
                self.documents += 1
                if not self._how.dry_run:
                    await self._target.put_document(self._key, name, value)
        is_changed = await self._entitle()
        return await self._restore_times() or is_changed or self.documents > 0

    async def _entitle(self) -> bool:
        heading = self._source.heading
        # Nothing that was written here changes them.
        stored = self._found
        title = heading.title if stored is None or heading.title != stored.title else None
        metadata = heading.metadata if stored is None or heading.metadata != stored.metadata else None
        retention = heading.retention if stored is None or heading.retention != stored.retention else None
        if stored is not None and not stored.created_ms and not self._how.dry_run:
            # Another program's Redis list, in place: this takes it over, so that it is listed.
            await self._target.truncate(self._key, start=0)
        if title is None and not metadata and retention is None:
            return False
        if not self._how.dry_run:
            await self._target.update_thread(self._key, title=title, metadata=metadata or None, retention=retention)
        return True

    async def _restore_times(self) -> bool:
        times, target = self._source.heading.times, self._target
        if times is None or not isinstance(target, SupportsImport):
            return False
        if self._found is not None and self._at == self._resume_at and not self._may_restore(self._found, times):
            return False
        if not self._how.dry_run:
            begun, last = map(from_milliseconds, times)
            thread = await target.restore_times(self._key, created_at=begun, updated_at=last)
            if thread.next_seq != self._at:
                # Somebody has gone on with it meanwhile, and that is its last activity.
                now = from_milliseconds(max(_now_ms(), times[1]))
                await target.restore_times(self._key, created_at=begun, updated_at=now)
        return True

    def _may_restore(self, found: Thread, times: tuple[int, int]) -> bool:
        """Whether a thread that was all there has other times, and would not be forgotten earlier with these."""
        heading = self._source.heading
        left, wanted = _left(found.updated_ms, found.expires_ms), _left(times[1], heading.expires_ms)
        if heading.retention is not None and heading.retention != found.retention:
            left = heading.retention.expire_ms
        # Restoring the last activity moves the expiry with it.
        return (found.created_ms, found.updated_ms) != times and left in {None, wanted}


def _left(updated_ms: int, expires_ms: int | None) -> int | None:
    """How long after its last activity a thread expires."""
    return None if expires_ms is None else expires_ms - updated_ms


def _are_equal(messages: Sequence[Message], stored: Sequence[Message]) -> bool:
    """Whether positions, formats, payloads and times agree; a time that the source does not know may be any."""
    return len(messages) == len(stored) and all(
        message.payload == other.payload
        and message.seq == other.seq
        and message.format == other.format
        and message.created_ms in (None, other.created_ms)
        for message, other in zip(messages, stored, strict=True)
    )


def _turns_of(entries: Sequence[_Entry]) -> list[Sequence[_Entry]]:
    """Turn by turn; positions within one follow one another."""
    turns: list[Sequence[_Entry]] = []
    first = 0
    for index in range(1, len(entries) + 1):
        if index == len(entries) or not _goes_on(entries[index - 1][0], entries[index][0]):
            turns.append(entries[first:index])
            first = index
    return turns


def _last_turn(entries: Sequence[_Entry]) -> int:
    """Where the last turn begins, as an index."""
    first = len(entries) - 1
    while first and _goes_on(entries[first - 1][0], entries[first][0]):
        first -= 1
    return first


def _goes_on(message: Message, following: Message) -> bool:
    return following.turn == message.turn and following.seq == message.seq + 1


def _retention_for(heading: Heading, target: Store) -> Retention:
    """What makes the thread expire when it would have where it is from; nothing of it is trimmed."""
    if heading.expires_ms is None:
        return Retention()
    # Restoring the last activity moves the expiry with it.
    since = heading.times[1] if heading.times and isinstance(target, SupportsImport) else _now_ms()
    return Retention(expire_after=timedelta(milliseconds=max(heading.expires_ms - since, 1)))


def _now_ms() -> int:
    return int(time.time() * 1000)


async def _drop_fillers(target: Store, key: ThreadKey) -> bool:
    """Drops what a run that was killed between two calls may have left at the tail; says whether it had."""
    newest = await target.read_last(key, 1)
    if not newest or newest[0].format != FILLER.format:
        return False
    tail = await target.read_last(key, FILLERS_AT_ONCE)
    fillers = [message.seq for message in tail if message.format == FILLER.format]
    await target.truncate(key, stop=fillers[0], expected_seq=tail.next_seq)
    return True
