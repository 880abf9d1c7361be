"""``everthread undo``: remove the last turns of a thread."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from everthread.cli.json_output import UndoneTurns
from everthread.cli.options import destructive_command, number_option, thread_argument
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.runner import confirm, run
from everthread.errors import ConflictError
from everthread.model import Message

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.model import ThreadKey

EXAMPLES = """\b
Examples:
  everthread undo trip-to-rome --dry-run
  everthread undo trip-to-rome
  everthread undo @prod trip-to-rome --turns 3 --yes

\b
A turn is stored in one step: usually the user's message, with the reply and the
tool calls that led to it.
"""
MOST_SHOWN = 20


@destructive_command(epilog=EXAMPLES)
@thread_argument
@number_option("--turns", "-n", help="Turns to remove.", least=1, default=1)
def undo(*, place: Place, thread_id: str, turns: int, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the last turns of a thread."""
    output = Output(as_json=as_json)
    key = place.key(thread_id)
    tail = run(lambda store: _find(store, key, turns), place.to_read())
    if dry_run or not tail.count:
        value = UndoneTurns(thread_id=thread_id, stop=tail.stop, removed=0, would_remove=tail.count)
        output.result(f"{counted(tail.count, 'message')} would be removed", value)
        _show(tail, output)
        return
    if not yes:
        _show(tail, output)
    confirm(f"Remove {counted(tail.count, 'message')} of {thread_id}?", yes=yes)
    removed = run(lambda store: _remove(store, key, tail), place)
    value = UndoneTurns(thread_id=thread_id, stop=tail.stop, removed=removed)
    output.result(f"Removed {counted(removed, 'message')}", value)


class _Tail(msgspec.Struct, frozen=True):
    """The messages from ``stop`` on, of which ``first`` are the first, and the end of the thread when it was read."""

    stop: int
    next_seq: int
    count: int
    first: list[Message]


async def _find(store: Store, key: ThreadKey, turns: int) -> _Tail:
    from everthread.contract import read_all
    from everthread.listing import existing_thread, safe_cut, undo_position

    thread = await existing_thread(store, key)
    stop = await safe_cut(store, key, await undo_position(store, key, turns))
    count, first = 0, list[Message]()
    async for message in read_all(store, key, start=stop):
        count += 1
        if len(first) < MOST_SHOWN:
            first.append(message)
    return _Tail(stop, thread.next_seq, count, first)


async def _remove(store: Store, key: ThreadKey, tail: _Tail) -> int:
    try:
        return (await store.truncate(key, stop=tail.stop, expected_seq=tail.next_seq)).removed
    except ConflictError as error:
        raise ConflictError(f"Another process wrote to {key}: nothing was removed.", error.actual) from None


def _show(tail: _Tail, output: Output) -> None:
    from everthread.cli.rendering import transcript

    if output.as_json:
        return
    output.show(*transcript(tail.first, now=datetime.now().astimezone(), width=output.width))
    if tail.count > len(tail.first):
        output.show(f"… and {tail.count - len(tail.first):,} more")
