"""``everthread usage``: how much a tenant keeps, and how much of its quota that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.common import EXIT_FAILED, Output, Place, json_option, run, store_command
from everthread.cli.prune import Size

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.threads import Usage

EXAMPLES = """\b
Examples:
  everthread usage
  everthread usage @prod --tenant acme
  everthread usage @prod --tenant acme --max-messages 100000 --max-bytes 500MB
  everthread usage @prod --tenant acme --json | jq .messages

\b
It adds up the tenant's threads: a listing of all of them, 1,000 a round trip. A
quota is what your program gives its view of the tenant (docs/tenants.md); name it
here to see what is left. The status is 1 where more is kept than that.

\b
In a pipe: what, how much, the limit or nothing, with tabs between them.
"""
COLUMNS = ("what", "kept", "limit")


@store_command(epilog=EXAMPLES)
@click.option("--max-messages", type=click.IntRange(min=0), metavar="N", help="The quota of messages.")
@click.option("--max-bytes", type=Size(), metavar="SIZE", help="The quota of bytes, e.g. 500MB.")
@json_option
def usage(*, place: Place, max_messages: int | None, max_bytes: int | None, as_json: bool) -> None:
    """Add up a tenant's threads, messages and bytes."""
    output = Output(as_json=as_json)
    found = run(lambda store: _usage(store, place.tenant), place)
    amounts = (("threads", found.threads, None), ("messages", found.messages, max_messages))
    amounts += (("bytes", found.size, max_bytes),)
    if as_json:
        limits = {"max_messages": max_messages, "max_bytes": max_bytes}
        kept = {what: amount for what, amount, _ in amounts}
        output.result("", {"tenant": place.tenant, **kept, **limits})
    else:
        output.rows(COLUMNS, [(_cells(output, *amount), {}) for amount in amounts])
    if any(limit is not None and amount > limit for _, amount, limit in amounts):
        raise click.exceptions.Exit(EXIT_FAILED)


def _cells(output: Output, what: str, amount: int, limit: int | None) -> tuple[str, str, str]:
    if not output.is_terminal:
        return what, str(amount), "" if limit is None else str(limit)
    share = f" ({amount / limit:.0%} used)" if limit else ""
    return what, f"{amount:,}", "" if limit is None else f"{limit:,}{share}"


async def _usage(store: Store, tenant: str) -> Usage:
    from everthread.threads import usage as add_up

    return await add_up(store, tenant)
