"""A new thread that begins like another one: to try a different answer, or to go on from an older state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from hashlib import sha256

import msgspec

from everthread.codec import new_message
from everthread.contract import Store
from everthread.errors import ConflictError
from everthread.model import Appended, Document, Message, NewMessage, ThreadKey, check_count
from everthread.threads import existing_thread, read_turns, safe_cut

DOCUMENT = "everthread.fork"
"""The new thread's document that says what it was forked from."""

_TURNS_AT_ONCE = 100
"""So many appends wait together, so that engines can send them together."""


class Forked(msgspec.Struct, frozen=True):
    """What a fork did.

    Attributes:
        key: The new thread.
        stop: The copy ends before this position of the source; lower than what was asked for where a
            tool call would have lost its result.
        messages: How many messages were copied.
        resumed: An earlier call had begun or finished it.
    """

    key: ThreadKey
    stop: int
    messages: int
    resumed: bool = False


class _Origin(msgspec.Struct, frozen=True):
    """What the document holds: enough to go on after the process was killed, and to know the fork again."""

    tenant: str
    thread_id: str
    asked: int | None
    stop: int
    head_seq: int
    messages: int | None = None


async def fork(store: Store, source: ThreadKey, target: ThreadKey, *, at: int | None = None) -> Forked:
    """Copies a thread up to a position into a new one, turn by turn, with title, metadata and messages' times.

    The copy's positions count from 0. It is a thread that begins now, and what is kept of it follows from the
    retention in force: the source's own if it has one, which it gets too, or else the store's. Documents are not
    copied: summaries and snapshots speak of the source's positions. May be called again after any failure, with the
    same arguments: it goes on where it was, and does nothing once the copy is complete, whatever was said in it since.

    Args:
        at: Copy the messages before this position; all if not given.

    Raises:
        ThreadNotFoundError: There is no such source.
        ConflictError: The target exists and is not this fork, or the source was trimmed while an
            interrupted copy waited.
    """
    begun = await _begun(store, source, target, at)
    if begun is not None and begun.messages is not None:
        return Forked(target, begun.stop, begun.messages, resumed=True)
    origin = begun or await _new_origin(store, source, target, at)
    if begun is None:
        await store.put_document(target, DOCUMENT, _encoded(origin), expected_revision=0)
    own = (await existing_thread(store, source)).retention
    if own is not None:
        # Before the messages: what must be forgotten in time must be so in a copy that is never completed.
        await store.update_thread(target, retention=own)
    copied = await _copy_messages(store, source, target, origin)
    thread = await existing_thread(store, source)
    await store.update_thread(target, title=thread.title, metadata=thread.metadata)
    await store.put_document(target, DOCUMENT, _encoded(msgspec.structs.replace(origin, messages=copied)))
    return Forked(target, origin.stop, copied, resumed=begun is not None)


async def plan(store: Store, source: ThreadKey, target: ThreadKey, *, at: int | None = None) -> Forked:
    """What `fork` would do and give, without writing anything. Raises what it would raise."""
    begun = await _begun(store, source, target, at)
    origin = begun or await _new_origin(store, source, target, at)
    messages = origin.messages
    if messages is None:
        messages = 0
        async for batch in _batches(store, source, origin.stop, skip=0):
            messages += sum(map(len, batch))
    return Forked(target, origin.stop, messages, resumed=begun is not None)


async def _begun(store: Store, source: ThreadKey, target: ThreadKey, at: int | None) -> _Origin | None:
    check_count(at, "at", optional=True)
    document = await store.get_document(target, DOCUMENT)
    return None if document is None else _known_origin(document, source, target, at)


async def _new_origin(store: Store, source: ThreadKey, target: ThreadKey, at: int | None) -> _Origin:
    thread = await existing_thread(store, source)
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


async def _copy_messages(store: Store, source: ThreadKey, target: ThreadKey, origin: _Origin) -> int:
    """Copies what the target lacks; gives how many messages it then has got in all.

    Expected positions and append ids keep everything from being written twice, also by two processes.
    """
    next_seq = (await existing_thread(store, target)).next_seq
    if next_seq:
        await _check_unchanged(store, source, target, origin)
    name = sha256(_encoded(origin)).hexdigest()[:32]
    async for batch in _batches(store, source, origin.stop, skip=next_seq):
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
    """Makes sure that the copy so far can be counted off from the source's messages."""
    thread = await existing_thread(store, source)
    if thread.head_seq != origin.head_seq:
        raise ConflictError(
            f"{source} was trimmed while its fork {target} was incomplete: delete the fork and begin again.",
            thread.head_seq,
        )


async def _batches(store: Store, source: ThreadKey, stop: int, *, skip: int) -> AsyncIterator[list[list[Message]]]:
    """The turns before ``stop``, without the first ``skip`` messages, some at a time."""
    batch: list[list[Message]] = []
    async for turn in read_turns(store, source):
        if turn[0].seq >= stop:
            break
        wanted = [message for message in turn[skip:] if message.seq < stop]
        skip = max(skip - len(turn), 0)
        if wanted:
            batch.append(wanted)
        if len(batch) == _TURNS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _copy_of(message: Message) -> NewMessage:
    return new_message(message.payload, format=message.format, created_at=message.created_at)
