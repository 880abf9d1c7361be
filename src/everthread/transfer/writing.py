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
from typing import Any

from everthread import codec
from everthread.contract import Store
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    ThreadNotFoundError,
)
from everthread.model import MAX_SEQ, Message, NewMessage, Retention, Thread, ThreadKey
from everthread.transfer.model import Digest, Outcome, Report, Source, SourceThread, Status, Watcher

AT_ONCE = 16
"""How many threads are under way at the same time."""

FILLER = NewMessage(b"null", "everthread-filler")
FILLERS_AT_ONCE = 5000

_ADDED_TO_ID = "transfer:"


class DifferenceError(EverthreadError):
    """The target has other messages at the same positions; nothing was written over them."""


async def transfer(
    source: Source,
    target: Store,
    *,
    key_of: Callable[[ThreadKey], ThreadKey] = lambda key: key,
    dry_run: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Puts every thread of a source into a store.

    Args:
        source: Not yet opened.
        target: Its own retention is not applied to what is moved.
        key_of: What a thread is called in the target.
        dry_run: Write nothing; the report says what would be.
        watcher: Is told how it goes.

    Raises:
        EverthreadError: The source or target cannot be used. What is wrong with a single thread stands in
            the report.
    """
    watcher = watcher or Watcher()
    report = Report()
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
            outcome = await put_thread(target, key_of(thread.heading.key), thread, dry_run=dry_run, watcher=watcher)
            report.add(outcome)
            watcher.finished(outcome)
            under_way.pop(thread.heading.key).set()

    async with source:
        watcher.begin(source.total)
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


async def put_thread(
    target: Store, key: ThreadKey, thread: SourceThread, *, dry_run: bool = False, watcher: Watcher | None = None
) -> Outcome:
    """Brings one thread of the target to where the source's is, and compares all of it.

    Raises:
        EverthreadError: The source or target cannot be used.
    """
    writer = _ThreadWriter(target, key, thread, dry_run, watcher or Watcher())
    try:
        return await writer.run()
    except (DifferenceError, ConflictError) as error:
        status: Status = "conflict"
        reason = str(error)
    except (
        CorruptRecordError,
        InvalidMessageError,
        InvalidIdentifierError,
        LimitExceededError,
        ThreadNotFoundError,
    ) as error:
        status, reason = "failed", str(error)
    return Outcome(key, status, writer.written.count, writer.shared.count, writer.documents, reason)


class _ThreadWriter:
    def __init__(self, target: Store, key: ThreadKey, thread: SourceThread, dry_run: bool, watcher: Watcher) -> None:
        self._target = target
        self._key = key
        self._source = thread
        self._dry_run = dry_run
        self._watcher = watcher
        self._retention = _remaining(thread.heading.expires_ms)
        self._found: Thread | None = None
        self._resume_at = 0
        self._at = 0
        self._pending: list[Message] = []
        self._is_checked = False
        self._has_title = False
        self.shared = Digest()
        self.written = Digest()
        self.documents = 0

    async def run(self) -> Outcome:
        self._found = await self._target.get_thread(self._key)
        if self._found is not None and not self._dry_run and await _drop_fillers(self._target, self._key):
            self._found = await self._target.get_thread(self._key)
        self._at = self._resume_at = 0 if self._found is None else self._found.next_seq
        async for page in self._source.pages():
            await self._take(page)
            self._watcher.advance(len(page))
        next_seq = self._source.heading.next_seq
        if next_seq is None:
            next_seq = max(self.shared.stop, self._pending[-1].seq + 1 if self._pending else self._at)
        is_ahead = next_seq < self._resume_at
        await self._check_shared(self.shared.stop if is_ahead else self._resume_at)
        if is_ahead:
            return Outcome(self._key, "ahead", present=self.shared.count)
        await self._write(len(self._pending))
        await self._advance_to(next_seq)
        await self._verify()
        is_changed = await self._describe()
        return Outcome(self._key, self._status(is_changed), self.written.count, self.shared.count, self.documents)

    def _status(self, is_changed: bool) -> Status:
        if self._found is None:
            return "new"
        if self._at != self._resume_at:
            return "extended"
        return "updated" if is_changed else "unchanged"

    # Messages

    async def _take(self, page: Sequence[Message]) -> None:
        head = 0 if self._found is None else self._found.head_seq
        for message in page:
            if message.seq >= self._resume_at:
                self._pending.append(message)
            elif message.seq >= head:
                self.shared.add(message)
        if self._pending:
            await self._check_shared(self._resume_at)
            # The last turn may go on with the next page.
            await self._write(_turns_of(self._pending)[-1][0])

    async def _check_shared(self, stop: int) -> None:
        """Refuses to go on with a thread that is another."""
        if self._is_checked or self._found is None:
            return
        self._is_checked = True
        if self.shared.first_seq is None:
            if self._found.count and not await self._came_by_transfer():
                raise DifferenceError(f"There is another {self._key}, of which the source has nothing (any more).")
        elif not self.shared.is_met_by(await self._stored(self.shared.first_seq, stop)):
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
        """Appends the first ``count`` messages that wait: turn by turn, all under way at once."""
        messages, self._pending = self._pending[:count], self._pending[count:]
        batch: list[Sequence[Message]] = []
        for first, stop in _turns_of(messages):
            if messages[first].seq != self._at:
                await self._append_all(batch)
                batch = []
                await self._advance_to(messages[first].seq)
            batch.append(messages[first:stop])
            self._at = messages[stop - 1].seq + 1
        await self._append_all(batch)

    async def _append_all(self, turns: Sequence[Sequence[Message]]) -> None:
        new = [[_new_message(message) for message in turn] for turn in turns]
        for turn in turns:
            for message in turn:
                self.written.add(message)
        if self._dry_run or not turns:
            return
        appends = [
            self._target.append(
                self._key,
                messages,
                append_id=f"{_ADDED_TO_ID}{turn[0].seq}",
                expected_seq=turn[0].seq,
                retention=self._retention,
                default_title=self._default_title(turn),
            )
            for turn, messages in zip(turns, new, strict=True)
        ]
        for result in await asyncio.gather(*appends, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _default_title(self, turn: Sequence[Message]) -> str | None:
        """The title that a thread of another program gets: these know none."""
        if self._source.heading.next_seq is not None or self._has_title:
            return None
        title = codec.title_from(codec.view(message, self._key) for message in turn)
        self._has_title = title is not None
        return title

    async def _advance_to(self, seq: int) -> None:
        """Uses up the positions below ``seq``."""
        while self._at < seq:
            count = min(seq - self._at, FILLERS_AT_ONCE)
            if not self._dry_run:
                await self._fill(count)
            self._at += count

    async def _fill(self, count: int) -> None:
        is_empty = not self.written.count and (self._found is None or not self._found.count)
        # In a thread that keeps nothing, they are dropped in the step that writes them.
        retention = Retention(0, self._retention.expire_after) if is_empty else self._retention
        append_id = f"{_ADDED_TO_ID}{self._at}"
        fillers = [FILLER] * count
        await self._target.append(self._key, fillers, append_id=append_id, expected_seq=self._at, retention=retention)
        if not is_empty:
            await self._target.truncate(self._key, stop=self._at)

    async def _verify(self) -> None:
        if self._dry_run or self.written.first_seq is None:
            return
        if not self.written.is_met_by(await self._stored(self.written.first_seq, self.written.stop)):
            raise CorruptRecordError(f"What was read back of {self._key} is not what was written.")

    async def _stored(self, start: int, stop: int) -> Digest:
        digest = Digest()
        while start < stop:
            page = await self._target.read(self._key, start=start, stop=stop, limit=500)
            for message in page:
                if message.format != FILLER.format:
                    digest.add(message)
            if not page:
                break
            start = page[-1].seq + 1
        return digest

    # The rest of a thread

    async def _describe(self) -> bool:
        """Title, metadata and documents, where they differ; says whether anything did."""
        async for name, value in self._source.documents():
            stored = await self._target.get_document(self._key, name)
            if stored is None or stored.value != value:
                self.documents += 1
                if not self._dry_run:
                    await self._target.put_document(self._key, name, value)
        return await self._entitle() or self.documents > 0

    async def _entitle(self) -> bool:
        heading = self._source.heading
        # Nothing that was written here changes them.
        stored = self._found
        title = heading.title if stored is None or heading.title != stored.title else None
        metadata = heading.metadata if stored is None or heading.metadata != stored.metadata else None
        if stored is not None and not stored.created_ms and not self._dry_run:
            # Another program's Redis list, in place: this takes it over, so that it is listed.
            await self._target.truncate(self._key, start=0)
        if title is None and not metadata:
            return False
        if not self._dry_run:
            await self._target.update_thread(self._key, title=title, metadata=metadata or None)
        return True


def _new_message(message: Message) -> NewMessage:
    payload, name = message.payload, message.format
    try:
        # As codec.new_message does it, which would check the payload twice.
        seen = codec.view_of(codec.decode(payload), name)
        calls = tuple([call.id for call in seen.calls])
        results = tuple([result.id for result in seen.results])
        return NewMessage(payload, name, calls, results, message.created_at)
    except (InvalidMessageError, CorruptRecordError) as error:
        raise InvalidMessageError(f"The message at position {message.seq} cannot be stored: {error}") from None


def _turns_of(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Where each turn begins and ends, as indexes; positions within one follow one another."""
    turns: list[tuple[int, int]] = []
    first = 0
    for index in range(1, len(messages) + 1):
        if index == len(messages) or not _goes_on(messages[index - 1], messages[index]):
            turns.append((first, index))
            first = index
    return turns


def _goes_on(message: Message, following: Message) -> bool:
    return following.turn == message.turn and following.seq == message.seq + 1


def _remaining(expires_ms: int | None) -> Retention:
    if expires_ms is None:
        return Retention()
    left = expires_ms - int(time.time() * 1000)
    return Retention(expire_after=timedelta(milliseconds=max(left, 1)))


async def _drop_fillers(target: Store, key: ThreadKey) -> bool:
    """Drops what a run that was killed between two calls may have left at the tail; says whether it had."""
    newest = await target.read_last(key, 1)
    if not newest or newest[0].format != FILLER.format:
        return False
    tail = await target.read_last(key, FILLERS_AT_ONCE)
    fillers = [message.seq for message in tail if message.format == FILLER.format]
    await target.truncate(key, stop=fillers[0])
    return True
