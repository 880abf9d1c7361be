"""``everthread copy``: copy threads from one store into another, of any engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_STATUSES
from everthread.cli.options import dry_run_option, json_option, names_option, skip_option, tenant_option
from everthread.cli.output import Output
from everthread.cli.places import find_place

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
Both stores may be in use. The copy has the same positions, turns, times, titles,
metadata and documents; it is read back and compared. Run the command again after
an interruption, or to add newer messages: it never changes or deletes a message
of STORE_B. If a thread of STORE_B has other messages, it is left unchanged and
reported, and the exit status is 1.
"""


@click.command(epilog=f"{EXAMPLES}\n{EXIT_STATUSES}")
@click.argument("source", metavar="STORE_A")
@click.argument("target", metavar="STORE_B")
@names_option
@tenant_option
@click.option("--to-tenant", metavar="NAME", help="Tenant in STORE_B. (default: the same tenant)")
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

    STORE_A and STORE_B are URLs or @NAMEs.
    """
    from everthread.cli.transferring import carry_out
    from everthread.transfer import copy_threads

    first, second = find_place(source, tenant_option).to_read(), find_place(target, to_tenant).to_begin()

    async def work(source: Store, target: Store, watcher: Watcher) -> Report:
        return await copy_threads(
            source,
            target,
            tenant=first.tenant,
            to_tenant=second.tenant or (None if to_tenant is None else ""),
            names=names,
            dry_run=dry_run,
            skip_unreadable=skip_unreadable,
            watcher=watcher,
        )

    places = first, (second.to_read() if dry_run else second)
    carry_out("copied", work, *places, output=Output(as_json=as_json), dry_run=dry_run)
