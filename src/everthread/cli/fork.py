"""``everthread fork``: begin a new thread with the messages of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.json_output import ForkedThread
from everthread.cli.options import dry_run_option, json_option, number_option, store_command, thread_argument
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.operations.fork import Forked

EXAMPLES = """\b
Examples:
  everthread show trip-to-rome
  everthread fork trip-to-rome --at 12
  everthread fork trip-to-rome --at 12 --as trip-to-naples

\b
Positions are the numbers after # in the output of show. The copy ends before --at,
or earlier if a tool call would lose its result. After an interruption, run the
same command again to finish the fork.
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@number_option("--at", help="Position before which to stop. (default: the end)", metavar="POSITION")
@click.option("--as", "new_id", metavar="ID", help="ID of the new thread. (default: THREAD-fork-POSITION)")
@dry_run_option
@json_option
def fork(*, place: Place, thread_id: str, at: int | None, new_id: str | None, dry_run: bool, as_json: bool) -> None:
    """Begin a new thread with the first messages of another one."""
    output = Output(as_json=as_json)
    forked = run(lambda store: _fork(store, place, thread_id, at, new_id, dry_run=dry_run), place)
    name = forked.key.thread_id
    value = ForkedThread(
        thread_id=name,
        source=thread_id,
        stop=forked.stop,
        messages=forked.messages,
        resumed=forked.resumed,
        dry_run=dry_run,
        unreadable=tuple(each.seq for each in forked.unreadable),
    )
    done = "would hold" if dry_run else "holds"
    output.result(f"{name} {done} the {counted(forked.messages, 'message')} before position {forked.stop}", value)
    for each in forked.unreadable:
        output.note(f"Left out: {each.reason}")
    if forked.unreadable:
        raise click.exceptions.Exit(EXIT_FAILED)


async def _fork(
    store: Store, place: Place, thread_id: str, at: int | None, new_id: str | None, *, dry_run: bool
) -> Forked:
    from everthread.listing import existing_thread
    from everthread.operations.fork import fork, plan

    source = place.key(thread_id)
    stop = (await existing_thread(store, source)).next_seq if at is None else at
    target = place.key(f"{thread_id}-fork-{stop}" if new_id is None else new_id)
    return await (plan if dry_run else fork)(store, source, target, at=stop)
