"""``everthread delete``: forgets threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from everthread.cli.common import (
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    Output,
    Place,
    complete_store,
    confirm,
    counted,
    destructive_command,
    run,
)
from everthread.errors import ConflictError

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
is 3. A thread to which somebody writes while you are asked is kept (status 1).
"""


@destructive_command(epilog=EXAMPLES)
@click.argument("thread_ids", metavar="THREAD...", nargs=-1, required=True, shell_complete=complete_store)
def delete(*, place: Place, thread_ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Forget threads, with all that belongs to them, for good."""
    output = Output(as_json=as_json)
    keys = [place.key(thread_id) for thread_id in dict.fromkeys(thread_ids)]
    found = run(lambda store: _find(store, keys), place)
    kept: frozenset[ThreadKey] = frozenset()
    if found and not dry_run:
        messages = sum(thread.count for thread in found.values())
        named = f"{len(found):,} of {counted(len(keys), 'named thread')}"
        confirm(f"Delete {named}, with {counted(messages, 'message')}?", yes=yes)
        kept = run(lambda store: _delete(store, found, as_shown=not yes), place)
    for key in keys:
        _report(key, found.get(key), output, dry_run=dry_run, is_kept=key in kept)
    if kept:
        raise click.exceptions.Exit(EXIT_FAILED)
    if len(found) < len(keys):
        raise click.exceptions.Exit(EXIT_NOT_FOUND)


async def _find(store: Store, keys: Sequence[ThreadKey]) -> dict[ThreadKey, Thread]:
    found = {key: await store.get_thread(key) for key in keys}
    return {key: thread for key, thread in found.items() if thread is not None}


async def _delete(store: Store, found: Mapping[ThreadKey, Thread], *, as_shown: bool) -> frozenset[ThreadKey]:
    """Deletes threads; gives those that are not any more what somebody was asked about, which stay."""
    kept: set[ThreadKey] = set()
    for key, thread in found.items():
        try:
            await store.delete_thread(key, expected_seq=thread.next_seq if as_shown else None)
        except ConflictError:
            kept.add(key)
    return frozenset(kept)


def _report(key: ThreadKey, thread: Thread | None, output: Output, *, dry_run: bool, is_kept: bool) -> None:
    count = 0 if thread is None else thread.count
    is_deleted = thread is not None and not dry_run and not is_kept
    value = {"thread_id": key.thread_id, "existed": thread is not None, "messages": count, "deleted": is_deleted}
    if thread is None:
        told = "does not exist"
    elif is_kept:
        told = "is kept: somebody wrote to it meanwhile"
    else:
        told = f"{'would be' if dry_run else 'is'} deleted, with {counted(count, 'message')}"
    output.result(f"{key.thread_id} {told}", value)
