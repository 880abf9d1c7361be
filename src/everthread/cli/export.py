"""``everthread export``: write threads to a file, a folder or a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from everthread.cli.options import dry_run_option, flag_option, json_option, names_option, store_command, yes_option
from everthread.cli.output import Output
from everthread.cli.runner import confirm

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.transfer import Report, Watcher

EXAMPLES = """\b
Examples:
  everthread export threads.jsonl
  everthread export backup/ @prod --folder
  everthread export - --threads 'trip-*' | gzip > trips.jsonl.gz
  everthread export backup/ @prod --folder --dry-run
  everthread export trips.html --format html --threads 'trip-*'

\b
jsonl is lossless, and 'everthread import' reads it. markdown and html are for
people. An incomplete file ends in .part; run a jsonl export again after an
interruption, and it continues. In a folder, the files of unchanged threads are
not written again. --dry-run reads everything, and prints how many threads,
messages, bytes and files it would write. A record that cannot be read is left
out and reported, and the exit status is 1.
"""


@store_command(epilog=EXAMPLES, read_only=True)
@click.argument("path")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["jsonl", "markdown", "html"]),
    default="jsonl",
    help="Format to write. (default: jsonl)",
)
@flag_option("--folder", help="Write a file for each thread into the folder PATH.")
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
        raise click.UsageError("Standard output takes neither --folder nor --json: name a file.")
    if path != "-" and not folder and Path(path).is_dir():
        raise click.UsageError(f"{path} is a folder: give --folder to write a file for each thread into it.")
    if Path(path).exists() and not dry_run and not (folder and format_name == "jsonl"):
        confirm(f"{path} exists. Replace it?", yes=yes)

    async def work(store: Store, watcher: Watcher) -> Report:
        return await export_threads(
            store,
            sys.stdout.buffer if path == "-" else path,
            tenant=place.tenant,
            names=names,
            format=cast(Literal["jsonl", "markdown", "html"], format_name),
            into_folder=folder,
            dry_run=dry_run,
            watcher=watcher,
        )

    carry_out("exported", work, place, output=Output(as_json=as_json), dry_run=dry_run, is_beside=is_beside)
