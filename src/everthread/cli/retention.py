"""``everthread retention``: what one thread keeps, whatever its store says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import click

from everthread.cli.common import (
    Age,
    Output,
    Place,
    confirm,
    json_option,
    run,
    store_command,
    thread_argument,
    yes_option,
)
from everthread.model import Retention

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.model import Thread, ThreadKey

EXAMPLES = """\b
Examples:
  everthread retention trip-to-rome                       what holds now
  everthread retention trip-to-rome --max-messages 500
  everthread retention trip-to-rome --max-messages 500 --expire-after 90d
  everthread retention trip-to-rome --keep-all
  everthread retention trip-to-rome --inherit

\b
It takes the place of what was set before, as a whole: a limit that is not given
is none. Messages are dropped from the next append on; the time until the thread
is forgotten counts from its last activity. --keep-all keeps everything even where
the store would not; --inherit leaves it to the store again. A thread that would be
forgotten at once is so only after a question, or with --yes.
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@click.option("--max-messages", type=click.IntRange(min=0), metavar="N", help="Keep at most its newest N messages.")
@click.option("--expire-after", type=Age(), metavar="AGE", help="Forget it without activity for so long: 24h, 90d.")
@click.option("--keep-all", is_flag=True, help="Keep everything, for good.")
@click.option("--inherit", is_flag=True, help="Let the store's own hold again.")
@yes_option
@json_option
def retention(
    *,
    place: Place,
    thread_id: str,
    max_messages: int | None,
    expire_after: timedelta | None,
    keep_all: bool,
    inherit: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Set how much of a thread is kept, and how long."""
    has_limits = max_messages is not None or expire_after is not None
    if sum((has_limits, keep_all, inherit)) > 1:
        raise click.UsageError("Give limits, or --keep-all, or --inherit.")
    output, key = Output(as_json=as_json), place.key(thread_id)
    if has_limits or keep_all:
        thread = _set(place, key, Retention(max_messages, expire_after), yes=yes)
    elif inherit:
        thread = _set(place, key, "inherit", yes=yes)
    else:
        thread = run(lambda store: _look(store, key), place)
    _report(thread, output)


def _set(place: Place, key: ThreadKey, wanted: Retention | Literal["inherit"], *, yes: bool) -> Thread:
    in_force = wanted if isinstance(wanted, Retention) else _of_store(place.url)
    if in_force.expire_after is not None:
        idle = datetime.now(UTC) - run(lambda store: _look(store, key), place).updated_at
        if idle >= in_force.expire_after:
            confirm(f"{key.thread_id} has been idle for longer, and is forgotten at once. Do it?", yes=yes)
    return run(lambda store: store.update_thread(key, retention=wanted), place)


def _of_store(url: str) -> Retention:
    from everthread.settings import engine_options

    return engine_options(url, {})[1].get("retention", Retention())


async def _look(store: Store, key: ThreadKey) -> Thread:
    from everthread.threads import existing_thread

    return await existing_thread(store, key)


def _report(thread: Thread, output: Output) -> None:
    from everthread.cli.rendering import retention_words

    value = {
        "thread_id": thread.key.thread_id,
        "retention": None if thread.retention is None else limits(thread.retention),
        "expires": thread.expires_at,
    }
    output.result(f"{thread.key.thread_id} keeps {retention_words(thread, datetime.now().astimezone())}", value)


def limits(retention: Retention) -> dict[str, object]:
    """A retention as an object for ``--json``: a count of messages, and seconds."""
    expire = retention.expire_after
    return {
        "max_messages": retention.max_messages,
        "expire_after": None if expire is None else expire.total_seconds(),
    }
