"""``everthread tag``: change the metadata of a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.json_output import TaggedThread
from everthread.cli.options import Tag, json_option, store_command, thread_argument
from everthread.cli.output import Output
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.model import Thread, ThreadKey

EXAMPLES = """\b
Examples:
  everthread tag trip-to-rome customer=acme stars:=5
  everthread tag trip-to-rome --remove customer
  everthread tag trip-to-rome
  everthread threads --tag customer=acme
"""


@store_command(epilog=EXAMPLES)
@thread_argument
@click.argument("tags", type=Tag(), nargs=-1, metavar="[KEY=TEXT | KEY:=JSON]...")
@click.option("--remove", "removed", multiple=True, metavar="KEY", help="Key to remove. Repeatable.")
@json_option
def tag(
    *, place: Place, thread_id: str, tags: tuple[tuple[str, object], ...], removed: tuple[str, ...], as_json: bool
) -> None:
    """Set or remove metadata of a thread, and print all of it."""
    output = Output(as_json=as_json)
    place = place if tags or removed else place.to_read()
    thread = run(lambda store: _tag(store, place.key(thread_id), dict(tags), removed), place)
    lines = (
        f"{name}={value}" if isinstance(value, str) else f"{name}:={msgspec.json.encode(value).decode()}"
        for name, value in sorted(thread.metadata.items())
    )
    if as_json:
        output.result("", TaggedThread(thread_id=thread_id, metadata=dict(thread.metadata)))
    else:
        output.show(*lines)


async def _tag(store: Store, key: ThreadKey, tags: dict[str, object], removed: tuple[str, ...]) -> Thread:
    from everthread.listing import existing_thread, tag_thread

    return await (tag_thread(store, key, tags, remove=removed) if tags or removed else existing_thread(store, key))
