"""The objects that commands print with ``--json``, one a line: their fields, types and meaning.

`OBJECTS` lists them for each command. A field that may be absent has ``UNSET`` as its default.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from everthread.json_form import (
    FoundMessage,
    Limits,
    Messages,
    Object,
    RawMessage,
    ShownMessage,
    Size,
    StoredThread,
    ThreadId,
    UnreadableRecord,
)

DryRun = Annotated[bool, Meta(description="Whether nothing was changed, because of --dry-run.")]
Start = Annotated[int, Meta(description="First position covered.")]
Stop = Annotated[int, Meta(description="Position after the last one covered.")]
Threads = Annotated[int, Meta(description="Number of threads.")]
Failed = Annotated[int, Meta(description="Threads that failed; standard error says why.")]
Remains = Annotated[tuple[str, ...], Meta(description="Old data that is still in the store's files, and why.")]


class ListedThread(StoredThread, kw_only=True):
    """A thread, the newest activity first."""

    number: Annotated[int, Meta(description="Number in the list, from 1.")]
    ended: Annotated[str, Meta(description="cancelled or failed, if the run of its last turn ended so.")] = ""


class ListedTenant(Object):
    """A tenant that has threads."""

    tenant: Annotated[str, Meta(description="Tenant; empty for the default tenant.")]
    last_activity: Annotated[datetime, Meta(description="Time of its last append or undo.")]


class RecalledTurn(Object):
    """A turn whose meaning is near, with --by-meaning."""

    thread_id: ThreadId
    seq: Annotated[int, Meta(description="Position of the message in which the text begins.")]
    turn: Annotated[int, Meta(description="Position of the turn's first message.")]
    created: Annotated[str | None, Meta(description="Time at which it was stored, in ISO 8601, if known.")]
    score: Annotated[float, Meta(description="How near the meanings are, at most 1.")]
    text: Annotated[str, Meta(description="The part of the turn that is near.")]


class IndexState(Object):
    """What an index has, and what it lacks."""

    passages: Annotated[int, Meta(description="Number of indexed parts of turns.")]
    added: Annotated[int, Meta(description="Number that this command added.")]
    removed: Annotated[int, Meta(description="Number of threads that this command removed from the index.")]
    threads_behind: Annotated[int, Meta(description="Number of threads with messages that are not indexed.")]
    messages_behind: Annotated[int, Meta(description="Number of these messages.")]


class TenantUsage(Object):
    """The sums of a tenant, and the limits given."""

    tenant: Annotated[str, Meta(description="Tenant; empty for the default tenant.")]
    threads: Threads
    messages: Messages
    bytes: Size
    max_messages: Annotated[int | None, Meta(description="Limit given with --max-messages.")]
    max_bytes: Annotated[int | None, Meta(description="Limit given with --max-bytes.")]


class RenamedThread(Object):
    """The thread's title."""

    thread_id: ThreadId
    title: Annotated[str | None, Meta(description="New title; null if it was removed.")]


class TaggedThread(Object):
    """The thread's metadata."""

    thread_id: ThreadId
    metadata: Annotated[dict[str, Any], Meta(description="All its metadata.")]


class ThreadRetention(Object):
    """The thread's retention."""

    thread_id: ThreadId
    retention: Annotated[Limits | None, Meta(description="Its own retention; null: the store's retention applies.")]
    expires: Annotated[datetime | None, Meta(description="Time at which it expires.")]


class LostParts(msgspec.Struct):
    """Parts of messages that the framework of the new thread does not express."""

    aspect: Annotated[str, Meta(description="Kind of these parts.")]
    count: Annotated[int, Meta(description="Number of them.")]
    first: Annotated[int, Meta(description="Position of the first one in the source.")]
    became: Annotated[str, Meta(description="Form that they took, or that they were dropped.")]


class ForkedThread(Object):
    """The new thread."""

    thread_id: ThreadId
    source: Annotated[str, Meta(description="ID of the thread it was forked from.")]
    stop: Annotated[int, Meta(description="Position of the source before which the copy ends.")]
    messages: Messages
    resumed: Annotated[bool, Meta(description="Whether an earlier run had begun or finished this fork.")]
    dry_run: DryRun
    unreadable: Annotated[tuple[int | None, ...], Meta(description="Positions of records that were not copied.")]
    framework: Annotated[str | None, Meta(description="Framework of --as.")] = None
    lost: Annotated[tuple[LostParts, ...], Meta(description="Parts that this framework does not express.")] = ()


class UndoneTurns(Object):
    """The messages removed."""

    thread_id: ThreadId
    stop: Annotated[int, Meta(description="Position from which messages were removed.")]
    removed: Annotated[int, Meta(description="Messages removed.")]
    would_remove: Annotated[int | UnsetType, Meta(description="With --dry-run: messages to remove.")] = UNSET


class DeletedThread(Object):
    """One of the threads named."""

    thread_id: ThreadId
    existed: Annotated[bool, Meta(description="Whether there was such a thread.")]
    messages: Messages
    deleted: Annotated[bool, Meta(description="Whether it was deleted.")]


class TenantToErase(Object):
    """With --dry-run: the sums of the tenant."""

    tenant: Annotated[str, Meta(description="Tenant.")]
    dry_run: DryRun
    threads: Threads
    messages: Messages
    size: Size


class ErasedSums(msgspec.Struct):
    """The sums of an erased tenant."""

    threads: Threads
    messages: Messages
    size: Size
    documents: Annotated[int, Meta(description="Number of documents.")]


class ErasedTenant(Object):
    """The last line of the receipt, and where the receipt is."""

    kind: Literal["erased"]
    tenant: Annotated[str, Meta(description="Tenant.")]
    store: Annotated[str, Meta(description="Location of the store, without secrets.")]
    began: Annotated[datetime, Meta(description="Time at which it began.")]
    ended: Annotated[datetime, Meta(description="Time at which it ended.")]
    sums: Annotated[ErasedSums, Meta(description="Numbers of erased records.")]
    left: Annotated[int, Meta(description="Threads found afterwards: 0, unless another process wrote.")]
    version: Annotated[int, Meta(description="Version of the receipt's format.")]
    remains: Remains
    receipt: Annotated[str, Meta(description="Path of the receipt.")]


class CompactedThreads(Object):
    """The sum."""

    threads: Threads


class MovedThread(Object):
    """A thread. Only with --dry-run, and in `problems`."""

    thread: ThreadId
    tenant: Annotated[str, Meta(description="Tenant that owns it.")]
    status: Annotated[
        Literal["new", "extended", "updated", "unchanged", "ahead", "expired", "conflict", "failed"],
        Meta(description="Result for this thread."),
    ]
    written: Annotated[int, Meta(description="Messages written, or to be written.")]
    present: Annotated[int, Meta(description="Messages that were there before.")]
    documents: Annotated[int, Meta(description="Documents written, or to be written.")]
    reason: Annotated[str, Meta(description="Reason of a conflict or failure.")]


class SkippedRecord(msgspec.Struct):
    """Something that cannot be read and was left out."""

    place: Annotated[str, Meta(description="Where it is.")]
    reason: Annotated[str, Meta(description="Reason.")]


class MoveReport(Object):
    """The sums. The exit status is 1 if `problems` or `skipped` is not empty."""

    threads: Annotated[dict[str, int], Meta(description="Number of threads for each status.")]
    written: Annotated[int, Meta(description="Messages written.")]
    present: Annotated[int, Meta(description="Messages that were there before.")]
    documents: Annotated[int, Meta(description="Documents written.")]
    files: Annotated[int, Meta(description="Files written.")]
    bytes: Annotated[int, Meta(description="Bytes written to files.")]
    keeps_times: Annotated[bool, Meta(description="Whether threads keep their times of creation and activity.")]
    skipped: Annotated[list[SkippedRecord], Meta(description="Unreadable records that were left out.")]
    problems: Annotated[list[MovedThread], Meta(description="Threads with the status conflict or failed.")]
    dry_run: DryRun


class PrunedThread(Object):
    """A thread that changed, or would change."""

    thread_id: ThreadId
    messages: Annotated[int, Meta(description="Messages removed.")]
    size: Annotated[int, Meta(description="Bytes removed.")]
    deleted: Annotated[bool, Meta(description="Whether the whole thread was deleted.")]
    start: Annotated[int | None, Meta(description="First position kept; null if the thread was deleted.")]


class PruneTotals(Object):
    """The last line: the sums."""

    dry_run: DryRun
    threads: Threads
    shortened: Annotated[int, Meta(description="Threads that lost messages.")]
    deleted: Annotated[int, Meta(description="Threads deleted.")]
    messages: Annotated[int, Meta(description="Messages removed.")]
    size: Annotated[int, Meta(description="Bytes removed.")]
    busy: Annotated[int, Meta(description="Threads left for the next run, because another process wrote to them.")]
    failed: Failed


class SummarizedThread(Object):
    """A thread that was summarized, or would be."""

    thread_id: ThreadId
    dry_run: DryRun
    messages: Annotated[int, Meta(description="Messages summarized; 0 if there was nothing to do.")]
    start: Start | UnsetType = UNSET
    stop: Stop | UnsetType = UNSET
    tokens: Annotated[int | UnsetType, Meta(description="With --dry-run: approximate tokens.")] = UNSET
    text: Annotated[str | UnsetType, Meta(description="The summary. Only if one thread was named.")] = UNSET


class FailedSummary(Object):
    """A thread that could not be summarized."""

    thread_id: ThreadId
    failed: Annotated[str, Meta(description="Reason.")]


class SummaryTotals(Object):
    """The last line, where many threads are summarized: the sums."""

    dry_run: DryRun
    threads: Threads
    summarized: Annotated[int, Meta(description="Threads summarized, or to be summarized.")]
    failed: Failed
    messages: Annotated[int | UnsetType, Meta(description="With --dry-run: messages to summarize.")] = UNSET
    tokens: Annotated[int | UnsetType, Meta(description="With --dry-run: approximate tokens.")] = UNSET


class Check(Object):
    """A health check."""

    status: Annotated[Literal["ok", "warning", "error"], Meta(description="Its result.")]
    name: Annotated[str, Meta(description="Subject of the check.")]
    value: Annotated[str, Meta(description="Result in words.")]
    advice: Annotated[str, Meta(description="What to do about it.")]


class FoundInconsistency(Object):
    """With --repair: an inconsistency of the store."""

    status: Annotated[Literal["found", "repaired"], Meta(description="Whether it was repaired.")]
    problem: Annotated[str, Meta(description="The inconsistency.")]
    count: Annotated[int, Meta(description="Number of places.")]


class PlannedChange(Object):
    """With --repair --dry-run, for a store of another program: a change of a record."""

    thread_id: ThreadId
    index: Annotated[int, Meta(description="Index of the record in the thread, before all changes.")]
    row: Annotated[int | str | None, Meta(description="Its row in the store, if it has one.")]
    old: Annotated[str | None, Meta(description="The record before; null for one that is added.")]
    new: Annotated[str | None, Meta(description="The record after; null for one that is removed.")]


class RepairStatus(Object):
    """With --repair or --undo: a problem of a thread, or the outcome for a thread."""

    status: Annotated[
        Literal["found", "repaired", "undone", "partial", "failed"], Meta(description="Step of the repair.")
    ]
    thread_id: ThreadId
    seq: Annotated[
        int | str | UnsetType | None,
        Meta(description="Position of the message, or its row in another program's store; null for the whole thread."),
    ] = UNSET
    problem: Annotated[str | UnsetType, Meta(description="Kind of the problem. Absent for an outcome.")] = UNSET
    repair: Annotated[str | UnsetType, Meta(description="How it is repaired; empty: not at all.")] = UNSET
    description: Annotated[str | UnsetType, Meta(description="A line that describes the problem.")] = UNSET
    answer: Annotated[
        str | UnsetType, Meta(description="Model service and its error; empty if services accept it.")
    ] = UNSET
    reason: Annotated[str | UnsetType, Meta(description="Reason of a failure. Only for an outcome.")] = UNSET


class RewrappedTenant(Object):
    """The sums."""

    threads: Threads
    records: Annotated[int, Meta(description="Records encrypted again.")]
    keys_resealed: Annotated[bool, Meta(description="Whether the tenant's keys were encrypted again.")]
    keys_forgotten: Annotated[bool, Meta(description="Whether the older keys were deleted.")]
    remains: Remains
    left: Annotated[int, Meta(description="Records that other processes changed too often: run it again.")]
    keys_in_first_form: Annotated[bool, Meta(description="Whether the list of keys was of the first version.")]
    dry_run: DryRun


class ConfiguredStore(Object):
    """A named store. A setting that is not set is absent."""

    name: Annotated[str, Meta(description="Its name, without @.")]
    url: Annotated[str | UnsetType, Meta(description="Its URL, without a password.")] = UNSET
    url_env: Annotated[str | UnsetType, Meta(description="Variable that holds the URL.")] = UNSET
    url_command: Annotated[tuple[str, ...] | UnsetType, Meta(description="Command that prints the URL.")] = UNSET
    password_env: Annotated[str | UnsetType, Meta(description="Variable that holds the password.")] = UNSET
    password_command: Annotated[tuple[str, ...] | UnsetType, Meta(description="Command that prints it.")] = UNSET
    tenant: Annotated[str | UnsetType, Meta(description="Tenant to use.")] = UNSET
    keyring: Annotated[str | UnsetType, Meta(description="Place of its keys.")] = UNSET
    max_messages: Annotated[int | UnsetType, Meta(description="Newest messages that a thread keeps.")] = UNSET
    expire_after: Annotated[str | UnsetType, Meta(description="Duration after which an idle thread expires.")] = UNSET


_MOVING = (MovedThread, MoveReport)
OBJECTS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "threads": (ListedThread,),
    "show": (ShownMessage, RawMessage),
    "tenants": (ListedTenant,),
    "search": (FoundMessage, RecalledTurn, UnreadableRecord),
    "recall follow": (IndexState,),
    "recall status": (IndexState,),
    "usage": (TenantUsage,),
    "rename": (RenamedThread,),
    "tag": (TaggedThread,),
    "retention": (ThreadRetention,),
    "fork": (ForkedThread,),
    "undo": (UndoneTurns,),
    "delete": (DeletedThread,),
    "delete-tenant": (TenantToErase, ErasedTenant),
    "copy": _MOVING,
    "export": _MOVING,
    "import": _MOVING,
    "prune": (PrunedThread, PruneTotals),
    "summarize": (SummarizedThread, FailedSummary, SummaryTotals),
    "compact": (CompactedThreads,),
    "doctor": (Check, FoundInconsistency, RepairStatus, PlannedChange),
    "rewrap": (RewrappedTenant,),
    "config show": (ConfiguredStore,),
}
"""The objects of each command."""


def schema(command: str) -> dict[str, Any]:
    """Return the JSON Schema of the lines that a command prints with ``--json``."""
    objects = OBJECTS[command]
    schemas, components = msgspec.json.schema_components(objects, ref_template="#/$defs/{name}")
    return {"anyOf": list(schemas), "$defs": components}
