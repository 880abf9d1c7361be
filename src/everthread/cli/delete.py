"""``everthread delete``: delete threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from everthread.cli.exit_statuses import EXIT_FAILED, EXIT_NOT_FOUND
from everthread.cli.json_output import DeletedThread
from everthread.cli.options import complete_store, destructive_command
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.runner import confirm, run
from everthread.errors import ConflictError, CorruptRecordError

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.model import ThreadKey

EXAMPLES = """\b
Examples:
  everthread delete trip-to-rome --dry-run
  everthread delete trip-to-rome
  everthread delete @prod thread_1f0c thread_77aa --yes

\b
If one of the threads does not exist, the others are deleted and the exit status
is 3. If another process writes to a thread while you are asked, the thread is
kept and the exit status is 1.
"""


@destructive_command(epilog=EXAMPLES)
@click.argument("thread_ids", metavar="THREAD...", nargs=-1, required=True, shell_complete=complete_store)
def delete(*, place: Place, thread_ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete threads with their messages, metadata and documents."""
    output = Output(as_json=as_json)
    keys = [place.key(thread_id) for thread_id in dict.fromkeys(thread_ids)]
    found = run(lambda store: _find(store, keys), place.to_read())
    kept: frozenset[ThreadKey] = frozenset()
    if found and not dry_run:
        messages = sum(extent.messages for extent in found.values())
        threads = f"{len(found):,} of {counted(len(keys), 'named thread')}"
        confirm(f"Delete {threads}, with {counted(messages, 'message')}?", yes=yes)
        kept = run(lambda store: _delete(store, found, as_shown=not yes), place)
    for key in keys:
        _report(key, found.get(key), output, dry_run=dry_run, is_kept=key in kept)
    if kept:
        raise click.exceptions.Exit(EXIT_FAILED)
    if len(found) < len(keys):
        raise click.exceptions.Exit(EXIT_NOT_FOUND)


class _Extent(NamedTuple):
    messages: int
    next_seq: int


async def _find(store: Store, keys: Sequence[ThreadKey]) -> dict[ThreadKey, _Extent]:
    found: dict[ThreadKey, _Extent] = {}
    for key in keys:
        try:
            thread = await store.get_thread(key)
        except CorruptRecordError:
            # A thread with damaged metadata must be deletable too.
            bounds = await store.read(key, limit=0)
            found[key] = _Extent(bounds.next_seq - bounds.head_seq, bounds.next_seq)
        else:
            if thread is not None:
                found[key] = _Extent(thread.count, thread.next_seq)
    return found


async def _delete(store: Store, found: Mapping[ThreadKey, _Extent], *, as_shown: bool) -> frozenset[ThreadKey]:
    """Delete threads; return those that were kept because they changed after the question."""
    kept: set[ThreadKey] = set()
    for key, extent in found.items():
        try:
            await store.delete_thread(key, expected_seq=extent.next_seq if as_shown else None)
        except ConflictError:
            kept.add(key)
    return frozenset(kept)


def _report(key: ThreadKey, extent: _Extent | None, output: Output, *, dry_run: bool, is_kept: bool) -> None:
    count = 0 if extent is None else extent.messages
    is_deleted = extent is not None and not dry_run and not is_kept
    if extent is None:
        outcome = "does not exist"
    elif is_kept:
        outcome = "is kept: another process wrote to it"
    else:
        outcome = f"{'would be' if dry_run else 'is'} deleted, with {counted(count, 'message')}"
    value = DeletedThread(thread_id=key.thread_id, existed=extent is not None, messages=count, deleted=is_deleted)
    output.result(f"{key.thread_id} {outcome}", value)
