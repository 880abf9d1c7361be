"""Compare a run's input with the stored thread, also beyond the window."""

from __future__ import annotations

from collections.abc import Sequence

from agent_framework import Message

from everthread.adapters.agent_framework.messages import from_stored
from everthread.adapters.agent_framework.replays import Replay, count_said, find_replay, is_transcript
from everthread.adapters.agent_framework.stored_rows import readable
from everthread.adapters.agent_framework.windows import Loaded
from everthread.contract import Store
from everthread.model import ThreadKey
from everthread.readable import read_last_around

MOST_TOOL_MESSAGES = 1000
"""Stored messages that are read for a comparison in addition to twice the number of input messages."""


async def compare(
    store: Store, key: ThreadKey, inputs: Sequence[Message], loaded: Loaded | None = None
) -> tuple[Replay, list[Message]]:
    """Return the stored part of an input, and the stored messages that it was compared with.

    Reads more of the thread only if the input is a transcript and the loaded messages do not show where it repeats
    them: a window may be shorter than one turn with its tool calls.

    Args:
        store: Where the thread is stored.
        key: The thread.
        inputs: The input of a run.
        loaded: The part of the thread that the run has loaded.
    """
    history = list(loaded.messages) if loaded else []
    complete = loaded is not None and loaded.complete
    replay = find_replay(inputs, history, complete=complete)
    if replay.messages or complete or not is_transcript(inputs):
        return replay, history
    before = loaded.positions[0] if loaded and loaded.positions else None
    count = 2 * len(inputs)
    most = count + MOST_TOOL_MESSAGES
    while not complete and len(history) < most and count_said(history) < count_said(inputs):
        page = await read_last_around(store, key, min(count, most - len(history)), before=before)
        history[:0] = readable(page, key, from_stored)[1]
        complete = not page or page[0].seq <= page.head_seq
        before, count = (page[0].seq if page else 0), 2 * count
    return find_replay(inputs, history, complete=complete), history
