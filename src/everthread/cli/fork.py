"""``everthread fork``: begin a new thread with the messages of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.json_output import ForkedThread, LostParts
from everthread.cli.options import dry_run_option, json_option, number_option, store_command, thread_argument
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.runner import run
from everthread.messages.converting.support import ASPECTS, FRAMEWORKS

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.operations.fork import Forked

EXAMPLES = """\b
Examples:
  everthread show trip-to-rome
  everthread fork trip-to-rome --at 12
  everthread fork trip-to-rome --at 12 --id trip-to-naples
  everthread fork trip-to-rome --as openai-agents --dry-run

\b
Positions are the numbers after # in the output of show. The copy ends before --at,
or earlier if a tool call would lose its result. After an interruption, run the
same command again to finish the fork.

\b
With --as, messages of other frameworks are converted. The report lists the parts
that the framework does not express, and what became of them.
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@number_option("--at", help="Position before which to stop. (default: the end)", metavar="POSITION")
@click.option(
    "--id",
    "new_id",
    metavar="ID",
    help="ID of the new thread. (default: THREAD-fork-POSITION, or THREAD-FRAMEWORK-POSITION)",
)
@click.option("--as", "framework", type=click.Choice(list(FRAMEWORKS)), help="Framework that continues the new thread.")
@dry_run_option
@json_option
def fork(
    *,
    place: Place,
    thread_id: str,
    at: int | None,
    new_id: str | None,
    framework: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Begin a new thread with the first messages of another one."""
    output = Output(as_json=as_json)
    forked = run(
        lambda store: _fork(store, place, thread_id, at, new_id=new_id, framework=framework, dry_run=dry_run), place
    )
    name = forked.key.thread_id
    value = ForkedThread(
        thread_id=name,
        source=thread_id,
        stop=forked.stop,
        messages=forked.messages,
        resumed=forked.resumed,
        dry_run=dry_run,
        unreadable=tuple(each.seq for each in forked.unreadable),
        framework=framework,
        lost=tuple(
            LostParts(aspect=each.aspect, count=each.count, first=each.first_seq, became=ASPECTS[each.aspect].otherwise)
            for each in forked.lost
        ),
    )
    done = "would hold" if dry_run else "holds"
    messages = counted(forked.messages, "message")
    held = f"{messages} for {framework}, made from those" if framework else f"the {messages}"
    output.result(f"{name} {done} {held} before position {forked.stop}", value)
    for each in forked.lost:
        aspect = ASPECTS[each.aspect]
        output.note(f"{aspect.name}, {each.count:,} from position {each.first_seq}: {aspect.otherwise}")
    for each in forked.unreadable:
        output.note(f"Left out: {each.reason}")
    if forked.unreadable:
        raise click.exceptions.Exit(EXIT_FAILED)


async def _fork(
    store: Store,
    place: Place,
    thread_id: str,
    at: int | None,
    *,
    new_id: str | None,
    framework: str | None,
    dry_run: bool,
) -> Forked:
    from everthread.listing import existing_thread
    from everthread.operations.fork import fork, plan

    source = place.key(thread_id)
    stop = (await existing_thread(store, source)).next_seq if at is None else at
    target = place.key(f"{thread_id}-{framework or 'fork'}-{stop}" if new_id is None else new_id)
    format = FRAMEWORKS[framework] if framework else None
    return await (plan if dry_run else fork)(store, source, target, at=stop, format=format)
