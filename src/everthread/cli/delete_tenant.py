"""``everthread delete-tenant``: erases all of a tenant, with a receipt."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.common import Output, Place, complete_store, confirm, counted, destructive_command, progress, run

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.erasing import Erased
    from everthread.threads import Usage

EXAMPLES = """\b
Examples:
  everthread delete-tenant acme --dry-run
  everthread delete-tenant acme
  everthread delete-tenant @prod acme --yes --receipt acme-erased.jsonl

\b
The receipt has a line for each thread (SHA-256 of its id, counts, SHA-256 of its
content) and a last line with the sums and times; nothing of what was said. A
receipt without its last line is of an erasure that was interrupted: run the
command again. An existing file is added to.
"""


@destructive_command(epilog=EXAMPLES)
@click.argument("name", shell_complete=complete_store)
@click.option("--receipt", type=click.Path(dir_okay=False, path_type=Path), help="Where. Default: a new file here.")
def delete_tenant(*, place: Place, name: str, receipt: Path | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Erase a tenant for good, and write a receipt."""
    if not name or place.tenant not in {"", name}:
        # An unset shell variable must not erase the default tenant.
        raise click.UsageError("Name one tenant, and the same as in --tenant if that is given.")
    output = Output(as_json=as_json)
    found = run(lambda store: _count(store, name), place)
    told = _in_words(name, found.threads, found.messages, found.size)
    if dry_run:
        output.result(f"Would erase {told}", {"tenant": name, "dry_run": True, **msgspec.to_builtins(found)})
        return
    confirm(f"Erase {told}?", yes=yes)
    path = receipt or Path(f"everthread-receipt-{datetime.now().astimezone():%Y%m%dT%H%M%S}.jsonl")
    erased = run(lambda store: _erase(store, name, path, found), place)
    sums = erased.sums
    done = _in_words(name, sums.threads, sums.messages, sums.size)
    output.result(f"Erased {done}. Receipt: {path}", {**msgspec.to_builtins(erased), "receipt": str(path)})


def _in_words(tenant: str, threads: int, messages: int, size: int) -> str:
    return f"{counted(threads, 'thread')} of tenant {tenant}, with {counted(messages, 'message')} ({size:,} bytes)"


async def _count(store: Store, tenant: str) -> Usage:
    from everthread.threads import usage

    return await usage(store, tenant)


async def _erase(store: Store, tenant: str, receipt: Path, found: Usage) -> Erased:
    from everthread.erasing import erase_tenant

    with progress("Erasing", found.threads, unit="threads") as advance:
        return await erase_tenant(store, tenant, receipt, advance=advance)
