"""``everthread delete-tenant``: erase a tenant, with a receipt."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.exit_statuses import EXIT_NOT_FOUND, CommandFailed
from everthread.cli.json_output import ErasedTenant, TenantToErase
from everthread.cli.options import complete_store, destructive_command
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.progress import progress
from everthread.cli.runner import confirm, run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.operations.erase import Erased

EXAMPLES = """\b
Examples:
  everthread delete-tenant acme --dry-run
  everthread delete-tenant acme
  everthread delete-tenant @prod acme --yes --receipt acme-erased.jsonl

\b
The receipt has two lines: the number of threads, messages, bytes and documents
before the deletion, and the result after it. It contains no messages and no IDs of
threads. If the second line is missing, the erasure was interrupted: run the command
again with the same --receipt. Lines are appended to an existing file. A new file is
readable by you only. If the tenant has no threads, the exit status is 3.
"""


@destructive_command(epilog=EXAMPLES)
@click.argument("name", shell_complete=complete_store)
@click.option(
    "--receipt",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write the receipt to. (default: everthread-receipt-TIME.jsonl in this folder)",
)
def delete_tenant(*, place: Place, name: str, receipt: Path | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Erase all threads of a tenant, and write a receipt."""
    from everthread.listing import usage

    if not name or place.tenant not in {"", name}:
        # An unset shell variable must not erase the default tenant.
        raise click.UsageError("Name one tenant, and the same one as in --tenant if you give that.")
    output = Output(as_json=as_json)
    found = run(lambda store: usage(store, name), place.to_read())
    if not found.threads and not (receipt and receipt.exists()):
        # Even without threads, something of a tenant may be left, such as the keys of an encrypted one.
        if not dry_run and yes:
            run(lambda store: _delete_remains(store, name), place)
        raise CommandFailed(f"Tenant {name!r} has no threads: nothing was erased.", EXIT_NOT_FOUND)
    amount = _in_words(name, found.threads, found.messages, found.size)
    if dry_run:
        value = TenantToErase(
            tenant=name, dry_run=True, threads=found.threads, messages=found.messages, size=found.size
        )
        output.result(f"Would erase {amount}", value)
        return
    confirm(f"Erase {amount}?", yes=yes)
    path = receipt or Path(f"everthread-receipt-{datetime.now().astimezone():%Y%m%dT%H%M%S}.jsonl")
    erased = run(lambda store: _erase(store, name, path, found.threads), place)
    done = _in_words(name, erased.sums.threads, erased.sums.messages, erased.sums.size)
    for remains in erased.remains:
        output.note(f"Not erased yet: {remains}")
    value = msgspec.convert({**msgspec.to_builtins(erased), "receipt": str(path)}, ErasedTenant)
    output.result(f"Erased {done}. Receipt: {path}", value)


def _in_words(tenant: str, threads: int, messages: int, size: int) -> str:
    return f"{counted(threads, 'thread')} of tenant {tenant}, with {counted(messages, 'message')} ({size:,} bytes)"


async def _delete_remains(store: Store, tenant: str) -> None:
    from everthread.capabilities import SupportsSealing, capability

    sealing = capability(store, SupportsSealing)
    await (store.delete_tenant(tenant) if sealing is None else sealing.shred_tenant(tenant))


async def _erase(store: Store, tenant: str, receipt: Path, threads: int) -> Erased:
    from everthread.operations.erase import erase_tenant

    with progress("Erasing", threads, unit="threads") as advance:
        return await erase_tenant(store, tenant, receipt, advance=advance)
