"""``everthread recall``: keep the index for ``everthread search --by-meaning``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_STATUSES
from everthread.cli.indexes import MODELS_HELP, embedder_named, index_of, index_options
from everthread.cli.json_output import IndexState
from everthread.cli.options import SuggestingGroup, flag_option, json_option, store_command
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.progress import progress
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.recall.follower import Followed, Lag

EXAMPLES = """\b
Examples:
  everthread recall follow --once
  everthread recall follow @prod --tenant acme
  everthread recall status @prod
  everthread search --by-meaning "a customer who was charged twice\""""

FOLLOWING = f"""\b
Examples:
  everthread recall follow --once                  bring the index up to date
  everthread recall follow @prod --tenant acme     and keep it so, until Ctrl-C

\b
Reads the store and never writes to its threads. It may be interrupted and started
again at any time. Deleted and changed turns leave the index in the next pass over all
threads, at most ten minutes later; in a SQLite store's own file, immediately. A search
never shows them.

{MODELS_HELP}
"""
STATUS = """\b
Examples:
  everthread recall status
  everthread recall status @prod --tenant acme --json
"""


@click.group(cls=SuggestingGroup, epilog=f"{EXAMPLES}\n\n{EXIT_STATUSES}")
def recall() -> None:
    """Keep an index to find turns by their meaning."""


@store_command("follow", epilog=FOLLOWING)
@index_options
@flag_option("--once", help="End when the index is up to date.")
@flag_option("--encrypted", help="Index an encrypted store too: vectors are not encrypted.")
@json_option
def follow(
    *, place: Place, index_path: Path | None, embedder: str | None, once: bool, encrypted: bool, as_json: bool
) -> None:
    """Index new turns of a tenant, until Ctrl-C."""
    model, output = embedder_named(embedder), Output(as_json=as_json)

    async def work(store: Store) -> IndexState:
        from everthread.recall import Follower

        index = index_of(store, place, index_path, model, create=True)
        try:
            follower = Follower(store, index, model, tenants=(place.tenant,), allow_encrypted=encrypted)
            with progress("Indexing", unit="passages") as advance:
                done = await follower.catch_up(on_added=advance)
            if not once:
                output.note(f"Indexed {counted(done.added, 'passage')}. Following; Ctrl-C ends it.")
                await follower.follow()
            return _state(await index.count(place.tenant), await follower.lag(), done)
        finally:
            await index.aclose()

    state = run(work, place)
    output.result(_text(state), state)


@store_command("status", epilog=STATUS, read_only=True)
@index_options
@json_option
def status(*, place: Place, index_path: Path | None, embedder: str | None, as_json: bool) -> None:
    """Report the contents of an index, and the messages that it lacks."""
    model = embedder_named(embedder)

    async def work(store: Store) -> IndexState:
        from everthread.recall import Follower
        from everthread.recall.follower import Followed

        index = index_of(store, place, index_path, model, create=False)
        try:
            follower = Follower(store, index, model, tenants=(place.tenant,), allow_encrypted=True)
            return _state(await index.count(place.tenant), await follower.lag(), Followed())
        finally:
            await index.aclose()

    state = run(work, place)
    Output(as_json=as_json).result(_text(state), state)


recall.add_command(follow)
recall.add_command(status)


def _state(passages: int, lag: Lag, done: Followed) -> IndexState:
    return IndexState(
        passages=passages,
        added=done.added,
        removed=done.removed,
        threads_behind=lag.threads,
        messages_behind=lag.messages,
    )


def _text(state: IndexState) -> str:
    behind = (
        f"{counted(state.messages_behind, 'message')} of {counted(state.threads_behind, 'thread')} not indexed yet"
        if state.threads_behind
        else "up to date"
    )
    new = f", {state.added:,} of them new" if state.added else ""
    return f"The index has {counted(state.passages, 'passage')}{new}: {behind}."
