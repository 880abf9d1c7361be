"""Requests that change or delete."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from everthread.errors import ConflictError
from everthread.listing import existing_thread, undo
from everthread.model import MAX_IDENTIFIER_BYTES, MAX_SEQ, ThreadKey
from everthread.operations import fork as forking
from everthread.server.api.calls import Call, Nothing, changed
from everthread.server.api.objects import ApiThread, DeletedThread, ForkedThread, UndoneTurns, api_thread
from everthread.server.problems import ProblemError


class ChangeThread(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Change the title and the metadata of a thread. Fields that are not given stay unchanged."""

    title: Annotated[str | None, Meta(description="The new title; empty to remove it.")] = None
    metadata: Annotated[dict[str, Any], Meta(description="Metadata to set.")] = {}
    remove: Annotated[tuple[str, ...], Meta(description="Keys of metadata to remove.")] = ()


class ForkThread(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Begin a new thread with the first messages of this one. Repeat a request that failed: it continues."""

    thread_id: Annotated[str, Meta(min_length=1, max_length=MAX_IDENTIFIER_BYTES, description="ID of the new thread.")]
    at: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_SEQ)] | None,
        Meta(description="Position before which the copy ends; null: all messages."),
    ] = None


class UndoTurns(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Remove the last turns of a thread permanently. Needs If-Match, so that a repeated request removes no more."""

    turns: Annotated[int, Meta(ge=1, le=1_000, description="The number of turns.")] = 1


async def change_thread(call: Call, asked: ChangeThread) -> ApiThread:
    """Change a thread, also if other writers change it at the same time."""
    dropped = set(asked.remove)
    while True:
        thread = await existing_thread(call.store, call.key)
        call.check_condition(thread)
        kept = {name: value for name, value in thread.metadata.items() if name not in dropped}
        metadata = {**kept, **asked.metadata} if asked.metadata or dropped else None
        if metadata is None and asked.title is None:
            return api_thread(thread)
        try:
            done = await call.store.update_thread(
                call.key, title=asked.title, metadata=metadata, expected_revision=thread.revision
            )
        except ConflictError:
            # Another change succeeded, so all writers together make progress.
            continue
        return api_thread(done)


async def delete_thread(call: Call, asked: Nothing) -> DeletedThread:
    """Delete a thread."""
    expected = None
    if call.has_condition:
        thread = await call.store.get_thread(call.key)
        call.check_condition(thread)
        expected = None if thread is None else thread.next_seq
    try:
        existed = await call.store.delete_thread(call.key, expected_seq=expected)
    except ConflictError:
        raise changed() from None
    return DeletedThread(thread_id=call.key.thread_id, existed=existed)


async def fork_thread(call: Call, asked: ForkThread) -> ForkedThread:
    """Fork a thread."""
    target = ThreadKey(asked.thread_id)
    # Results carry the tenant's own name, and the document of a fork has it.
    source = (await existing_thread(call.store, call.key)).key
    forked = await forking.fork(call.store, source, ThreadKey(target.thread_id, source.tenant), at=asked.at)
    return ForkedThread(
        thread=api_thread(await existing_thread(call.store, target)),
        source=source.thread_id,
        stop=forked.stop,
        copied=forked.messages,
        resumed=forked.resumed,
        unreadable=[each.seq for each in forked.unreadable],
    )


async def undo_turns(call: Call, asked: UndoTurns) -> UndoneTurns:
    """Remove the last turns of a thread."""
    if not call.has_condition:
        detail = "Send If-Match with the ETag of the thread, so that a repeated request removes no further turn."
        raise ProblemError(HTTPStatus.PRECONDITION_REQUIRED, "PreconditionRequired", detail)
    thread = await existing_thread(call.store, call.key)
    call.check_condition(thread)
    try:
        removed = await undo(call.store, call.key, asked.turns, expected_seq=thread.next_seq)
    except ConflictError:
        raise changed() from None
    return UndoneTurns(thread=api_thread(await existing_thread(call.store, call.key)), removed=removed.removed)
