"""Finds what is wrong in threads, and mends it: works on every engine, through the contract.

What is found: tool results without their call, calls without a result, records that are not JSON, and counts that do
not fit. A thread is mended by **one append** that holds the whole mended thread and lets the store forget what was
before, so every reader sees the old thread or the mended one; positions go on, and are not reused. Before that, the
thread as it was goes into the backup file, from which `undo` brings it back.

A mended thread is one turn. A thread of more than 10,000 messages is reported, not mended.

In an encrypted store whose keys are not given only counts can be looked at: a thread that holds a sealed record is
never mended then. With its keys the backup is sealed as the store is. A record that does not open is reported and left.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, cast

import msgspec

from everthread._arguments import is_sealed
from everthread.codec import View, as_object, decode, encode, new_message, view_of
from everthread.contract import Store, SupportsSealing, read_all
from everthread.errors import ConfigurationError, ConflictError, CorruptRecordError, EncryptionKeyError, EverthreadError
from everthread.formats.agent_framework import BETA_TYPE
from everthread.formats.mending import result_of, without_results
from everthread.model import Message, NewMessage, Retention, Thread, ThreadKey
from everthread.retention import links_of

LONGEST = 10_000
"""Messages of the longest thread that can be mended: what goes into one append."""

GRACE = timedelta(hours=1)
"""How long the calls of a thread's last turn may wait for their results, before they count as lost."""

Kind = Literal["orphaned-result", "unanswered-call", "undecodable", "count"]

_HEAD = b'{"everthread": "repair", '
"""How a record in a backup begins."""

_log = logging.getLogger("everthread.repair")


class Problem(msgspec.Struct, frozen=True):
    """Something wrong in a thread; says no message content.

    Attributes:
        seq: The position it is at, if it is at one.
        mend: What repairing does about it; empty: nothing.
    """

    kind: Kind
    seq: int | None
    mend: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What was found in a thread, and what was done.

    Attributes:
        status: ``"found"``: nothing was changed; ``"mended"``; ``"undone"``; ``"failed"``: see ``reason``;
            ``"sealed"``: it could not be looked into without keys, and nothing is known to be wrong.
    """

    key: ThreadKey
    problems: tuple[Problem, ...]
    status: Literal["found", "mended", "undone", "failed", "sealed"]
    reason: str = ""


class _Entry(msgspec.Struct):
    """A message on its way through mending. ``message`` is ``None`` for one that was put in."""

    message: Message | None
    payload: bytes
    format: str
    view: View
    value: Mapping[str, object]


async def inspect(store: Store, tenant: str = "", *, clock: Callable[[], float] = time.time) -> AsyncIterator[Outcome]:
    """The threads of a tenant in which something is wrong; changes nothing."""
    async for outcome in repair(store, tenant, clock=clock):
        yield outcome


async def repair(
    store: Store, tenant: str = "", *, backup: Path | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[Outcome]:
    """Mends the threads of a tenant.

    A thread to which somebody writes at the same time fails with a reason; it can be tried again. Breaking off at any
    moment leaves each thread as it was or mended.

    Args:
        backup: A file, which may exist, that takes each thread as it was. ``None``: change nothing.
        clock: Seconds since 1970; the grace of unanswered calls, and expiry, are reckoned with it.
    """
    cursor: str | None = None
    while True:
        page = await store.list_threads(tenant, limit=100, cursor=cursor)
        for thread in page:
            outcome = await _treat(store, thread, backup, clock() * 1000)
            if outcome is not None:
                yield outcome
        cursor = page.cursor
        if cursor is None:
            return


async def undo(store: Store, backup: Path, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Outcome]:
    """Brings back the threads of a backup as they were, but for records that are not JSON: those stay in the backup.

    A thread to which something was written since then is left as it is, and fails with a reason. The backup of a
    repair that was stopped holds at its end what was not mended any more, perhaps cut off: nothing happens to that.

    Raises:
        ConfigurationError: The file is not such a backup.
    """
    for head, kept in _read_backup(backup):
        key = ThreadKey(head["thread_id"], head["tenant"])
        try:
            messages = [await _from_kept(store, key, message) for message in kept]
            yield await _undo(store, key, head, messages, now_ms=clock() * 1000)
        except EverthreadError as error:
            yield Outcome(key, (), "failed", str(error))


async def _undo(
    store: Store, key: ThreadKey, head: Mapping[str, Any], messages: Sequence[Message], *, now_ms: float
) -> Outcome:
    entries = [_entry(message) for message in messages]
    turn = [_new(entry) for entry in entries if entry is not None]
    try:
        await _replace(
            store,
            key,
            turn,
            append_id=f"undo {head['repair']}",
            next_seq=head["next_seq"] + head["count"],
            expires_after_ms=_time_left(head["expires_ms"], now_ms),
        )
    except ConflictError:
        # A repair that was stopped before it mended the thread, or an undoing of the run after it.
        now = [message.payload async for message in read_all(store, key)]
        if now not in ([message.payload for message in messages], [message.payload for message in turn]):
            raise
        return Outcome(key, (), "undone", "it is as it was already")
    left = len(messages) - len(turn)
    return Outcome(key, (), "undone", f"{left} records that are not JSON stay in the backup" if left else "")


async def _treat(store: Store, thread: Thread, backup: Path | None, now_ms: float) -> Outcome | None:
    key = thread.key
    if thread.count > LONGEST:
        return Outcome(key, (), "failed", f"it has {thread.count:,} messages; at most {LONGEST:,} are looked at")
    try:
        messages = [message async for message in read_all(store, key)]
    except (CorruptRecordError, EncryptionKeyError) as error:
        return Outcome(key, (), "failed", str(error))
    problems = [*_count_problems(thread, messages, compare_sizes=not isinstance(store, SupportsSealing))]
    if any(is_sealed(message.payload) for message in messages):
        return Outcome(key, tuple(problems), "found" if problems else "sealed")
    entries = [_entry(message) for message in messages]
    mended = _mend(messages, entries, problems, is_idle=now_ms - thread.updated_ms > GRACE / timedelta(milliseconds=1))
    if not problems:
        return None
    if backup is None or not any(problem.mend for problem in problems):
        return Outcome(key, tuple(problems), "found")
    try:
        await _carry_out(store, thread, messages, mended, backup=backup, now_ms=now_ms)
    except EverthreadError as error:
        return Outcome(key, tuple(problems), "failed", str(error))
    for problem in problems:
        _log.info("%s: %s at position %s: %s", key, problem.kind, problem.seq, problem.mend or "not mended")
    return Outcome(key, tuple(problems), "mended")


async def _carry_out(
    store: Store,
    thread: Thread,
    messages: Sequence[Message],
    mended: Sequence[NewMessage],
    *,
    backup: Path,
    now_ms: float,
) -> None:
    turn = links_of((message.calls, message.results) for message in mended)
    if turn.early_results:
        raise CorruptRecordError(f"{thread.key} holds answers to what was never asked, which cannot be taken out.")
    now = await store.get_thread(thread.key)
    if now is None or (now.next_seq, now.count) != (thread.next_seq, thread.count):
        raise ConflictError(f"{thread.key} was written to meanwhile: try again.", thread.next_seq)
    # Not a digest: ids of appends are readable in an encrypted store too.
    name = f"{token_hex(16)} {thread.next_seq}"
    kept = [await _as_kept(store, thread.key, message) for message in messages]
    _write_backup(backup, thread, kept, name, len(mended))
    await _replace(
        store,
        thread.key,
        mended,
        append_id=f"repair {name}",
        next_seq=thread.next_seq,
        expires_after_ms=_time_left(thread.expires_ms, now_ms),
    )


async def _as_kept(store: Store, key: ThreadKey, message: Message) -> Message:
    if not isinstance(store, SupportsSealing):
        return message
    return msgspec.structs.replace(message, payload=await store.seal(key, message.payload))


async def _from_kept(store: Store, key: ThreadKey, message: Message) -> Message:
    if not is_sealed(message.payload):
        return message
    if not isinstance(store, SupportsSealing):
        raise EncryptionKeyError("The backup is of an encrypted store: give its keys.")
    return msgspec.structs.replace(message, payload=await store.unseal(key, message.payload))


def _time_left(expires_ms: int | None, now_ms: float) -> float | None:
    return None if expires_ms is None else max(expires_ms - now_ms, 1.0)


async def _replace(
    store: Store,
    key: ThreadKey,
    turn: Sequence[NewMessage],
    *,
    append_id: str,
    next_seq: int,
    expires_after_ms: float | None,
) -> None:
    if not turn:
        await store.truncate(key, start=next_seq)
        return
    expire_after = None if expires_after_ms is None else timedelta(milliseconds=expires_after_ms)
    retention = Retention(max_messages=len(turn), expire_after=expire_after)
    await store.append(key, turn, append_id=append_id, expected_seq=next_seq, retention=retention)


# Finding


def _count_problems(thread: Thread, messages: Sequence[Message], *, compare_sizes: bool) -> Iterator[Problem]:
    size = sum(len(message.payload) for message in messages) if compare_sizes else thread.size
    if (thread.count, thread.size) != (len(messages), size):
        yield Problem("count", None)
    seqs = [message.seq for message in messages]
    if seqs != sorted(set(seqs)) or (seqs and not thread.head_seq <= seqs[0] <= seqs[-1] < thread.next_seq):
        yield Problem("count", seqs[0] if seqs else None)


def _mend(
    messages: Sequence[Message], entries: Sequence[_Entry | None], problems: list[Problem], *, is_idle: bool
) -> list[NewMessage]:
    for message, entry in zip(messages, entries, strict=True):
        if entry is None:
            problems.append(Problem("undecodable", message.seq, "taken out"))
    kept = _without_orphans([entry for entry in entries if entry is not None], problems)
    complete = _with_answers(kept, problems, is_idle=is_idle)
    return [_new(entry) for entry in complete]


def _without_orphans(entries: Sequence[_Entry], problems: list[Problem]) -> list[_Entry]:
    called: set[str] = set()
    kept: list[_Entry] = []
    for entry in entries:
        called.update(call.id for call in entry.view.calls)
        orphans = {
            result.id for result in entry.view.results if result.id not in called and not _is_approval(result.id)
        }
        if not orphans:
            kept.append(entry)
            continue
        problems.append(Problem("orphaned-result", _seq(entry), "taken out"))
        rest = without_results(entry.value, entry.format, orphans)
        if rest is not None:
            kept.append(_Entry(entry.message, encode(rest), entry.format, view_of(rest, entry.format), rest))
    return kept


def _with_answers(entries: Sequence[_Entry], problems: list[Problem], *, is_idle: bool) -> list[_Entry]:
    answered = {result.id for entry in entries for result in entry.view.results}
    last_turn = _last_turn(entries)
    complete: list[_Entry] = []
    for entry in entries:
        complete.append(entry)
        calls = [call.id for call in entry.view.calls]
        is_waiting = not is_idle and entry.message is not None and entry.message.turn == last_turn
        if is_waiting or any(map(_is_approval, calls)):
            # An approval may be given at any time, and the call that it is for waits with it.
            continue
        for call_id in dict.fromkeys(calls):
            if call_id not in answered:
                complete += _answer(entry, call_id, problems)
    return complete


def _answer(entry: _Entry, call_id: str, problems: list[Problem]) -> list[_Entry]:
    value = result_of(call_id, entry.format, beta=entry.value.get("type") == BETA_TYPE)
    problems.append(Problem("unanswered-call", _seq(entry), "answered: not recorded" if value else ""))
    return [] if value is None else [_Entry(None, encode(value), entry.format, view_of(value, entry.format), value)]


def _last_turn(entries: Sequence[_Entry]) -> int | None:
    return next((entry.message.turn for entry in reversed(entries) if entry.message is not None), None)


def _is_approval(call_id: str) -> bool:
    return call_id.startswith("approval:")


def _seq(entry: _Entry) -> int | None:
    return None if entry.message is None else entry.message.seq


def _entry(message: Message) -> _Entry | None:
    try:
        value = decode(message)
        view = view_of(value, message.format)
    except CorruptRecordError:
        return None
    return _Entry(message, message.payload, message.format, view, as_object(value))


def _new(entry: _Entry) -> NewMessage:
    created_at = None if entry.message is None else entry.message.created_at
    return new_message(entry.payload, format=entry.format, created_at=created_at)


# The backup


def _write_backup(backup: Path, thread: Thread, messages: Sequence[Message], repair: str, count: int) -> None:
    key = thread.key
    head: dict[str, object] = {
        "everthread": "repair",
        "thread_id": key.thread_id,
        "tenant": key.tenant,
        "next_seq": thread.next_seq,
    }
    head["expires_ms"] = thread.expires_ms
    lines: list[Mapping[str, object]] = [{**head, "repair": repair, "count": count, "messages": len(messages)}]
    for message in messages:
        payload = base64.b64encode(message.payload).decode()
        facts = {"seq": message.seq, "turn": message.turn, "format": message.format, "created_ms": message.created_ms}
        lines.append({**facts, "payload": payload})
    # For its owner alone: conversations are in it. On the disk before anything is changed.
    descriptor = os.open(backup, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        if file.tell() and os.pread(descriptor, 1, file.tell() - 1) != b"\n":
            # A repair was stopped while it wrote.
            file.write(b"\n")
        file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
        file.flush()
        os.fsync(descriptor)


def _read_backup(backup: Path) -> Iterator[tuple[dict[str, Any], list[Message]]]:
    """The records that are whole. One that is cut off is of a thread that was not changed any more, and is left out."""
    head: dict[str, Any] | None = None
    messages: list[Message] = []
    try:
        with backup.open("rb") as file:
            for line in file:
                row = _row(line)
                if row is None:
                    if file.tell() == len(line) and not line.startswith(_HEAD[: len(line)]):
                        raise ValueError
                    head = None
                elif "everthread" in row:
                    head, messages = _head(row), []
                elif head is not None:
                    messages.append(_from_backup(row))
                else:
                    raise ValueError
                if head is not None and len(messages) == head["messages"]:
                    yield head, messages
                    head = None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"This backup cannot be read ({type(error).__name__}).") from None


def _row(line: bytes) -> dict[str, Any] | None:
    """What a line holds, or ``None`` where it is cut off."""
    try:
        return cast(dict[str, Any], json.loads(line))
    except ValueError:
        return None


def _head(row: dict[str, Any]) -> dict[str, Any]:
    if row["everthread"] != "repair":
        raise ValueError
    return row


def _from_backup(row: dict[str, Any]) -> Message:
    created_ms: int | None = row["created_ms"]
    return Message(row["seq"], base64.b64decode(row["payload"]), row["format"], created_ms, row["turn"])
