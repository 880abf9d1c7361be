"""``everthread tag``: a thread's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.common import Output, Place, Tag, json_option, run, store_command, thread_argument

if TYPE_CHECKING:
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
@click.option("--remove", "removed", multiple=True, metavar="KEY", help="Take this key away. Repeatable.")
@json_option
def tag(
    *, place: Place, thread_id: str, tags: tuple[tuple[str, object], ...], removed: tuple[str, ...], as_json: bool
) -> None:
    """Change some of a thread's metadata, and print it."""
    output = Output(as_json=as_json)
    thread = run(lambda store: _tag(store, place.key(thread_id), dict(tags), removed), place)
    if as_json:
        output.result("", {"thread_id": thread_id, "metadata": thread.metadata})
    else:
        for name, value in sorted(thread.metadata.items()):
            output.show(f"{name}={value}" if isinstance(value, str) else f"{name}:={_json(value)}")


async def _tag(store: Store, key: ThreadKey, tags: dict[str, object], removed: tuple[str, ...]) -> Thread:
    from everthread.threads import existing_thread, tag_thread

    return await (tag_thread(store, key, tags, remove=removed) if tags or removed else existing_thread(store, key))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
