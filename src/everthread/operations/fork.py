"""Copy the beginning of a thread into a new one: to try another answer, or to continue from an older state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from hashlib import sha256

import msgspec

from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, InvalidMessageError
from everthread.listing import existing_thread, read_turns, safe_cut
from everthread.messages.codec import decode_as_text, encode, new_message
from everthread.model import Appended, Document, Message, NewMessage, ThreadKey, check_count
from everthread.readable import OnUnreadable, Unreadable

DOCUMENT = "everthread.fork"
"""The name of the document of the new thread that has its origin."""

_TURNS_AT_ONCE = 100
"""The number of concurrent appends: engines send them together."""


class Forked(msgspec.Struct, frozen=True):
    """The result of a fork.

    Attributes:
        key: The new thread.
        stop: The copy ends before this position of the source. It is lower than ``at`` if a tool call would lose its
            result otherwise.
        messages: The number of copied messages.
        resumed: An earlier call began or completed the fork.
        unreadable: The records that this call could not copy.
    """

    key: ThreadKey
    stop: int
    messages: int
    resumed: bool = False
    unreadable: tuple[Unreadable, ...] = ()


class _Origin(msgspec.Struct, frozen=True):
    """The content of the document: enough to resume the fork, and to recognize it."""

    tenant: str
    thread_id: str
    asked: int | None
    stop: int
    head_seq: int
    messages: int | None = None


async def fork(store: Store, source: ThreadKey, target: ThreadKey, *, at: int | None = None) -> Forked:
    """Copy a thread up to a position into a new one, turn by turn, with title, metadata and times of messages.

    The positions of the copy count from 0. The copy begins now, and gets the source's own retention if it has one.
    Documents are not copied: summaries and snapshots refer to positions of the source. After any failure, call it again
    with the same arguments: it resumes the copy, and does nothing once the copy is complete, also if messages were
    appended to it. Unreadable records are skipped and reported.

    Args:
        store: The store.
        source: The thread to copy.
        target: The new thread.
        at: Copy the messages before this position. Default: all.

    Raises:
        ThreadNotFoundError: There is no such source.
        ConfigurationError: ``at`` is beyond the end of the source.
        ConflictError: The target exists and is not this fork, or the source was trimmed after an interrupted copy.
    """
    begun = await _begun(store, source, target, at)
    if begun is not None and begun.messages is not None:
        return Forked(target, begun.stop, begun.messages, resumed=True)
    origin = begun or await _new_origin(store, source, target, at)
    if begun is None:
        await store.put_document(target, DOCUMENT, _encoded(origin), expected_revision=0)
    own = (await existing_thread(store, source)).retention
    if own is not None:
        # Before the messages: a copy that is never completed must expire too.
        await store.update_thread(target, retention=own)
    unreadable: list[Unreadable] = []
    copied = await _copy_messages(store, source, target, origin, unreadable.append)
    thread = await existing_thread(store, source)
    await store.update_thread(target, title=thread.title, metadata=thread.metadata)
    await store.put_document(target, DOCUMENT, _encoded(msgspec.structs.replace(origin, messages=copied)))
    return Forked(target, origin.stop, copied, resumed=begun is not None, unreadable=tuple(unreadable))


async def plan(store: Store, source: ThreadKey, target: ThreadKey, *, at: int | None = None) -> Forked:
    """Return the result that `fork` would have, without writing. Raises the same errors."""
    begun = await _begun(store, source, target, at)
    origin = begun or await _new_origin(store, source, target, at)
    messages, unreadable = origin.messages, list[Unreadable]()
    if messages is None:
        messages = 0
        async for batch in _batches(store, source, origin.stop, skip=0, on_unreadable=unreadable.append):
            messages += sum(map(len, batch))
    return Forked(target, origin.stop, messages, resumed=begun is not None, unreadable=tuple(unreadable))


async def _begun(store: Store, source: ThreadKey, target: ThreadKey, at: int | None) -> _Origin | None:
    check_count(at, "at", optional=True)
    document = await store.get_document(target, DOCUMENT)
    return None if document is None else _known_origin(document, source, target, at)


async def _new_origin(store: Store, source: ThreadKey, target: ThreadKey, at: int | None) -> _Origin:
    thread = await existing_thread(store, source)
    if at is not None and at > thread.next_seq:
        raise ConfigurationError(f"Cannot fork at position {at:,}: {source} ends at position {thread.next_seq:,}.")
    if await store.get_thread(target) is not None:
        raise ConflictError(f"There is a {target} already, and it is not a fork of {source}.", 0)
    stop = thread.next_seq if at is None or at >= thread.next_seq else await safe_cut(store, source, at)
    return _Origin(source.tenant, source.thread_id, at, stop, thread.head_seq)


def _known_origin(document: Document, source: ThreadKey, target: ThreadKey, at: int | None) -> _Origin:
    try:
        origin = msgspec.json.decode(document.value, type=_Origin)
    except msgspec.DecodeError:
        origin = None
    if origin is None or (origin.tenant, origin.thread_id, origin.asked) != (source.tenant, source.thread_id, at):
        raise ConflictError(f"There is a {target} already, and it is another fork.", document.revision)
    return origin


def _encoded(origin: _Origin) -> bytes:
    return msgspec.json.encode(origin)


async def _copy_messages(
    store: Store, source: ThreadKey, target: ThreadKey, origin: _Origin, on_unreadable: OnUnreadable
) -> int:
    """Copy the messages that the target lacks; return the number of all copied messages.

    Expected positions and append IDs prevent double writes, also by two processes.
    """
    next_seq = (await existing_thread(store, target)).next_seq
    if next_seq:
        await _check_unchanged(store, source, target, origin)
    name = sha256(_encoded(origin)).hexdigest()[:32]
    async for batch in _batches(store, source, origin.stop, skip=next_seq, on_unreadable=on_unreadable):
        appends: list[Coroutine[None, None, Appended]] = []
        for turn in batch:
            copies = [_copy_of(message) for message in turn]
            append_id = f"fork:{name}:{turn[0].seq}"
            appends.append(store.append(target, copies, append_id=append_id, expected_seq=next_seq))
            next_seq += len(turn)
        for outcome in await asyncio.gather(*appends, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
    return next_seq


async def _check_unchanged(store: Store, source: ThreadKey, target: ThreadKey, origin: _Origin) -> None:
    """Check that the messages of the copy are still the first of the source."""
    thread = await existing_thread(store, source)
    if thread.head_seq != origin.head_seq:
        raise ConflictError(
            f"{source} was trimmed while its fork {target} was incomplete: delete the fork and fork again.",
            thread.head_seq,
        )


async def _batches(
    store: Store, source: ThreadKey, stop: int, *, skip: int, on_unreadable: OnUnreadable
) -> AsyncIterator[list[list[Message]]]:
    """Yield the turns before ``stop`` that can be copied, without the first ``skip`` messages, some at a time."""
    batch: list[list[Message]] = []
    async for turn in read_turns(store, source, on_unreadable=on_unreadable):
        if turn[0].seq >= stop:
            break
        fit = [message for message in turn if message.seq < stop and _can_be_copied(message, source, on_unreadable)]
        wanted = fit[skip:]
        skip = max(skip - len(fit), 0)
        if wanted:
            batch.append(wanted)
        if len(batch) == _TURNS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _copy_of(message: Message) -> NewMessage:
    try:
        return new_message(message.payload, format=message.format, created_at=message.created_at)
    except InvalidMessageError:
        # Another program's NaN or lone surrogate.
        value = encode(decode_as_text(message))
        return new_message(value, format=message.format, created_at=message.created_at)


def _can_be_copied(message: Message, source: ThreadKey, on_unreadable: OnUnreadable) -> bool:
    try:
        _copy_of(message)
    except (CorruptRecordError, InvalidMessageError) as error:
        on_unreadable(Unreadable(source, message.seq, str(error)))
        return False
    return True
