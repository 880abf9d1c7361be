"""``everthread copy``: threads from one store into another, whatever their engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.common import (
    EXIT_STATUSES,
    Output,
    dry_run_option,
    find_place,
    json_option,
    names_option,
    skip_option,
    tenant_option,
)

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.transfer import Report, Watcher

EXAMPLES = """\b
Examples:
  everthread copy sqlite:///threads.db redis://localhost:6379/0
  everthread copy @laptop @prod --threads 'trip-*' --threads work
  everthread copy @prod @archive --tenant acme --dry-run
  everthread copy @old @new --tenant acme --to-tenant acme-eu

\b
Both stores may be in use. Positions, turns, times, titles, metadata and documents
are kept, and what was written is read back and compared. Run it again after it
was broken off, or to add what the source has gained since: it never changes or
drops a message of STORE_B. A thread of which STORE_B has another conversation is
left alone and told (exit status 1).
"""


@click.command(epilog=f"{EXAMPLES}\n{EXIT_STATUSES}")
@click.argument("source", metavar="STORE_A")
@click.argument("target", metavar="STORE_B")
@names_option
@tenant_option
@click.option("--to-tenant", metavar="NAME", help="Whose threads they become. Default: the same tenant's.")
@skip_option
@dry_run_option
@json_option
def copy(
    *,
    source: str,
    target: str,
    names: tuple[str, ...],
    tenant_option: str | None,
    to_tenant: str | None,
    skip_unreadable: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy threads from one store into another.

    STORE_A and STORE_B are each a URL or @NAME.
    """
    from everthread.cli.transferring import carry_out
    from everthread.transfer import copy_threads

    places = find_place(source, tenant_option), find_place(target, to_tenant)
    there = places[1].tenant or (None if to_tenant is None else "")

    async def work(first: Store, second: Store, watcher: Watcher) -> Report:
        return await copy_threads(
            first,
            second,
            tenant=places[0].tenant,
            to_tenant=there,
            names=names,
            dry_run=dry_run,
            skip_unreadable=skip_unreadable,
            watcher=watcher,
        )

    carry_out("copied", work, *places, output=Output(as_json=as_json), dry_run=dry_run)
