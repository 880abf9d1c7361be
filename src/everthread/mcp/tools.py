"""The tools: the arguments of each, and the function that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from everthread.contract import Store
from everthread.errors import ConfigurationError, ThreadNotFoundError
from everthread.listing import MessageFilter, existing_thread, tag_thread, title_of
from everthread.mcp import results
from everthread.model import MAX_IDENTIFIER_BYTES, MAX_SEQ, ThreadKey
from everthread.operations.search import continued_search
from everthread.readable import Unreadable, read_around, read_last_around

if TYPE_CHECKING:
    from everthread.recall import Recalled

SEARCH_SECONDS = 10
"""The time after which a search returns what it found, and a cursor."""

ThreadId = Annotated[str, Meta(min_length=1, max_length=MAX_IDENTIFIER_BYTES, description="ID of the thread.")]
Limit = Annotated[int, Meta(ge=1, le=50, description="The most entries of the page.")]
Seq = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
Cursor = Annotated[
    Annotated[str, Meta(max_length=20_000)] | None, Meta(description="The `cursor` of the previous page.")
]
Position = Annotated[Seq, Meta(description="Position of the message.")]


class Arguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The base of the arguments of a tool."""


class ListThreads(Arguments):
    """List threads, the newest activity first."""

    limit: Limit = 20
    cursor: Cursor = None


class SearchMessages(Arguments):
    """Find messages in all threads by their words.

    A message must contain all words; words in double quotes must follow one another. Case is ignored. Continue with
    `cursor` until it is null: a search without an index stops after some seconds.
    """

    query: Annotated[str, Meta(min_length=1, max_length=1000, description="The words.")]
    limit: Limit = 20
    cursor: Cursor = None
    since: Annotated[datetime | None, Meta(description="Only messages stored at this time or later.")] = None
    until: Annotated[datetime | None, Meta(description="Only messages stored before this time.")] = None
    roles: Annotated[tuple[Literal["user", "assistant", "tool", "system"], ...], Meta(max_length=4)] = ()


class RecallTurns(Arguments):
    """Find turns in all threads by their meaning, the nearest first.

    For what was said in other words. search_messages finds every message that contains a word.
    """

    question: Annotated[
        str, Meta(min_length=1, max_length=1000, description="A question or a description, in plain words.")
    ]
    limit: Limit = 10
    since: Annotated[datetime | None, Meta(description="Only messages stored at this time or later.")] = None
    until: Annotated[datetime | None, Meta(description="Only messages stored before this time.")] = None


class ReadThread(Arguments):
    """Read messages of a thread, oldest first: the newest ones, or those before or from a position.

    Long messages are shortened; read_message returns all of one.
    """

    thread_id: ThreadId
    limit: Limit = 20
    before: Annotated[Seq | None, Meta(description="Read the messages before this position.")] = None
    start: Annotated[Seq | None, Meta(description="Read the messages from this position on.")] = None


class ReadMessage(Arguments):
    """Read the stored JSON of one message, in parts."""

    thread_id: ThreadId
    seq: Position
    offset: Annotated[Seq, Meta(description="First character of the JSON to return.")] = 0


class RenameThread(Arguments):
    """Change the title of a thread."""

    thread_id: ThreadId
    title: Annotated[str, Meta(max_length=500, description="The new title; empty to remove it.")]


class TagThread(Arguments):
    """Set and remove metadata of a thread. Other metadata stays."""

    thread_id: ThreadId
    values: Annotated[dict[str, str | int | float | bool], Meta(max_length=50, description="Metadata to set.")] = {}
    remove: Annotated[tuple[str, ...], Meta(max_length=50, description="Keys to remove.")] = ()


class DeleteThread(Arguments):
    """Delete a thread with all its messages. It cannot be undone."""

    thread_id: ThreadId
    next_seq: Annotated[Seq, Meta(description="The `next_seq` of list_threads: it fails if the thread grew since.")]


async def _list(store: Store, asked: ListThreads) -> results.ThreadPage:
    page = await store.list_threads(limit=asked.limit, cursor=asked.cursor)
    threads = [results.listed(thread, await title_of(store, thread)) for thread in page]
    return results.ThreadPage(threads=threads, cursor=page.cursor)


async def _search(store: Store, asked: SearchMessages) -> results.FoundPage:
    findings = await continued_search(
        store,
        "",
        asked.query,
        limit=asked.limit,
        cursor=asked.cursor,
        seconds=SEARCH_SECONDS,
        only=MessageFilter(asked.since, asked.until, asked.roles),
    )
    return results.FoundPage(
        found=[results.found(hit) for hit in findings.hits],
        cursor=findings.cursor,
        unreadable=results.not_searched(findings.unreadable),
    )


async def _read(store: Store, asked: ReadThread) -> results.MessagePage:
    key = ThreadKey(asked.thread_id)
    if asked.start is not None and asked.before is not None:
        raise ConfigurationError("Give start or before, not both.")
    bad: list[Unreadable] = []
    if asked.start is not None:
        page = await read_around(store, key, start=asked.start, limit=asked.limit, on_unreadable=bad.append)
    else:
        page = await read_last_around(store, key, asked.limit, before=asked.before, on_unreadable=bad.append)
    if not page.next_seq:
        await existing_thread(store, key)
    messages = [results.shown(key, message) for message in page] + list(map(results.missing, bad))
    messages.sort(key=lambda each: each.seq)
    is_newest = asked.start is None
    messages = results.fitting(reversed(messages))[::-1] if is_newest else results.fitting(messages)
    first, last = (messages[0].seq, messages[-1].seq) if messages else (page.head_seq, page.next_seq)
    return results.MessagePage(
        thread_id=asked.thread_id,
        messages=messages,
        before=first if first > page.head_seq else None,
        start=last + 1 if last + 1 < page.next_seq else None,
    )


async def _read_one(store: Store, asked: ReadMessage) -> results.StoredPart:
    key = ThreadKey(asked.thread_id)
    for message in await store.read(key, start=asked.seq, stop=asked.seq + 1):
        return results.part(key, message, asked.offset)
    await existing_thread(store, key)
    raise ThreadNotFoundError(f"{key} has no message at position {asked.seq}.")


async def _rename(store: Store, asked: RenameThread) -> results.ChangedThread:
    thread = await store.update_thread(ThreadKey(asked.thread_id), title=asked.title)
    return results.ChangedThread(thread=results.listed(thread, thread.title))


async def _tag(store: Store, asked: TagThread) -> results.ChangedThread:
    thread = await tag_thread(store, ThreadKey(asked.thread_id), asked.values, remove=asked.remove)
    return results.ChangedThread(thread=results.listed(thread, thread.title))


async def _delete(store: Store, asked: DeleteThread) -> results.DeletedThread:
    deleted = await store.delete_thread(ThreadKey(asked.thread_id), expected_seq=asked.next_seq)
    return results.DeletedThread(thread_id=asked.thread_id, deleted=deleted)


class ThreadTool(NamedTuple):
    """A tool: its arguments and result, and the function between them. Every store it gets is a view of one tenant."""

    arguments: type[Arguments]
    result: type[msgspec.Struct]
    answer: Callable[[Store, Any], Awaitable[msgspec.Struct]]
    writes: bool = False
    destroys: bool = False


Recall: TypeAlias = "Callable[[str, int, datetime | None, datetime | None], Awaitable[Sequence[Recalled]]]"
"""Finds turns of the server's tenant: question, limit, since, until."""


def recall_tool(recall: Recall) -> ThreadTool:
    """Return the tool that finds turns by their meaning."""

    async def answer(_: Store, asked: RecallTurns) -> results.RecalledTurns:
        found = await recall(asked.question, asked.limit, asked.since, asked.until)
        return results.RecalledTurns(turns=[results.recalled(each) for each in found])

    return ThreadTool(RecallTurns, results.RecalledTurns, answer)


TOOLS = {
    "list_threads": ThreadTool(ListThreads, results.ThreadPage, _list),
    "search_messages": ThreadTool(SearchMessages, results.FoundPage, _search),
    "read_thread": ThreadTool(ReadThread, results.MessagePage, _read),
    "read_message": ThreadTool(ReadMessage, results.StoredPart, _read_one),
    "rename_thread": ThreadTool(RenameThread, results.ChangedThread, _rename, writes=True),
    "tag_thread": ThreadTool(TagThread, results.ChangedThread, _tag, writes=True),
    "delete_thread": ThreadTool(DeleteThread, results.DeletedThread, _delete, writes=True, destroys=True),
}
"""The tools by name."""
