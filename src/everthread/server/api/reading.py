"""Requests that read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from everthread.contract import Store
from everthread.errors import CorruptRecordError, ThreadNotFoundError
from everthread.json_form import (
    RawMessage,
    ShownMessage,
    found_message,
    raw_message,
    shown_message,
    unreadable_record,
)
from everthread.listing import ALL_THREADS, MessageFilter, ThreadFilter, existing_thread, passes
from everthread.messages.codec import View, view
from everthread.model import MAX_SEQ, Message, Thread, ThreadKey, to_milliseconds
from everthread.model import MessagePage as StoredPage
from everthread.operations.search import continued_search
from everthread.readable import Unreadable, read_around, read_last_around
from everthread.server.api.ag_ui import ag_ui_messages, shared_state
from everthread.server.api.calls import Call, Nothing, invalid
from everthread.server.api.objects import (
    AgUiMessagePage,
    ApiThread,
    FoundPage,
    MessagePage,
    RawMessagePage,
    ThreadPage,
    api_thread,
)
from everthread.server.api.paths import segment_of
from everthread.transfer.exporting import thread_parts
from everthread.transfer.rendering import FORMS

SEARCH_SECONDS = 10
"""The time after which a search returns what it found, and a cursor."""
FILTER_SECONDS = 5
"""The time after which a filtered list returns what it found, and a cursor."""
MAX_PAGE_BYTES = 4 * 1024 * 1024
"""The most bytes of payloads in a page of messages. A single message always fits."""
_MOST_UNREADABLE = 100
_MESSAGES_AT_ONCE = 50
"""The most messages that are read before their size is known."""
_MOST_AT_ONCE = 1000
"""The most threads that a filter reads in one round trip."""

Seq = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
Cursor = Annotated[
    Annotated[str, Meta(max_length=6_000)] | None, Meta(description="The `cursor` of the previous page.")
]
Form = Annotated[
    Literal["view", "raw"],
    Meta(description="`view`: one form for the messages of all frameworks; `raw`: the stored JSON."),
]


class ListThreads(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """List threads, the newest activity first."""

    limit: Annotated[int, Meta(ge=1, le=200, description="The most threads of the page.")] = 50
    cursor: Cursor = None
    title: Annotated[str, Meta(max_length=1_000, description="Text in the title, in any case.")] = ""
    metadata: Annotated[
        tuple[Annotated[str, Meta(pattern="^[^=]+=", max_length=1_000)], ...],
        Meta(max_length=20, description="`key=value`: a text, or the JSON of another value. Repeatable."),
    ] = ()
    active_after: Annotated[datetime | None, Meta(description="Activity at this time or later.")] = None
    active_before: Annotated[datetime | None, Meta(description="Activity before this time.")] = None


class ReadMessages(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Read messages: the newest ones, or those before or from a position."""

    limit: Annotated[int, Meta(ge=1, le=500, description="The most messages of the page.")] = 50
    before: Annotated[Seq | None, Meta(description="Read the messages before this position.")] = None
    start: Annotated[Seq | None, Meta(description="Read the messages from this position on.")] = None
    form: Annotated[
        Literal["view", "raw", "ag-ui"],
        Meta(
            description="`view`: one form for the messages of all frameworks; `raw`: the stored JSON; `ag-ui`: messages"
            " of AG-UI, which a page shows."
        ),
    ] = "view"


class ReadMessage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Read one message."""

    form: Form = "view"


class SearchMessages(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Find messages in all threads by their words.

    A message must contain all words; words in double quotes must follow one another. Case is ignored.
    """

    q: Annotated[str, Meta(min_length=1, max_length=1_000, description="The words.")]
    limit: Annotated[int, Meta(ge=1, le=100, description="The most messages of the page.")] = 20
    cursor: Cursor = None
    since: Annotated[datetime | None, Meta(description="Only messages stored at this time or later.")] = None
    until: Annotated[datetime | None, Meta(description="Only messages stored before this time.")] = None
    role: Annotated[
        tuple[Literal["user", "assistant", "tool", "system"], ...],
        Meta(max_length=4, description="Only messages of this role. Repeatable."),
    ] = ()


class ExportThread(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Export a thread: ``jsonl`` has everything and can be imported; the other formats are for people."""

    format: Literal["jsonl", "markdown", "html"] = "jsonl"


async def list_threads(call: Call, asked: ListThreads) -> ThreadPage:
    """Return a page of threads."""
    tags = {name: value for name, _, value in (pair.partition("=") for pair in asked.metadata)}
    only = ThreadFilter(asked.title, tags, asked.active_after, asked.active_before)
    found: Sequence[Thread]
    if only == ALL_THREADS:
        page = await call.store.list_threads(limit=asked.limit, cursor=asked.cursor)
        found, cursor = page.items, page.cursor
    else:
        found, cursor = await _filtered(call.store, only, asked.limit, asked.cursor)
    return ThreadPage(threads=list(map(api_thread, found)), cursor=cursor)


async def _filtered(
    store: Store, only: ThreadFilter, limit: int, cursor: str | None
) -> tuple[list[Thread], str | None]:
    """Return at most ``limit`` threads that pass, and a cursor if there may be more.

    A cursor stands only between two pages of the store. So a page with more matches than fit is read again, smaller.
    """
    found: list[Thread] = []
    size, ends_at = limit, time.monotonic() + FILTER_SECONDS
    oldest = 0 if only.active_after is None else to_milliseconds(only.active_after)
    # The title of a thread without one costs a read.
    most = limit if only.title else _MOST_AT_ONCE
    while True:
        page = await store.list_threads(limit=size, cursor=cursor)
        passed = [thread for thread in page if await passes(store, thread, only)]
        if len(found) + len(passed) > limit:
            if found:
                return found, cursor
            size = limit
            continue
        found += passed
        cursor = None if page and page.items[-1].updated_ms < oldest else page.cursor
        if cursor is None or len(found) == limit or time.monotonic() > ends_at:
            return found, cursor
        size = min(2 * size, most) if len(passed) < size // 8 else limit


async def get_thread(call: Call, asked: Nothing) -> ApiThread:
    """Return a thread."""
    return api_thread(await existing_thread(call.store, call.key))


async def read_messages(call: Call, asked: ReadMessages) -> MessagePage | RawMessagePage | AgUiMessagePage:
    """Return a page of messages."""
    store, key = call.store, call.key
    if asked.start is not None and asked.before is not None:
        raise invalid("Give start or before, not both.")
    bad: list[Unreadable] = []
    page, is_all = await _read(store, key, asked, bad)
    if not page.next_seq:
        await existing_thread(store, key)
    before, start = _neighbors(page, asked, is_all=is_all)
    fields: dict[str, Any] = {
        "head_seq": page.head_seq,
        "next_seq": page.next_seq,
        "before": before,
        "start": start,
        "unreadable": list(map(unreadable_record, bad)),
    }
    if asked.form == "ag-ui":
        shown = [each for message in page for each in ag_ui_messages(message.seq, _view(message, key) or View())]
        return AgUiMessagePage(messages=shown, state=await shared_state(store, key), **fields)
    objects: list[Any] = [message_object(message, key, asked.form) for message in page]
    return (RawMessagePage if asked.form == "raw" else MessagePage)(messages=objects, **fields)


async def _read(store: Store, key: ThreadKey, asked: ReadMessages, bad: list[Unreadable]) -> tuple[StoredPage, bool]:
    """Return a page of bounded bytes, and whether it reaches the end of the thread in its direction.

    Large messages are read a few at a time, so that the rest of a page that does not fit costs no memory.
    """
    found: list[Message] = []
    is_newest, left, at_once = asked.start is None, MAX_PAGE_BYTES, _MESSAGES_AT_ONCE
    start, before = asked.start or 0, asked.before
    while True:
        wanted = min(asked.limit - len(found), at_once)
        if is_newest:
            page = await read_last_around(store, key, wanted, before=before, on_unreadable=bad.append)
        else:
            page = await read_around(store, key, start=start, limit=wanted, on_unreadable=bad.append)
        fit = _fitting(page, left, is_newest=is_newest, is_first=not found)
        found = [*fit, *found] if is_newest else [*found, *fit]
        left -= sum(len(message.payload) for message in fit)
        whole = StoredPage(tuple(found), page.head_seq, page.next_seq)
        is_all = len(page) < wanted and len(fit) == len(page)
        if is_all or len(found) == asked.limit or len(fit) < len(page):
            return whole, is_all
        before, start = found[0].seq, found[-1].seq + 1
        average = (MAX_PAGE_BYTES - left) // len(found) + 1
        at_once = max(left // average, 1)


def _fitting(page: StoredPage, left: int, *, is_newest: bool, is_first: bool) -> Sequence[Message]:
    """Return the messages of a page that fit ``left`` bytes: the newest, or the oldest ones. The first always fits."""
    count = 0
    for message in reversed(page.messages) if is_newest else page.messages:
        left -= len(message.payload)
        if left < 0 and (count or not is_first):
            break
        count += 1
    return page.messages[len(page) - count :] if is_newest else page.messages[:count]


def _neighbors(page: StoredPage, asked: ReadMessages, *, is_all: bool) -> tuple[int | None, int | None]:
    """Return the position before which the older messages are, and the one from which the newer ones are."""
    if asked.start is not None:
        first = min(asked.start, page.next_seq)
        stop = page.next_seq if is_all else page[-1].seq + 1
    else:
        first = page.head_seq if is_all else page[0].seq
        stop = page.next_seq if asked.before is None else min(asked.before, page.next_seq)
    return first if first > page.head_seq else None, stop if stop < page.next_seq else None


async def read_message(call: Call, asked: ReadMessage) -> ShownMessage | RawMessage:
    """Return one message."""
    key, seq = call.key, call.seq
    for message in await call.store.read(key, start=seq, stop=seq + 1):
        return message_object(message, key, asked.form)
    await existing_thread(call.store, key)
    raise ThreadNotFoundError(f"{key} has no message at position {seq}.")


def message_object(message: Message, key: ThreadKey, form: str) -> ShownMessage | RawMessage:
    """Return a message in the form ``view`` or ``raw``."""
    seen = _view(message, key)
    return raw_message(message, key, is_json=seen is not None) if form == "raw" else shown_message(message, key, seen)


def _view(message: Message, key: ThreadKey) -> View | None:
    try:
        return view(message, key)
    except CorruptRecordError:
        return None


async def search_messages(call: Call, asked: SearchMessages) -> FoundPage:
    """Return a page of the messages found."""
    findings = await continued_search(
        call.store,
        call.access.tenant,
        asked.q,
        limit=asked.limit,
        cursor=asked.cursor,
        seconds=SEARCH_SECONDS,
        only=MessageFilter(asked.since, asked.until, asked.role),
    )
    return FoundPage(
        found=list(map(found_message, findings.hits)),
        cursor=findings.cursor,
        unreadable=list(map(unreadable_record, findings.unreadable[:_MOST_UNREADABLE])),
    )


EXPORT_TYPES = {
    "jsonl": "application/jsonl",
    "markdown": "text/markdown; charset=utf-8",
    "html": "text/html; charset=utf-8",
}


async def export_thread(call: Call, asked: ExportThread) -> Response:
    """Return a file with a thread. A record that the store cannot read breaks it off."""
    thread = await existing_thread(call.store, call.key)
    form = FORMS[asked.format]()
    name = f"{segment_of(thread.key.thread_id)[:100]}{form.suffix}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        # Stored texts must not act for the application, also if a browser shows the file.
        "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    }
    if call.request.method == "HEAD":
        return Response(headers=headers, media_type=EXPORT_TYPES[asked.format])
    parts: AsyncIterator[bytes] = thread_parts(call.store, thread, form)
    return StreamingResponse(parts, headers=headers, media_type=EXPORT_TYPES[asked.format])
