"""``everthread view``: look at threads in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.options import flag_option, store_command
from everthread.cli.plain import readable_location, say
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store

EXAMPLES = """\b
Examples:
  everthread view
  everthread view @prod
  everthread view --store sqlite:///threads.db --tenant acme
  everthread view @prod --port 8765 --no-open

\b
It listens on this machine alone (127.0.0.1), and prints an address with a token
that works once; then the browser has a cookie. It ends with Ctrl-C.

\b
On another machine, through SSH:
  ssh -L 8765:127.0.0.1:8765 host everthread view @prod --port 8765 --no-open
and open the printed address here.

\b
Without --write the store is opened read-only. With it, threads can be renamed,
forked and deleted, and the last turn removed.
"""


@store_command(epilog=EXAMPLES)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port to listen on. (default: a free one)"
)
@flag_option("--no-open", help="Print the address without opening the browser.")
@flag_option("--write", help="Allow changes of threads.")
def view(*, place: Place, port: int, no_open: bool, write: bool) -> None:
    """Look at threads in the browser: conversations, tool calls, faults."""
    import asyncio

    from everthread._extras import missing_extra

    try:
        from everthread.server.view.app import Shown
        from everthread.server.view.serving import serve
    except ImportError as error:
        raise missing_extra("server", error) from error

    def ready(address: str) -> None:
        say(address)
        say("Open this address in a browser. Ctrl-C ends the viewer.", err=True)
        if not no_open:
            asyncio.get_running_loop().run_in_executor(None, click.launch, address)

    def used(address: str) -> None:
        say(f"For another browser: {address}", err=True)

    async def work(store: Store) -> None:
        shown = Shown(store, place.tenant, readable_location(store.location), place.again, may_write=write)
        await serve(shown, port, on_ready=ready, on_used=used)

    run(work, msgspec.structs.replace(place, read_only=not write))
