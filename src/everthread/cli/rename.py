"""``everthread rename``: gives a thread a title."""

from __future__ import annotations

import click

from everthread.cli.common import Output, Place, json_option, run, store_command, thread_argument

EXAMPLES = """\b
Examples:
  everthread rename thread_1f0c "Trip to Rome"
  everthread rename @prod thread_1f0c "Trip to Rome" --json
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@click.argument("title")
@json_option
def rename(*, place: Place, thread_id: str, title: str, as_json: bool) -> None:
    """Give a thread another title. Its id stays."""
    output = Output(as_json=as_json)
    thread = run(lambda store: store.update_thread(place.key(thread_id), title=title), place)
    done = f"is now called {title}" if title else "has no title now"
    output.result(f"{thread_id} {done}", {"thread_id": thread_id, "title": thread.title})
