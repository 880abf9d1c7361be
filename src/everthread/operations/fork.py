"""Copy the beginning of a thread into a new one: to try another answer, to continue from an older state, or to continue
in another framework.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from hashlib import sha256

import msgspec

from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError
from everthread.listing import existing_thread, read_turns, safe_cut
from everthread.model import Appended, Document, Message, NewMessage, ThreadKey, check_count
from everthread.operations.converted_turns import ConvertedTurns, Lost
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
        lost: The parts of messages that the format of the copy does not express.
    """

    key: ThreadKey
    stop: int
    messages: int
    resumed: bool = False
    unreadable: tuple[Unreadable, ...] = ()
    lost: tuple[Lost, ...] = ()


class _Origin(msgspec.Struct, frozen=True):
    """The content of the document: enough to resume the fork, and to recognize it."""

    tenant: str
    thread_id: str
    asked: int | None
    stop: int
    head_seq: int
    messages: int | None = None
    format: str | None = None
    lost: tuple[Lost, ...] = ()


async def fork(
    store: Store, source: ThreadKey, target: ThreadKey, *, at: int | None = None, format: str | None = None
) -> Forked:
    """Copy a thread up to a position into a new one, turn by turn, with title, metadata and times of messages.

    The positions of the copy count from 0. The copy begins now, and gets the source's own retention if it has one.
    Documents are not copied: summaries and snapshots refer to positions of the source. After any failure, call it again
    with the same arguments: it resumes the copy, and does nothing once the copy is complete, also if messages were
    appended to it. Unreadable records are skipped and reported.

    With a format, messages of other formats are converted. Parts that the format does not express are dropped or
    rewritten as `everthread.messages.converting.support` describes, and reported. In the copy each tool call has a
    result, and each result a call.

    Args:
        store: The store.
        source: The thread to copy.
        target: The new thread.
        at: Copy the messages before this position. Default: all.
        format: The format of the copy, such as ``"openai-responses"``. Default: each message keeps its own.

    Raises:
        ThreadNotFoundError: There is no such source.
        ConfigurationError: ``at`` is beyond the end of the source, or nothing converts to the format.
        ConflictError: The target exists and is not this fork, or the source was trimmed after an interrupted copy.
    """
    unreadable: list[Unreadable] = []
    turns = ConvertedTurns(source, format, unreadable.append)
    begun = await _begun(store, source, target, at, format)
    if begun is not None and begun.messages is not None:
        return Forked(target, begun.stop, begun.messages, resumed=True, lost=begun.lost)
    origin = begun or await _new_origin(store, source, target, at, format)
    if begun is None:
        await store.put_document(target, DOCUMENT, _encoded(origin), expected_revision=0)
    own = (await existing_thread(store, source)).retention
    if own is not None:
        # Before the messages: a copy that is never completed must expire too.
        await store.update_thread(target, retention=own)
    copied = await _copy_messages(store, source, target, origin, turns)
    lost = tuple(turns.lost)
    thread = await existing_thread(store, source)
    await store.update_thread(target, title=thread.title, metadata=thread.metadata)
    await store.put_document(target, DOCUMENT, _encoded(msgspec.structs.replace(origin, messages=copied, lost=lost)))
    return Forked(target, origin.stop, copied, resumed=begun is not None, unreadable=tuple(unreadable), lost=lost)


async def plan(
    store: Store, source: ThreadKey, target: ThreadKey, *, at: int | None = None, format: str | None = None
) -> Forked:
    """Return the result that `fork` would have, without writing. Raises the same errors."""
    unreadable: list[Unreadable] = []
    turns = ConvertedTurns(source, format, unreadable.append)
    begun = await _begun(store, source, target, at, format)
    origin = begun or await _new_origin(store, source, target, at, format)
    messages, lost = origin.messages, origin.lost
    if messages is None:
        messages = 0
        async for turn in turns.of(_turns(store, source, origin.stop, unreadable.append)):
            messages += len(turn)
        lost = tuple(turns.lost)
    return Forked(target, origin.stop, messages, resumed=begun is not None, unreadable=tuple(unreadable), lost=lost)


async def _begun(
    store: Store, source: ThreadKey, target: ThreadKey, at: int | None, format: str | None
) -> _Origin | None:
    check_count(at, "at", optional=True)
    document = await store.get_document(target, DOCUMENT)
    return None if document is None else _known_origin(document, source, target, at, format)


async def _new_origin(
    store: Store, source: ThreadKey, target: ThreadKey, at: int | None, format: str | None
) -> _Origin:
    thread = await existing_thread(store, source)
    if at is not None and at > thread.next_seq:
        raise ConfigurationError(f"Cannot fork at position {at:,}: {source} ends at position {thread.next_seq:,}.")
    if await store.get_thread(target) is not None:
        raise ConflictError(f"There is a {target} already, and it is not a fork of {source}.", 0)
    stop = thread.next_seq if at is None or at >= thread.next_seq else await safe_cut(store, source, at)
    return _Origin(source.tenant, source.thread_id, at, stop, thread.head_seq, format=format)


def _known_origin(
    document: Document, source: ThreadKey, target: ThreadKey, at: int | None, format: str | None
) -> _Origin:
    try:
        origin = msgspec.json.decode(document.value, type=_Origin)
    except msgspec.DecodeError:
        origin = None
    asked = (source.tenant, source.thread_id, at, format)
    if origin is None or (origin.tenant, origin.thread_id, origin.asked, origin.format) != asked:
        raise ConflictError(f"There is a {target} already, and it is another fork.", document.revision)
    return origin


def _encoded(origin: _Origin) -> bytes:
    return msgspec.json.encode(origin)


async def _copy_messages(
    store: Store, source: ThreadKey, target: ThreadKey, origin: _Origin, turns: ConvertedTurns
) -> int:
    """Copy the messages that the target lacks; return the number of all copied messages.

    Expected positions and append IDs prevent double writes, also by two processes.
    """
    next_seq = (await existing_thread(store, target)).next_seq
    if next_seq:
        await _check_unchanged(store, source, target, origin)
    name = sha256(_encoded(origin)).hexdigest()[:32]

    async def append(batch: list[list[NewMessage]], seq: int) -> int:
        appends: list[Coroutine[None, None, Appended]] = []
        for turn in batch:
            appends.append(store.append(target, turn, append_id=f"fork:{name}:{seq}", expected_seq=seq))
            seq += len(turn)
        for outcome in await asyncio.gather(*appends, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return seq

    skip, batch = next_seq, list[list[NewMessage]]()
    async for turn in turns.of(_turns(store, source, origin.stop, turns.on_unreadable)):
        wanted = turn[skip:]
        skip = max(skip - len(turn), 0)
        if wanted:
            batch.append(wanted)
        if len(batch) == _TURNS_AT_ONCE:
            next_seq, batch = await append(batch, next_seq), []
    return await append(batch, next_seq)


async def _check_unchanged(store: Store, source: ThreadKey, target: ThreadKey, origin: _Origin) -> None:
    """Check that the messages of the copy are still the first of the source."""
    thread = await existing_thread(store, source)
    if thread.head_seq != origin.head_seq:
        raise ConflictError(
            f"{source} was trimmed while its fork {target} was incomplete: delete the fork and fork again.",
            thread.head_seq,
        )


async def _turns(
    store: Store, source: ThreadKey, stop: int, on_unreadable: OnUnreadable
) -> AsyncIterator[list[Message]]:
    """Yield the turns before ``stop``."""
    async for turn in read_turns(store, source, on_unreadable=on_unreadable):
        if turn[0].seq >= stop:
            break
        yield [message for message in turn if message.seq < stop]
