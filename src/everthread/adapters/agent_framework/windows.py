"""Read the part of a thread that a run's model gets: a window, and the instructions at the thread's head."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from agent_framework import Message

from everthread.adapters.agent_framework.messages import from_stored
from everthread.adapters.agent_framework.replays import is_same
from everthread.adapters.agent_framework.sequence import messages_of_calls
from everthread.adapters.agent_framework.stored_rows import readable
from everthread.adapters.agent_framework.summary_window import SummaryWindow, summary_message
from everthread.adapters.contents import CALLS, call_id_of, call_ids, contents_of
from everthread.contract import Store
from everthread.model import Message as StoredMessage
from everthread.model import MessagePage, ThreadKey
from everthread.operations.summarize import Window
from everthread.readable import read_around, read_last_around

REMEMBERED_THREADS = 1000
MOST_OLDER_MESSAGES = 10_000
"""Messages before a window among which the calls that a run's input answers are looked for."""
INSTRUCTIONS = frozenset({"system", "developer"})


@dataclass
class Loaded:
    """The stored messages that a run loads.

    Attributes:
        messages: The thread's messages, at least the newest part.
        positions: The position of each message in its thread.
        turns: The turn of each message.
        lead: Messages in front of the window: the instructions at the thread's head, a summary.
        complete: The messages begin with the thread's first one.
        older: Messages directly before these, if the input answers a call there; and the turn of each.
        asked: Those of the older messages that belong to that call.
    """

    messages: list[Message]
    positions: Sequence[int]
    turns: Sequence[int]
    lead: list[Message]
    complete: bool
    older: list[tuple[Message, int]] = field(default_factory=list[tuple[Message, int]])
    asked: list[Message] = field(default_factory=list[Message])

    @property
    def with_turns(self) -> Iterator[tuple[Message, int]]:
        """Give the older messages and the others, each with its turn."""
        return chain(self.older, zip(self.messages, self.turns, strict=False))

    def split(self, history: list[Message], inputs: Sequence[Message]) -> tuple[list[Message], list[Message]]:
        """Split the messages for a run's model into those in front of the window, and the rest.

        Leaves out a lead that an input repeats.
        """
        front = {id(message) for message in (*self.lead, *self.asked)}
        if not front:
            return [], history
        asked = {id(message) for message in self.asked}
        lead = [
            each
            for each in history
            if id(each) in front and (id(each) in asked or not any(is_same(each, given) for given in inputs))
        ]
        return lead, [each for each in history if id(each) not in front]


class WindowReader:
    """Read the newest messages of threads, all of them, or a summary and the messages after it.

    The system message at a thread's head, if it is stored, stays in front of every window. It costs a read of one
    message for a thread that is longer than its window: at the same time as the window, once the thread is known to be.

    Args:
        window: The number of messages, a `SummaryWindow`, or ``None`` for all.
    """

    def __init__(self, window: int | SummaryWindow | None) -> None:
        self._window = window
        # Only which threads are long: their messages may change, and another thread may get the same key.
        self._long: OrderedDict[ThreadKey, None] = OrderedDict()

    async def read(self, store: Store, key: ThreadKey, inputs: Sequence[Message] = ()) -> Loaded:
        """Return the messages of a thread for a run's model, with the older calls that these inputs answer."""
        if self._window is None:
            head, window = None, Window(None, await read_around(store, key))
        elif key in self._long:
            head, window = await asyncio.gather(_first(store, key), self._newest(store, key))
        else:
            head, window = None, await self._newest(store, key)
        page = window.page
        lead = [summary_message(window.summary)] if window.summary else []
        if (page or window.summary) and (not page or page[0].seq > page.head_seq):
            self._remember(key)
            if head is None or head.seq != page.head_seq:
                head = await _first(store, key, page.head_seq)
            _, first = readable([head] if head else [], key, from_stored)
            lead = [*(message for message in first if message.role in INSTRUCTIONS), *lead]
        rows, found = readable(page, key, from_stored)
        loaded = Loaded(
            found,
            [row.seq for row in rows],
            [row.turn for row in rows],
            lead,
            complete=page[0].seq == 0 if page else self._window != 0 and window.summary is None,
        )
        await _find_calls(store, key, loaded, page, inputs)
        return loaded

    async def _newest(self, store: Store, key: ThreadKey) -> Window:
        if isinstance(self._window, SummaryWindow):
            return await self._window.read(store, key)
        if self._window == 0:
            return Window(None, MessagePage((), 0, 0))
        return Window(None, await read_last_around(store, key, self._window or 0))

    def _remember(self, key: ThreadKey) -> None:
        self._long[key] = None
        self._long.move_to_end(key)
        if len(self._long) > REMEMBERED_THREADS:
            self._long.popitem(last=False)


async def _find_calls(
    store: Store, key: ThreadKey, loaded: Loaded, page: MessagePage, inputs: Sequence[Message]
) -> None:
    """Load the messages between a window and the older calls that the inputs answer or approve."""
    answered = call_ids(inputs, "function_result", "function_approval_response")
    if not answered:
        return
    wanted = answered - call_ids(inputs, *CALLS) - _calls_made(loaded.messages)
    missing, count = set(wanted), 100
    before, is_more = (page[0].seq if page else None), not loaded.complete
    while missing and is_more and len(loaded.older) < MOST_OLDER_MESSAGES:
        older = await read_last_around(store, key, count, before=before)
        rows, found = readable(older, key, from_stored)
        loaded.older[:0] = [(message, row.turn) for row, message in zip(rows, found, strict=True)]
        missing -= _calls_made(found)
        is_more = bool(older) and older[0].seq > older.head_seq
        before, count = (older[0].seq if older else None), 2 * count
    if wanted - missing:
        loaded.asked = messages_of_calls([message for message, _ in loaded.older], wanted)


def _calls_made(messages: Sequence[Message]) -> set[str]:
    """Return the ids of the calls that these messages make: a request alone may repeat one for an older call."""
    requests = contents_of(messages, "function_approval_request")
    hosted = (call_id_of(each) for each in requests if getattr(each.function_call, "hosted", True))
    return {*call_ids(messages, "function_call"), *(call_id for call_id in hosted if call_id)}


async def _first(store: Store, key: ThreadKey, start: int = 0) -> StoredMessage | None:
    page = await store.read(key, start=start, limit=1)
    return page[0] if page else None
