"""``everthread retention``: limit what one thread keeps, independently of its store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import click

from everthread.cli.json_output import ThreadRetention
from everthread.cli.options import (
    age_option,
    flag_option,
    json_option,
    number_option,
    store_command,
    thread_argument,
    yes_option,
)
from everthread.cli.output import Output
from everthread.cli.runner import confirm, run
from everthread.json_form import limits
from everthread.model import Retention

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.model import Thread, ThreadKey

EXAMPLES = """\b
Examples:
  everthread retention trip-to-rome                       print the limits in force
  everthread retention trip-to-rome --max-messages 500
  everthread retention trip-to-rome --max-messages 500 --expire-after 90d
  everthread retention trip-to-rome --keep-all
  everthread retention trip-to-rome --inherit

\b
The options replace the thread's retention as a whole: a limit that is not given is
removed. Messages are dropped from the next append on. The time until the thread is
deleted counts from its last activity; if that time has already passed, the command
asks first. --keep-all keeps everything, also against the store's limits; --inherit
applies these again.
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@number_option("--max-messages", help="Newest messages to keep. (default: unchanged)")
@age_option("--expire-after", help="Delete the thread after this time without activity, e.g. 90d. (default: unchanged)")
@flag_option("--keep-all", help="Keep everything.")
@flag_option("--inherit", help="Apply the store's limits again.")
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
    """Set how many messages a thread keeps, and for how long."""
    has_limits = max_messages is not None or expire_after is not None
    if sum((has_limits, keep_all, inherit)) > 1:
        raise click.UsageError("Give limits, or --keep-all, or --inherit.")
    output, key = Output(as_json=as_json), place.key(thread_id)
    if has_limits or keep_all:
        thread = _set(place, key, Retention(max_messages, expire_after), yes=yes)
    elif inherit:
        thread = _set(place, key, "inherit", yes=yes)
    else:
        thread = _present(place, key)
    _report(thread, output)


def _set(place: Place, key: ThreadKey, wanted: Retention | Literal["inherit"], *, yes: bool) -> Thread:
    in_force = wanted if isinstance(wanted, Retention) else _of_store(place.url)
    if in_force.expire_after is not None and not yes:
        idle = datetime.now(UTC) - _present(place, key).updated_at
        if idle >= in_force.expire_after:
            confirm(f"{key.thread_id} has been idle for longer, so it is deleted immediately. Continue?", yes=False)
    return run(lambda store: store.update_thread(key, retention=wanted), place)


def _of_store(url: str) -> Retention:
    from everthread._url_options import engine_options

    return engine_options(url, {})[1].get("retention", Retention())


def _present(place: Place, key: ThreadKey) -> Thread:
    from everthread.listing import existing_thread

    return run(lambda store: existing_thread(store, key), place.to_read())


def _report(thread: Thread, output: Output) -> None:
    from everthread.cli.rendering import retention_words

    value = ThreadRetention(
        thread_id=thread.key.thread_id, retention=limits(thread.retention), expires=thread.expires_at
    )
    output.result(f"{thread.key.thread_id} keeps {retention_words(thread, datetime.now().astimezone())}", value)
