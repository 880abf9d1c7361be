"""`ConversationStore` of Pydantic AI on any store: one thread a conversation, one stored message an entry."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_core import PydanticSerializationError

from everthread.adapters.pydantic_ai import messages as framework
from everthread.adapters.pydantic_ai.entry_log import Entry, EntryLog
from everthread.adapters.pydantic_ai.marks import (
    FORMAT,
    Mark,
    Newest,
    Place,
    State,
    marked,
    record_message,
    relative,
)
from everthread.adapters.pydantic_ai.shared_entries import SharedEntries
from everthread.adapters.retrying import append_with_retries, retried
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    InvalidMessageError,
    UnsupportedError,
)
from everthread.listing import every_thread, for_each
from everthread.messages import codec
from everthread.model import NewMessage, Retention, Thread, check_identifier, from_milliseconds

_READS_AT_ONCE = 16

_records: TypeAdapter[ConversationRecord] = TypeAdapter(ConversationRecord)


class EverthreadConversationStore(UsesStore, ConversationStore):
    """Conversations of Pydantic AI that outlive the process.

        conversations = EverthreadConversationStore("redis://localhost:6379/0")
        conversation = await conversations.load("trip") or Conversation(conversation_id="trip")
        result = await agent.run("Hello", conversation=conversation)
        await conversations.save(result)

    The ID of a conversation is the ID of its thread. A save stores the new messages and the record in one append, or
    nothing. A fork shares the entries before it with the conversation that was forked.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        tenant: The owner of the conversations. The framework's ``scope`` is a filter within a tenant.
        retention: Applies to the appends of this store instead of the retention of the thread and of the store.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option, or another object as the store.
        InvalidIdentifierError: The tenant is too long or not text.
    """

    def __init__(self, store: Store | str, *, tenant: str = "", retention: Retention | None = None) -> None:
        super().__init__(store)
        self._retention = retention
        self._log = EntryLog(self._store, check_identifier(tenant, "tenant", may_be_empty=True))
        self._shared = SharedEntries(self._store, self._log)

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation, or ``None``. Costs one read.

        A thread of messages that another program stored in this format is a conversation too.

        Raises:
            CorruptRecordError: The record cannot be decoded.
            UnsupportedError: The newest message of the thread has another format.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        return self._record_of(await self._log.newest(conversation_id), conversation_id)

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """Return the records, newest first; reads the newest message of each thread of the tenant up to the limit.

        Threads of other formats and damaged ones are left out.
        """
        found: dict[str, ConversationRecord] = {}
        threads = every_thread(self._store, self._log.tenant)
        async with aclosing(for_each(threads, self._listed, at_once=_READS_AT_ONCE)) as records:
            async for record in records:
                if limit is not None and len(found) >= limit:
                    break
                if record is not None and (scope is None or record.scope == scope):
                    found[record.conversation_id] = record
        return sorted(found.values(), key=lambda record: record.updated_at, reverse=True)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and new entries in one append, which takes effect once in several attempts.

        Raises:
            ConversationConflict: Another writer changed, created or deleted the conversation, or an entry that the
                record needs is not stored. Nothing is stored.
            InvalidMessageError: The framework has no JSON for a part of a message.
            LimitExceededError: The entries are larger than the store takes in one append.
            OutcomeUnknownError: They may be stored, also when tried again.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        thread = record.conversation_id
        newest = await self._log.newest(thread)
        former = self._record_of(newest, thread)
        if (former.revision if former else None) != expected_revision:
            raise ConversationConflict(thread)
        places = {entry.id: Place(newest.next_seq + at, thread) for at, entry in enumerate(new_entries)}
        wanted = [record.head_id, *record.branches, *(entry.parent_id for entry in new_entries)]
        hints = [thread, *([record.forked_from] if record.forked_from else [])]
        for entry_id in wanted:
            if entry_id is not None and entry_id not in places:
                found = await self._log.find(entry_id, *hints)
                if found is not None:
                    places[entry_id] = found
                elif entry_id not in record.branches:
                    raise ConversationConflict(thread)
        sources = newest.state.sources if newest.state else ()
        added = await self._shared.claim(thread, places.values(), sources)
        if added is None:
            raise ConversationConflict(thread)
        try:
            state = State(
                msgspec.Raw(_encoded(record)),
                None if record.head_id is None else relative(places[record.head_id], thread),
                tuple(relative(places[tip], thread) if tip in places else None for tip in record.branches),
                (*sources, *added),
            )
            turn = _turn(new_entries, state, places, thread)
            title = await self._title_of(record, turn) if newest.next_seq == 0 else None
            await self._append(thread, turn, newest.next_seq, title)
        except ConflictError:
            await self._shared.disclaim(added)
            raise ConversationConflict(thread) from None
        for entry_id, place in places.items():
            self._log.remember(entry_id, place)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation, with all entries that no other conversation shares.

        If others share entries of it, the thread stays until the last of them is deleted, and the content of the
        entries that none of them reaches is erased, if the store can rewrite messages.

        Raises:
            ConversationConflict: There is no conversation with this revision.
            OutcomeUnknownError: It may be deleted.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        newest = await self._log.newest(conversation_id)
        former = self._record_of(newest, conversation_id)
        if former is None or former.revision != expected_revision:
            raise ConversationConflict(conversation_id)
        sources = newest.state.sources if newest.state else ()
        state = State(msgspec.Raw(b"{}"), sources=sources, deleted=True)
        try:
            await self._append(conversation_id, [record_message(Mark(state=state))], newest.next_seq)
        except ConflictError:
            raise ConversationConflict(conversation_id) from None
        await self._shared.release(conversation_id)

    async def collect(self) -> int:
        """Complete deletions that a killed process left undone; return the number of threads that were deleted.

        Reads the newest message of each thread of the tenant.
        """
        deleted = 0
        async for thread in every_thread(self._store, self._log.tenant):
            try:
                newest = await self._log.newest(thread.key.thread_id)
            except (CorruptRecordError, UnsupportedError):
                continue
            if newest.state is not None and newest.state.deleted and not newest.tail:
                deleted += await self._shared.release(thread.key.thread_id)
        return deleted

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return an entry. One that this object has not met is searched for in all threads of the tenant.

        Raises:
            ThreadNotFoundError: It is not stored. Also a ``LookupError``.
        """
        return (await self.read_history(entry_id, limit=1))[0]

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """Return the entries up to ``head_id``, oldest first; with a limit the newest. Reads them in pages.

        Raises:
            CorruptRecordError: A record cannot be decoded.
            ThreadNotFoundError: An entry is not stored. Also a ``LookupError``.
            UnsupportedError: A message has another format.
        """
        if head_id is None or limit == 0:
            return []
        found = [entry async for entry in self._log.follow(head_id, limit)]
        found.reverse()
        return self._decoded(found)

    async def _listed(self, thread: Thread) -> ConversationRecord | None:
        try:
            return await self.read_record(thread.key.thread_id) if thread.count else None
        except (CorruptRecordError, UnsupportedError):
            return None

    def _decoded(self, found: Sequence[Entry]) -> list[ConversationEntry]:
        decoded: list[Any] = []
        start = 0
        for at, entry in enumerate(found):
            if at + 1 == len(found) or found[at + 1].place.thread != entry.place.thread:
                key = self._log.key(entry.place.thread)
                decoded += framework.decode([each.message for each in found[start : at + 1]], key)
                start = at + 1
        return [
            ConversationEntry(id=entry.id, parent_id=entry.parent_id, message=message)
            for entry, message in zip(found, decoded, strict=True)
        ]

    def _record_of(self, newest: Newest, thread: str) -> ConversationRecord | None:
        tip = self._log.tip_of(newest, thread)
        if newest.state is None or newest.state.deleted:
            if tip is None:
                return None
            record = ConversationRecord(conversation_id=thread, head_id=tip.id, revision="")
        else:
            try:
                record = _records.validate_json(bytes(newest.state.record))
            except ValidationError:
                raise CorruptRecordError(
                    f"The newest record of {self._log.key(thread)} is none that this release of Pydantic AI reads."
                ) from None
        # The thread may be a copy under another ID.
        record = replace(record, conversation_id=thread)
        if tip is None:
            return record
        stored = tip.message.created_ms
        updated = record.updated_at if stored is None else from_milliseconds(stored)
        return replace(record, head_id=tip.id, revision=f"{record.revision}@{newest.next_seq}", updated_at=updated)

    async def _title_of(self, record: ConversationRecord, turn: Sequence[NewMessage]) -> str | None:
        if record.forked_from is None or record.head_id is None:
            return codec.title_from(codec.view_of(codec.decode(each.payload), FORMAT) for each in turn)
        source = await retried(lambda: self._store.get_thread(self._log.key(str(record.forked_from))))
        return source.title if source else None

    async def _append(self, thread: str, turn: Sequence[NewMessage], next_seq: int, title: str | None = None) -> None:
        await append_with_retries(
            self._store,
            self._log.key(thread),
            turn,
            expected_seq=next_seq,
            retention=self._retention,
            default_title=title,
        )


def _turn(
    entries: Sequence[ConversationEntry], state: State, places: dict[str, Place], thread: str
) -> list[NewMessage]:
    if not entries:
        return [record_message(Mark(state=state))]
    turn: list[NewMessage] = []
    for at, entry in enumerate(entries, 1):
        parent = None if entry.parent_id is None else relative(places[entry.parent_id], thread)
        mark = Mark(entry.id, entry.parent_id, parent, state if at == len(entries) else None)
        turn.append(codec.new_message(marked(framework.encode(entry.message), mark), format=FORMAT))
    return turn


def _encoded(record: ConversationRecord) -> bytes:
    try:
        return _records.dump_json(record)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        reason = type(error).__name__
        raise InvalidMessageError(f"The framework has no JSON for a part of the record ({reason}).") from None
