"""``everthread delete``: forgets threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from everthread.cli.common import (
    EXIT_NOT_FOUND,
    Output,
    Place,
    confirm,
    dry_run_option,
    json_option,
    run,
    store_command,
    yes_option,
)

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.model import Thread, ThreadKey

EXAMPLES = """\b
Examples:
  everthread delete trip-to-rome --dry-run
  everthread delete trip-to-rome
  everthread delete @prod thread_1f0c thread_77aa --yes

\b
If one of the threads does not exist, the others are deleted and the exit status
is 3.
"""


@store_command(epilog=EXAMPLES)
@click.argument("thread_ids", metavar="THREAD...", nargs=-1, required=True)
@yes_option
@dry_run_option
@json_option
def delete(*, place: Place, thread_ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Forget threads, with all that belongs to them, for good."""
    output = Output(as_json=as_json)
    keys = [place.key(thread_id) for thread_id in dict.fromkeys(thread_ids)]
    found = run(lambda store: _find(store, keys), place)
    if found and not dry_run:
        messages = sum(thread.count for thread in found.values())
        confirm(f"Delete {len(found):,} of {len(keys):,} named threads, with {messages:,} messages?", yes=yes)
        run(lambda store: _delete(store, list(found)), place)
    for key in keys:
        _report(key, found.get(key), dry_run, output)
    if len(found) < len(keys):
        raise click.exceptions.Exit(EXIT_NOT_FOUND)


async def _find(store: Store, keys: Sequence[ThreadKey]) -> dict[ThreadKey, Thread]:
    found = {key: await store.get_thread(key) for key in keys}
    return {key: thread for key, thread in found.items() if thread is not None}


async def _delete(store: Store, keys: Sequence[ThreadKey]) -> None:
    for key in keys:
        await store.delete_thread(key)


def _report(key: ThreadKey, thread: Thread | None, dry_run: bool, output: Output) -> None:
    count = 0 if thread is None else thread.count
    value: dict[str, object] = {"thread_id": key.thread_id, "existed": thread is not None, "messages": count}
    if thread is None:
        output.result(f"{key.thread_id} does not exist", {**value, "deleted": False})
    else:
        done = "would be deleted" if dry_run else "is deleted"
        output.result(f"{key.thread_id} {done}, with {count:,} messages", {**value, "deleted": not dry_run})
