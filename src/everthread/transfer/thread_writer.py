"""Bring one thread of a store to the state that a source has, and compare all of it.

A thread keeps its positions. So the target's next position shows which messages it lacks, and an append with
``expected_seq`` is safe to repeat. Where the source has no messages (a trimmed head, a dropped tail), the next append
skips these positions; at the end of the thread, the target's next position is moved forward.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import NotRequired, TypedDict

from everthread._validation import MAX_TURN_MESSAGES, checked_metadata, checked_title
from everthread.capabilities import MAX_RESTORED_SEQ, SupportsImport, capability
from everthread.contract import Store
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    InvalidMessageError,
    LimitExceededError,
    UnsupportedError,
)
from everthread.messages import codec
from everthread.model import MAX_SEQ, Message, NewMessage, Retention, Thread, ThreadKey, from_milliseconds
from everthread.transfer.model import Heading, Skipped, SourceThread, Status, Watcher, left_of

LONGEST_TURN_BYTES = 512 * 1024 * 1024  # It is appended as a whole, from memory.
_MESSAGE_OVERHEAD = 200

_ID_PREFIX = "transfer:"
_FIRST_DOCUMENT = "everthread:transfer"
_PROBE = NewMessage(b"null")
_Entry = tuple[Message, NewMessage]


class _Position(TypedDict):
    expected_seq: int
    skip_to: NotRequired[int]


class DifferenceError(EverthreadError):
    """The target has other messages at the same positions; nothing was written over them."""


class ThreadWriter:
    """Write one thread.

    Args:
        target: The store to write to.
        key: The thread in the target.
        thread: The thread in the source.
        watcher: Receives the progress.
        dry_run: Write nothing.
        skip_unreadable: Skip records that are not JSON, and list them in `skipped`.

    Attributes:
        present: The number of messages that the target had already.
        written: The number of messages written.
        documents: The number of documents written.
        skipped: The records that were skipped.
    """

    def __init__(
        self,
        target: Store,
        key: ThreadKey,
        thread: SourceThread,
        watcher: Watcher,
        *,
        dry_run: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        self._target = target
        self._key = key
        self._source = thread
        self._watcher = watcher
        self._dry_run = dry_run
        self._skip_unreadable = skip_unreadable
        self._retention = _retention_for(thread.heading, target)
        self._found: Thread | None = None
        self._resume_at = 0
        self._at = 0
        self._begun_ms = _now_ms()
        self._pending: list[_Entry] = []
        self._pending_bytes = 0
        self._compared_to: int | None = None
        self._is_compared = False
        self.present = 0
        self.written = 0
        self.documents = 0
        self.skipped: list[Skipped] = []

    async def run(self) -> Status:
        """Write the messages and documents that the target lacks; return the status of the thread.

        Raises:
            DifferenceError: The target has another thread of this name.
            InvalidMessageError, LimitExceededError: No store takes the title, the metadata or a turn.
            UnsupportedError: The thread has gaps, and the target cannot restore positions.
        """
        heading = self._source.heading
        if self.is_expired():
            return "expired"
        # Otherwise the target would refuse these after the messages, and a dry run would not notice.
        checked_title(heading.title)
        checked_metadata(heading.metadata)
        self._found = await self._target.get_thread(self._key)
        self._at = self._resume_at = 0 if self._found is None else self._found.next_seq
        last = -1
        async for page in self._source.pages():
            await self._take(page)
            self._watcher.advance(len(page))
            last = page[-1].seq
        next_seq = last + 1 if heading.next_seq is None else heading.next_seq
        is_ahead = next_seq < self._resume_at
        await self._end_comparison(next_seq if is_ahead else self._resume_at)
        if is_ahead:
            return "ahead"
        await self._write(len(self._pending))
        await self._advance_to(next_seq)
        return self._status(await self._describe())

    def is_expired(self) -> bool:
        """Return whether the source says that the thread has expired."""
        heading = self._source.heading
        expires_ms, own = heading.expires_ms, heading.retention
        if expires_ms is None and own is not None and own.expire_ms is not None:
            # A thread without times counts as active now.
            expires_ms = (heading.times[1] if heading.times else self._begun_ms) + own.expire_ms
        return expires_ms is not None and expires_ms <= _now_ms()

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
            new = self._new_message(message) if is_new or self._skip_unreadable else None
            if is_new and new is not None:
                self._pending.append((message, new))
                self._pending_bytes += len(message.payload) + _MESSAGE_OVERHEAD
            elif not is_new and message.seq >= head and (new is not None or not self._skip_unreadable):
                shared.append(message)
        if shared:
            await self._compare(shared)
        if self._pending:
            await self._end_comparison(self._resume_at)
            # The last turn may continue on the next page.
            await self._write(_last_turn(self._pending))
            if self._pending_bytes > LONGEST_TURN_BYTES:
                what = f"A turn of {self._key} has more than {LONGEST_TURN_BYTES:,} bytes."
                raise LimitExceededError(what, self._pending_bytes, LONGEST_TURN_BYTES)

    def _new_message(self, message: Message) -> NewMessage | None:
        """Return the message for the target, or ``None`` to skip it."""
        try:
            return codec.new_message(message.payload, format=message.format, created_at=message.created_at)
        except (InvalidMessageError, CorruptRecordError) as error:
            if not self._skip_unreadable:
                where = f"The message at position {message.seq} cannot be stored"
                raise InvalidMessageError(f"{where}: {error}") from None
            self.skipped.append(Skipped(f"{self._key}, position {message.seq}", str(error)))
            return None

    async def _compare(self, shared: Sequence[Message]) -> None:
        start = shared[0].seq if self._compared_to is None else self._compared_to
        self._compared_to = shared[-1].seq + 1
        if not _are_equal(shared, await self._stored(start, self._compared_to, len(shared))):
            raise DifferenceError(f"There is another {self._key}: it differs below position {self._compared_to}.")
        self.present += len(shared)

    async def _end_comparison(self, stop: int) -> None:
        """Raise `DifferenceError` if the target has messages below ``stop`` that the source never had."""
        if self._is_compared or self._found is None:
            return
        self._is_compared = True
        if self._compared_to is None:
            if self._found.count and not await self._came_by_transfer():
                raise DifferenceError(f"There is another {self._key}, and the source has none of its messages.")
        elif await self._stored(self._compared_to, stop, 0):
            raise DifferenceError(f"There is another {self._key}: it differs below position {stop}.")

    async def _came_by_transfer(self) -> bool:
        """Return whether a transfer wrote the newest turn; if so, the source has dropped messages of the target."""
        newest = await self._target.read_last(self._key, 1)
        if not newest:
            return True
        append_id = f"{_ID_PREFIX}{newest[0].turn}"
        try:
            # No thread reaches this position: the store refuses it unless it knows the ID, and never writes.
            await self._target.append(self._key, [_PROBE], append_id=append_id, expected_seq=MAX_SEQ)
        except ConflictError:
            return False
        except UnsupportedError:
            # A dry run on a read-only store cannot ask, and assumes an earlier run.
            return self._dry_run
        return True

    async def _write(self, count: int) -> None:
        """Append the first ``count`` pending messages, many turns at a time, and read them back."""
        entries, self._pending = self._pending[:count], self._pending[count:]
        self._pending_bytes = sum(len(message.payload) + _MESSAGE_OVERHEAD for message, _ in self._pending)
        if not entries:
            return
        await self._append_all(_turns_of(entries))
        if self._dry_run:
            return
        messages = [message for message, _ in entries]
        if not _are_equal(messages, await self._stored(messages[0].seq, messages[-1].seq + 1, len(messages))):
            raise CorruptRecordError(f"The messages read back of {self._key} are not the messages written.")

    async def _append_all(self, turns: Sequence[Sequence[_Entry]]) -> None:
        for turn in turns:
            if len(turn) > MAX_TURN_MESSAGES:
                what = f"A turn of {self._key} has {len(turn):,} messages: at most {MAX_TURN_MESSAGES:,} are allowed."
                raise LimitExceededError(what, len(turn), MAX_TURN_MESSAGES)
        positions = [self._position_of(turn) for turn in turns]
        if self._dry_run:
            for turn in turns:
                await self._target.check_append(self._key, [new for _, new in turn])
                self.written += len(turn)
            return
        title = self._default_title(turns)
        appends = [
            self._target.append(
                self._key,
                [new for _, new in turn],
                append_id=f"{_ID_PREFIX}{turn[0][0].seq}",
                retention=self._retention,
                default_title=title,
                **position,
            )
            for turn, position in zip(turns, positions, strict=True)
        ]
        for turn, result in zip(turns, await asyncio.gather(*appends, return_exceptions=True), strict=True):
            if isinstance(result, BaseException):
                raise result
            self.written += len(turn)

    def _default_title(self, turns: Sequence[Sequence[_Entry]]) -> str | None:
        """Return the title of a new thread that another program wrote: these have none."""
        if self._source.heading.next_seq is not None or turns[0][0][0].seq:
            return None
        return codec.title_from(codec.view(message, self._key) for turn in turns for message, _ in turn)

    def _position_of(self, turn: Sequence[_Entry]) -> _Position:
        """Return the options that append a turn at its position, and count on from its end."""
        position: _Position = {"expected_seq": self._at}
        if (first := turn[0][0].seq) > self._at:
            self._importer(first)
            position["skip_to"] = first
        self._at = turn[-1][0].seq + 1
        return position

    async def _advance_to(self, seq: int) -> None:
        """Leave the positions below ``seq`` at the end of the thread without messages."""
        if seq <= self._at:
            return
        target = self._importer(seq)
        if not self._dry_run:
            expire_after = self._retention.expire_after
            await target.restore_position(self._key, seq, expected_seq=self._at, expire_after=expire_after)
        self._at = seq

    def _importer(self, seq: int) -> SupportsImport:
        """Return the target, which must be able to restore this position."""
        target = capability(self._target, SupportsImport)
        if target is None:
            raise UnsupportedError(
                f"{self._key} has no messages at positions {self._at} to {seq - 1}, and {self._target.location} cannot "
                "restore positions (it does not support SupportsImport)."
            )
        if seq > MAX_RESTORED_SEQ:
            what = f"Position {seq:,} of {self._key} is too high: at most {MAX_RESTORED_SEQ:,} can be restored."
            raise LimitExceededError(what, seq, MAX_RESTORED_SEQ)
        return target

    async def _stored(self, start: int, stop: int, most: int) -> list[Message]:
        """Return the target's messages in this range, but not many more than ``most``."""
        found: list[Message] = []
        while start < stop and len(found) <= most:
            page = await self._target.read(self._key, start=start, stop=stop, limit=most + 1)
            if not page:
                break
            found += page
            start = page[-1].seq + 1
        return found

    # The rest of a thread

    async def _describe(self) -> bool:
        """Write documents, title, metadata, retention and times that differ; return whether any did."""
        has_documents = False
        async for name, value in self._source.documents():
            has_documents = True
            stored = await self._target.get_document(self._key, name)
            if stored is None or stored.value != value:
                self.documents += 1
                if not self._dry_run:
                    await self._target.put_document(self._key, name, value)
        if not (self._resume_at or self._dry_run):
            await self._begin_empty(is_empty=not (self._at or has_documents))
        is_changed = await self._entitle()
        return await self._restore_times() or is_changed or self.documents > 0

    async def _begin_empty(self, *, is_empty: bool) -> None:
        """Begin a thread without messages and documents with a document that does not stay.

        Also delete that document if an earlier run left it.
        """
        if self._found is None and is_empty:
            await self._target.put_document(self._key, _FIRST_DOCUMENT, _PROBE.payload)
        elif self._found is None or await self._target.get_document(self._key, _FIRST_DOCUMENT) is None:
            return
        await self._target.delete_document(self._key, _FIRST_DOCUMENT)

    async def _entitle(self) -> bool:
        heading, stored = self._source.heading, self._found
        title = heading.title if stored is None or heading.title != stored.title else None
        metadata = heading.metadata if stored is None or heading.metadata != stored.metadata else None
        retention = heading.retention if stored is None or heading.retention != stored.retention else None
        if stored is not None and not stored.created_ms and not self._dry_run:
            # A Redis list of another program, in place: a write takes it over, so that listings show it.
            await self._target.truncate(self._key, start=0)
        if title is None and not metadata and retention is None:
            return False
        if not self._dry_run:
            await self._target.update_thread(self._key, title=title, metadata=metadata or None, retention=retention)
        return True

    async def _restore_times(self) -> bool:
        times, target = self._source.heading.times, capability(self._target, SupportsImport)
        if times is None or target is None:
            return False
        if self._found is not None and self._at == self._resume_at and not self._may_restore(self._found, times):
            return False
        if not self._dry_run:
            begun, last = map(from_milliseconds, times)
            thread = await target.restore_times(self._key, created_at=begun, updated_at=last)
            if thread.next_seq != self._at:
                # Another writer has appended, and that is the last activity.
                now = from_milliseconds(max(_now_ms(), times[1]))
                await target.restore_times(self._key, created_at=begun, updated_at=now)
        return True

    def _may_restore(self, found: Thread, times: tuple[int, int]) -> bool:
        """Return whether an unextended thread has other times, and would not expire earlier with these."""
        heading = self._source.heading
        left, wanted = left_of(found.updated_ms, found.expires_ms), left_of(times[1], heading.expires_ms)
        if heading.retention is not None and heading.retention != found.retention:
            left = heading.retention.expire_ms
        # Restoring the last activity moves the expiry with it.
        return (found.created_ms, found.updated_ms) != times and left in {None, wanted}


def _are_equal(messages: Sequence[Message], stored: Sequence[Message]) -> bool:
    """Return whether positions, formats, payloads and times agree; an unknown time of the source agrees with any."""
    return len(messages) == len(stored) and all(
        message.payload == other.payload
        and message.seq == other.seq
        and message.format == other.format
        and message.created_ms in (None, other.created_ms)
        for message, other in zip(messages, stored, strict=True)
    )


def _turns_of(entries: Sequence[_Entry]) -> list[Sequence[_Entry]]:
    """Split messages into turns. A gap within a turn splits it too."""
    turns: list[Sequence[_Entry]] = []
    first = 0
    for index in range(1, len(entries) + 1):
        if index == len(entries) or not _continues(entries[index - 1][0], entries[index][0]):
            turns.append(entries[first:index])
            first = index
    return turns


def _last_turn(entries: Sequence[_Entry]) -> int:
    """Return the index at which the last turn begins."""
    first = len(entries) - 1
    while first and _continues(entries[first - 1][0], entries[first][0]):
        first -= 1
    return first


def _continues(message: Message, following: Message) -> bool:
    return following.turn == message.turn and following.seq == message.seq + 1


def _retention_for(heading: Heading, target: Store) -> Retention:
    """Return a retention that trims nothing, and expires the thread when the source's thread expires."""
    if heading.expires_ms is None:
        return Retention()
    # Restoring the last activity moves the expiry with it.
    since = heading.times[1] if heading.times and capability(target, SupportsImport) else _now_ms()
    return Retention(expire_after=timedelta(milliseconds=max(heading.expires_ms - since, 1)))


def _now_ms() -> int:
    return int(time.time() * 1000)
