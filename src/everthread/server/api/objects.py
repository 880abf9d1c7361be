"""The objects that the thread API returns, beside those of `everthread.json_form`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from everthread.json_form import (
    FoundMessage,
    Object,
    RawMessage,
    ShownMessage,
    StoredThread,
    UnreadableRecord,
    fields_of,
)
from everthread.model import Thread
from everthread.server.api.ag_ui import AgUiMessage
from everthread.server.api.paths import segment_of

Cursor = Annotated[str | None, Meta(description="Pass it as `cursor` to continue; null at the end.")]
Unreadable = Annotated[list[UnreadableRecord], Meta(description="Records that cannot be read.")]


class ApiThread(StoredThread, kw_only=True):
    """A thread, without its messages."""

    path: Annotated[str, Meta(description="The segment of paths that stands for its ID.")]


class ThreadPage(Object, kw_only=True):
    """Threads, the newest activity first. With a filter there can be few, or none, although more follow."""

    threads: list[ApiThread]
    cursor: Cursor


class MessagePage(Object, kw_only=True):
    """Messages of a thread, oldest first."""

    messages: list[ShownMessage]
    head_seq: Annotated[int, Meta(description="Position of the thread's oldest message.")]
    next_seq: Annotated[int, Meta(description="Position that the thread's next message will get.")]
    before: Annotated[int | None, Meta(description="Pass it as `before` for older messages; null: there are none.")]
    start: Annotated[int | None, Meta(description="Pass it as `start` for newer messages; null: there are none.")]
    unreadable: Unreadable


class RawMessagePage(MessagePage, kw_only=True):
    """Messages of a thread as they are stored, oldest first."""

    messages: list[RawMessage]  # pyright: ignore[reportIncompatibleVariableOverride]


class AgUiMessagePage(MessagePage, kw_only=True):
    """Messages of a thread as AG-UI shows them, oldest first."""

    messages: list[AgUiMessage]  # pyright: ignore[reportIncompatibleVariableOverride]
    state: Annotated[Any, Meta(description="Shared state of the newest snapshot; null if there is none.")]


class FoundPage(Object, kw_only=True):
    """The messages found. There may be more although none was found: then `cursor` continues the search."""

    found: list[FoundMessage]
    cursor: Cursor
    unreadable: Unreadable


class ForkedThread(Object, kw_only=True):
    """The new thread, and the part of the source that it has."""

    thread: ApiThread
    source: Annotated[str, Meta(description="ID of the thread it was forked from.")]
    stop: Annotated[int, Meta(description="Position of the source before which the copy ends.")]
    copied: Annotated[int, Meta(description="Messages copied.")]
    resumed: Annotated[bool, Meta(description="Whether an earlier request had begun or finished this fork.")]
    unreadable: Annotated[list[int | None], Meta(description="Positions of records that were not copied.")]


class UndoneTurns(Object, kw_only=True):
    """The thread after its last turns were removed."""

    thread: ApiThread
    removed: Annotated[int, Meta(description="Messages removed.")]


class DeletedThread(Object, kw_only=True):
    """The deletion of a thread."""

    thread_id: Annotated[str, Meta(description="ID of the thread.")]
    existed: Annotated[bool, Meta(description="Whether there was such a thread.")]


def api_thread(thread: Thread) -> ApiThread:
    """Return a thread as an object."""
    return ApiThread(path=segment_of(thread.key.thread_id), **fields_of(thread))
