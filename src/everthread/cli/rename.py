"""``everthread rename``: change the title of a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.json_output import RenamedThread
from everthread.cli.options import json_option, store_command, thread_argument
from everthread.cli.output import Output
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place

EXAMPLES = """\b
Examples:
  everthread rename thread_1f0c "Trip to Rome"
  everthread rename @prod thread_1f0c "Trip to Rome" --json
  everthread rename thread_1f0c ""                        remove the title
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@click.argument("title")
@json_option
def rename(*, place: Place, thread_id: str, title: str, as_json: bool) -> None:
    """Change the title of a thread. Its ID stays the same."""
    output = Output(as_json=as_json)
    thread = run(lambda store: store.update_thread(place.key(thread_id), title=title), place)
    done = f"is now called {title}" if title else "has no title now"
    output.result(f"{thread_id} {done}", RenamedThread(thread_id=thread_id, title=thread.title))
