"""Appends: one entry contains all turns that waited for a thread at the same time."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from itertools import groupby

from everthread.contract import REMEMBERED_APPENDS
from everthread.engines._segments.log import Draft, Log, View
from everthread.engines._segments.names import LogPrefix, Marker
from everthread.engines._segments.records import LAYOUT, Block, Group, Run, State
from everthread.engines._segments.runs import keep_newest
from everthread.engines.base import AppendRequest
from everthread.errors import ConflictError, EverthreadError
from everthread.messages.tool_links import MAX_OPEN_CALLS, Span, add_span, resolve
from everthread.model import Appended, NewMessage, ThreadKey, to_milliseconds


def live(view: View, now_ms: int) -> State | None:
    """Return the thread's state, or ``None`` if the thread does not exist or has expired."""
    state = view.state
    if state is None or state.gone or (state.expires_ms is not None and state.expires_ms <= now_ms):
        return None
    return state


def born(view: View, key: ThreadKey, now_ms: int) -> State:
    """Return the state of a new thread for the next entry."""
    number = view.number + 1
    return State(
        number=number,
        born=number,
        compacted=number,
        thread_id=key.thread_id,
        tenant=key.tenant,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def marker_name(prefix: LogPrefix, state: State | None) -> str:
    """Return the name of a thread's marker, or an empty string."""
    if state is None or state.gone:
        return ""
    return Marker(state.updated_ms, prefix.thread, state.marker).name


def expect(view: View, state: State, expected_seq: int | None) -> None:
    """Raise `ConflictError` if the next position is another one."""
    if expected_seq is None or expected_seq == state.next_seq:
        return
    view.must_be_fresh()
    raise ConflictError.at_position(state.key, state.next_seq, expected_seq)


def hashed(append_id: str) -> str:
    """Return 96 bits of a hash of an append ID: entries carry the newest ones, so they must be short."""
    return base64.urlsafe_b64encode(hashlib.blake2b(append_id.encode(), digest_size=12).digest()).decode()


class TurnWriter:
    """Makes the next entry of a thread from the waiting appends, in their order."""

    def __init__(self, log: Log, prefix: LogPrefix, batch: Sequence[AppendRequest]) -> None:
        self._log = log
        self._prefix = prefix
        self._batch = batch
        self.results: list[Appended | EverthreadError] = []

    async def step(self, view: View) -> Draft | None:
        """Return the entry, or ``None`` if no append of the batch writes anything; set the results."""
        self.results = []
        self._view = view
        self._state: State | None = None
        self._before = live(view, self._batch[0].now_ms)
        self._block = Block(v=LAYOUT)
        payloads: list[bytes] = []
        for request in self._batch:
            refused = await self._refusal(request)
            self.results.append(await self._write(request, payloads) if refused is None else refused)
        if self._state is None:
            return None
        return Draft(self._state, *self._kept(self._state, payloads))

    async def _refusal(self, request: AppendRequest) -> Appended | EverthreadError | None:
        """Return the result of an append that writes nothing, which only a fresh view can decide."""
        state = self._state or self._before
        if not request.is_new_id and (earlier := await self._earlier(state, request.append_id)) is not None:
            self._view.must_be_fresh()
            return earlier
        actual = 0 if state is None else state.next_seq
        if request.expected_seq is None or request.expected_seq == actual:
            return None
        self._view.must_be_fresh()
        return ConflictError.at_position(request.key, actual, request.expected_seq)

    async def _earlier(self, state: State | None, append_id: str) -> Appended | None:
        if state is None:
            return None
        known = hashed(append_id)
        snapshot = await self._log.snapshot(self._prefix, state.snapshot)
        for other, first, stop in (*state.appends, *snapshot.appends):
            if other == known:
                return Appended(first, stop, replayed=True)
        return None

    async def _write(self, request: AppendRequest, payloads: list[bytes]) -> Appended:
        if self._state is None:
            before = self._before
            self._state = born(self._view, request.key, request.now_ms) if before is None else before.successor()
        state, first = self._state, request.first_seq(self._state.next_seq)
        stop = first + len(request.messages)
        payloads.extend(message.payload for message in request.messages)
        self._block.groups.extend(_groups(request, first))
        await self._link(state, request, first)
        self._add_run(state, Run(first, stop, sum(len(message.payload) for message in request.messages), state.number))
        state.next_seq, state.updated_ms = stop, max(request.now_ms, state.created_ms)
        if first == 0 and state.title is None:
            state.title = request.default_title
        retention = request.retention_of(state.retention)
        expire = retention.expire_ms
        state.expires_ms = None if expire is None else state.updated_ms + expire
        if not request.is_new_id:
            state.appends.append((hashed(request.append_id), first, stop))
        if retention.max_messages is not None:
            await keep_newest(state, retention.max_messages, self._block_of)
        return Appended(first, stop)

    def _add_run(self, state: State, run: Run) -> None:
        last = state.runs[-1] if state.runs else None
        if last is not None and last.name == run.name:
            holes = last.holes + run.first - last.stop
            state.runs[-1] = Run(last.first, run.stop, last.size + run.size, run.name, holes)
        else:
            state.runs.append(run)

    async def _link(self, state: State, request: AppendRequest, first: int) -> None:
        links = request.links
        if not (links.spans or links.early_results or links.open_calls):
            return
        called = await open_calls(self._log, self._prefix, state) if links.early_results else {}
        begin = self._block.groups[0].first
        for lo, hi in resolve(links, first, called):
            add_span(self._block.spans if lo >= begin else state.spans, lo, hi)
        state.calls.extend((call_id, -1) for call_id, _ in links.early_results if call_id in called)
        state.calls.extend((call_id, first + at) for call_id, at in links.open_calls)

    async def _block_of(self, run: Run) -> Block:
        assert self._state is not None
        return self._block if run.name == self._state.number else await self._log.block(self._prefix, run)

    def _kept(self, state: State, payloads: list[bytes]) -> tuple[list[Group], list[Span], list[bytes]]:
        """Return the content of the entry: retention may have dropped some messages of this batch."""
        run = state.runs[-1] if state.runs else None
        if run is None or run.name != state.number:
            return [], [], []
        groups = list(self._block.parts(run.first, run.stop))
        kept = sum(len(group.sizes) for group in groups)
        return groups, [span for span in self._block.spans if span[1] >= run.first], payloads[len(payloads) - kept :]


async def open_calls(log: Log, prefix: LogPrefix, state: State) -> dict[str, int]:
    """Return the unanswered tool calls of a thread and their positions, oldest first."""
    called: dict[str, int] = {}
    for call_id, at in (*(await log.snapshot(prefix, state.snapshot)).calls, *state.calls):
        called.pop(call_id, None)
        if at >= state.head_seq:
            called[call_id] = at
    for call_id in list(called)[: max(len(called) - MAX_OPEN_CALLS, 0)]:
        del called[call_id]
    return called


async def remembered_appends(log: Log, prefix: LogPrefix, state: State) -> list[tuple[str, int, int]]:
    """Return the newest append IDs of a thread."""
    snapshot = await log.snapshot(prefix, state.snapshot)
    return [*snapshot.appends, *state.appends][-REMEMBERED_APPENDS:]


def _groups(request: AppendRequest, first: int) -> list[Group]:
    groups: list[Group] = []
    at = first
    for (created, format), alike in groupby(
        request.messages, lambda message: (_created(request, message), message.format)
    ):
        sizes = tuple(len(message.payload) for message in alike)
        groups.append(Group(first, at, created, format, sizes))
        at += len(sizes)
    return groups


def _created(request: AppendRequest, message: NewMessage) -> int:
    return request.now_ms if message.created_at is None else to_milliseconds(message.created_at)
