"""``everthread undo``: drops the last turns of a thread."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.common import Output, Place, confirm, counted, destructive_command, run, thread_argument
from everthread.errors import ConflictError
from everthread.model import Message

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.model import ThreadKey

EXAMPLES = """\b
Examples:
  everthread undo trip-to-rome --dry-run
  everthread undo trip-to-rome
  everthread undo @prod trip-to-rome --turns 3 --yes

\b
A turn is what was stored in one step: usually what the user said, with the reply
and the tool calls that led to it.
"""
MOST_SHOWN = 20


@destructive_command(epilog=EXAMPLES)
@thread_argument
@click.option("--turns", "-n", type=click.IntRange(min=1), default=1, show_default=True, help="How many.")
def undo(*, place: Place, thread_id: str, turns: int, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Drop the last turns of a thread, for good."""
    output = Output(as_json=as_json)
    key = place.key(thread_id)
    tail = run(lambda store: _find(store, key, turns), place)
    value: dict[str, object] = {"thread_id": thread_id, "stop": tail.stop}
    if dry_run or not tail.count:
        value |= {"removed": 0, "would_remove": tail.count}
        output.result(f"{counted(tail.count, 'message')} would be dropped", value)
        _show(tail, output)
        return
    if not yes:
        _show(tail, output)
    confirm(f"Drop {counted(tail.count, 'message')} of {thread_id}?", yes=yes)
    removed = run(lambda store: _drop(store, key, tail), place)
    output.result(f"Dropped {counted(removed, 'message')}", {**value, "removed": removed})


class _Tail(msgspec.Struct, frozen=True):
    """What would go: all from ``stop`` on, as it was seen, of which ``first`` is the beginning."""

    stop: int
    next_seq: int
    count: int
    first: list[Message]


async def _find(store: Store, key: ThreadKey, turns: int) -> _Tail:
    from everthread.contract import read_all
    from everthread.threads import existing_thread, safe_cut, undo_position

    thread = await existing_thread(store, key)
    stop = await safe_cut(store, key, await undo_position(store, key, turns))
    count, first = 0, list[Message]()
    async for message in read_all(store, key, start=stop):
        count += 1
        if len(first) < MOST_SHOWN:
            first.append(message)
    return _Tail(stop, thread.next_seq, count, first)


async def _drop(store: Store, key: ThreadKey, tail: _Tail) -> int:
    try:
        return (await store.truncate(key, stop=tail.stop, expected_seq=tail.next_seq)).removed
    except ConflictError as error:
        raise ConflictError(f"Somebody wrote to {key} meanwhile: nothing was dropped.", error.actual) from None


def _show(tail: _Tail, output: Output) -> None:
    from everthread.cli.rendering import transcript

    if output.as_json:
        return
    output.show(*transcript(tail.first, now=datetime.now().astimezone(), width=output.width))
    if tail.count > len(tail.first):
        output.show(f"… and {tail.count - len(tail.first):,} more")
