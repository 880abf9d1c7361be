"""``everthread import``: threads from a file or folder, and from what other programs wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.common import Output, Place, dry_run_option, json_option, store_command

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.transfer import Report, Watcher

EXAMPLES = """\b
Examples:
  everthread import threads.jsonl
  everthread import backup/ @prod --dry-run

\b
A file is checked to its end before anything is written. What is there already is
compared and skipped, so that an import can be run again. Without --tenant, threads
go to the tenant that they were exported from.
"""


@store_command("import", epilog=EXAMPLES)
@click.argument("source")
@dry_run_option
@json_option
def import_(*, place: Place, source: str, dry_run: bool, as_json: bool) -> None:
    """Put the threads of SOURCE, a file or folder, into the store."""
    from everthread.cli.transferring import carry_out
    from everthread.transfer import import_threads

    async def work(store: Store, watcher: Watcher) -> Report:
        return await import_threads(store, source, tenant=place.tenant or None, dry_run=dry_run, watcher=watcher)

    carry_out("imported", work, place, output=Output(as_json=as_json), dry_run=dry_run)
