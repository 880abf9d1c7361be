"""``everthread fork``: a new thread that begins like another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.common import (
    Output,
    Place,
    counted,
    dry_run_option,
    json_option,
    run,
    store_command,
    thread_argument,
)

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.forking import Forked

EXAMPLES = """\b
Examples:
  everthread show trip-to-rome
  everthread fork trip-to-rome --at 12
  everthread fork trip-to-rome --at 12 --as trip-to-naples

\b
Positions are the numbers after # in what show prints. The copy holds the messages
before --at, fewer where a tool call would lose its result. Run again after an
interruption, the same command finishes the same fork.
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@click.option("--at", type=click.IntRange(min=0), metavar="POSITION", help="Copy what is before. Default: all.")
@click.option("--as", "new_id", metavar="ID", help="The new thread's id. Default: THREAD-fork-POSITION.")
@dry_run_option
@json_option
def fork(*, place: Place, thread_id: str, at: int | None, new_id: str | None, dry_run: bool, as_json: bool) -> None:
    """Begin a new thread with the first part of another one."""
    output = Output(as_json=as_json)
    forked = run(lambda store: _fork(store, place, thread_id, at, new_id, dry_run=dry_run), place)
    name = forked.key.thread_id
    done = "would hold" if dry_run else "holds"
    value = {"thread_id": name, "source": thread_id, "stop": forked.stop, "messages": forked.messages}
    output.result(
        f"{name} {done} the {counted(forked.messages, 'message')} before position {forked.stop}",
        {**value, "resumed": forked.resumed, "dry_run": dry_run},
    )


async def _fork(
    store: Store, place: Place, thread_id: str, at: int | None, new_id: str | None, *, dry_run: bool
) -> Forked:
    from everthread.forking import fork, plan
    from everthread.threads import existing_thread

    source = place.key(thread_id)
    stop = (await existing_thread(store, source)).next_seq if at is None else at
    target = place.key(f"{thread_id}-fork-{stop}" if new_id is None else new_id)
    return await (plan if dry_run else fork)(store, source, target, at=stop)
