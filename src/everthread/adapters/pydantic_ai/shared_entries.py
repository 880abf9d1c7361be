"""Which conversations need entries of which thread, so that no entry is deleted while another conversation needs it.

A conversation claims an entry of another thread with a document of that thread, before the append that uses it. A
deletion first marks the thread as deleted, and then looks for claims. So either the deletion finds the claim, or the
claim finds the mark and is taken back: no transaction across threads is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import time
from uuid import uuid4

from everthread.adapters.pydantic_ai.entry_log import EntryLog
from everthread.adapters.pydantic_ai.marks import (
    Mark,
    Newest,
    Place,
    Source,
    erased_payload,
    mark_of,
    record_message,
)
from everthread.adapters.retrying import append_with_retries, retried
from everthread.capabilities import SupportsRewrite, capability
from everthread.contract import Store, read_all
from everthread.errors import ConflictError, CorruptRecordError, ThreadNotFoundError, UnsupportedError
from everthread.messages import codec
from everthread.model import Document, Rewrite

CLAIM_PREFIX = "pydantic-ai:claim:"
"""The beginning of the names of documents that claim an entry of a thread."""

_ABANDONED_MS = 3_600_000
"""The age of a claim that no conversation uses, of a writer that was killed. A write takes seconds."""

_REWRITES_AT_ONCE = 100
_DELETED_TITLE = "(deleted)"


class SharedEntries:
    """The claims on the entries of the threads of one tenant."""

    def __init__(self, store: Store, log: EntryLog) -> None:
        self._store = store
        self._log = log

    async def claim(self, thread: str, places: Iterable[Place], claimed: Sequence[Source]) -> list[Source] | None:
        """Claim the places in other threads that are not claimed yet, for the conversation of a thread.

        Returns:
            The new claims; ``None`` if an entry is deleted, and nothing is claimed.
        """
        known = {Place(source.seq, source.thread) for source in claimed}
        added: list[Source] = []
        for place in dict.fromkeys(places):
            if place.thread == thread or place in known:
                continue
            source = Source(place.seq, place.thread, uuid4().hex)
            added.append(source)
            if not await self._claim(thread, source):
                await self.disclaim(added)
                return None
        return added

    async def disclaim(self, sources: Iterable[Source]) -> None:
        """Take claims back."""
        for source in sources:
            key, name = self._log.key(source.thread), _name(source)
            await retried(lambda key=key, name=name: self._store.delete_document(key, name))

    async def release(self, thread: str) -> int:
        """Delete the thread of a deleted conversation, and those that stayed only for it; return their number.

        If a conversation needs entries of the thread, erase the others.
        """
        deleted, waiting = 0, [thread]
        while waiting:
            each = waiting.pop()
            key, newest = self._log.key(each), await self._log.newest(each)
            if not _is_deleted(newest):
                continue
            if claims := await self._claims(each):
                await self._erase(each, claims, newest.next_seq)
                continue
            try:
                deleted += await self._store.delete_thread(key, expected_seq=newest.next_seq)
            except ConflictError:
                # A conversation claimed an entry, or began with the same ID.
                waiting.append(each)
                continue
            sources = newest.state.sources if newest.state else ()
            await self.disclaim(sources)
            waiting += {source.thread for source in sources}
        return deleted

    async def _claim(self, thread: str, source: Source) -> bool:
        key = self._log.key(source.thread)
        if await retried(lambda: self._store.get_thread(key)) is None:
            return False
        value = codec.encode({"conversation": thread, "seq": source.seq})
        await retried(lambda: self._store.put_document(key, _name(source), value))
        while True:
            newest = await self._log.newest(source.thread)
            if newest.state is None and not newest.tail:
                # The thread was deleted before the document was stored, which made an empty one.
                with suppress(ConflictError):
                    await self._store.delete_thread(key, expected_seq=newest.next_seq)
                return False
            if not await self._is_there(source):
                return False
            if not _is_deleted(newest):
                return True
            # The thread stays for other conversations: only the entries that they reach can be claimed.
            others = [each for each in await self._claims(source.thread) if each.token != source.token]
            if source.seq not in await self._reached(source.thread, others):
                return False
            try:
                # A deletion that has not seen the claim deletes only at the former position.
                again = record_message(Mark(state=newest.state))
                await append_with_retries(self._store, key, [again], expected_seq=newest.next_seq)
                return True
            except ConflictError:
                continue

    async def _is_there(self, source: Source) -> bool:
        key = self._log.key(source.thread)
        page = await retried(lambda: self._store.read_last(key, 1, before=source.seq + 1))
        return bool(page) and page[0].seq == source.seq and not mark_of(page[0], key).erased

    async def _claims(self, thread: str) -> list[Source]:
        """Return the claims on a thread that a conversation uses, or may be about to use."""
        key, found = self._log.key(thread), list[Source]()
        for name in await retried(lambda: self._store.list_documents(key)):
            if not name.startswith(CLAIM_PREFIX):
                continue
            document = await retried(lambda name=name: self._store.get_document(key, name))
            if document is None:
                continue
            source, conversation = _source(document, thread)
            if await self._is_used(source, conversation):
                found.append(source)
            elif document.updated_ms < time() * 1000 - _ABANDONED_MS:
                await retried(lambda name=name: self._store.delete_document(key, name))
            else:
                found.append(source)
        return found

    async def _is_used(self, source: Source, conversation: str) -> bool:
        if not conversation:
            return False
        try:
            newest = await self._log.newest(conversation)
        except (CorruptRecordError, UnsupportedError):
            # It may use them: nothing is deleted.
            return True
        return newest.state is not None and source in newest.state.sources

    async def _reached(self, thread: str, claims: Iterable[Source]) -> set[int]:
        """Return the positions of the entries of a thread that claims reach."""
        reached: set[int] = set()
        for source in claims:
            try:
                async for entry in self._log.follow(Place(source.seq, thread)):
                    if entry.place.thread == thread:
                        reached.add(entry.place.seq)
            except ThreadNotFoundError:
                continue
        return reached

    async def _erase(self, thread: str, claims: Sequence[Source], next_seq: int) -> None:
        """Erase the content of the messages that no claim reaches, and the title."""
        rewriting, key = capability(self._store, SupportsRewrite), self._log.key(thread)
        if rewriting is None:
            return
        reached = await self._reached(thread, claims)
        if (await retried(lambda: self._store.read_last(key, 0))).next_seq != next_seq:
            return
        changes: list[Rewrite] = []
        async for message in read_all(self._store, key):
            if message.seq >= next_seq:
                # A new conversation of the same ID began.
                break
            mark = mark_of(message, key)
            if message.seq in reached or mark.erased or (mark.state is not None and mark.state.deleted):
                continue
            changes.append(Rewrite(message.seq, message.payload, erased_payload(mark, key)))
            if len(changes) == _REWRITES_AT_ONCE:
                await rewriting.rewrite(key, changes)
                changes.clear()
        if changes:
            await rewriting.rewrite(key, changes)
        # Another deletion may have deleted the thread by now.
        with suppress(ThreadNotFoundError):
            await self._store.update_thread(key, title=_DELETED_TITLE)


def _is_deleted(newest: Newest) -> bool:
    return newest.state is not None and newest.state.deleted and not newest.tail


def _name(source: Source) -> str:
    return f"{CLAIM_PREFIX}{source.token}"


def _source(document: Document, thread: str) -> tuple[Source, str]:
    value = codec.as_object(codec.decode(document.value))
    seq = value.get("seq")
    token = document.name.removeprefix(CLAIM_PREFIX)
    return Source(seq if isinstance(seq, int) else -1, thread, token), codec.as_text(value.get("conversation"))
