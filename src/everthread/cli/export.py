"""``everthread export``: threads into a file, a folder or a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from everthread.cli.common import (
    Output,
    Place,
    confirm,
    dry_run_option,
    json_option,
    names_option,
    store_command,
    yes_option,
)

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.transfer import Report, Watcher

EXAMPLES = """\b
Examples:
  everthread export threads.jsonl
  everthread export backup/ @prod --folder
  everthread export - --threads 'trip-*' | gzip > trips.jsonl.gz
  everthread export backup/ @prod --folder --dry-run
  everthread export trips.html --format html --threads 'trip-*'
  everthread export tuning.jsonl --format openai

\b
jsonl keeps everything, and 'everthread import' reads it. markdown and html are
for people, openai gives the chat format for fine-tuning. A file that is not yet
complete ends in .part; run a jsonl export that was broken off again and it goes
on. In a folder, files of threads that did not change are left as they are.
--dry-run reads everything, and says how many threads, messages, bytes and files
it would be.
"""


@store_command(epilog=EXAMPLES)
@click.argument("path")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["jsonl", "markdown", "html", "openai"]),
    default="jsonl",
    show_default=True,
    help="What to write.",
)
@click.option("--folder", is_flag=True, help="PATH is a folder: one file for each thread.")
@names_option
@dry_run_option
@yes_option
@json_option
def export(
    *,
    place: Place,
    path: str,
    format_name: str,
    folder: bool,
    names: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write threads to PATH, or to standard output with -."""
    from everthread.cli.transferring import carry_out
    from everthread.transfer import export_threads

    is_beside = path == "-" and not dry_run
    if path == "-" and (folder or (as_json and is_beside)):
        raise click.UsageError("On standard output there is no folder, and no place for --json.")
    if Path(path).exists() and not dry_run and not (folder and format_name == "jsonl"):
        confirm(f"{path} exists. Replace what it holds?", yes=yes)

    async def work(store: Store, watcher: Watcher) -> Report:
        return await export_threads(
            store,
            sys.stdout.buffer if path == "-" else path,
            tenant=place.tenant,
            names=names,
            format=cast(Literal["jsonl", "markdown", "html", "openai"], format_name),
            into_folder=folder,
            dry_run=dry_run,
            watcher=watcher,
        )

    carry_out("exported", work, place, output=Output(as_json=as_json), dry_run=dry_run, is_beside=is_beside)
