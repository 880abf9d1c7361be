"""``everthread usage``: sum up the storage of a tenant, and compare it with limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.json_output import TenantUsage
from everthread.cli.options import Size, json_option, number_option, store_command
from everthread.cli.output import Output
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place

EXAMPLES = """\b
Examples:
  everthread usage
  everthread usage @prod --tenant acme
  everthread usage @prod --tenant acme --max-messages 100000 --max-bytes 500MB
  everthread usage @prod --tenant acme --json | jq .messages

\b
The command lists all threads of the tenant, 1,000 in a round trip. The limits are
only compared, not set: the exit status is 1 if the tenant stores more.

\b
In a pipe: kind, amount, limit or nothing, separated by tabs.
"""
COLUMNS = ("kind", "stored", "limit")


@store_command(epilog=EXAMPLES, read_only=True)
@number_option("--max-messages", help="Exit with 1 if more are stored.")
@click.option("--max-bytes", type=Size(), metavar="SIZE", help="Exit with 1 if more bytes are stored, e.g. 500MB.")
@json_option
def usage(*, place: Place, max_messages: int | None, max_bytes: int | None, as_json: bool) -> None:
    """Sum up a tenant's threads, messages and bytes."""
    from everthread.listing import usage as sum_up

    output = Output(as_json=as_json)
    found = run(lambda store: sum_up(store, place.tenant), place)
    amounts = (
        ("threads", found.threads, None),
        ("messages", found.messages, max_messages),
        ("bytes", found.size, max_bytes),
    )
    value = TenantUsage(
        tenant=place.tenant,
        threads=found.threads,
        messages=found.messages,
        bytes=found.size,
        max_messages=max_messages,
        max_bytes=max_bytes,
    )
    if as_json:
        output.result("", value)
    else:
        output.rows(COLUMNS, [(_cells(output, *amount), value) for amount in amounts])
    if any(limit is not None and amount > limit for _, amount, limit in amounts):
        raise click.exceptions.Exit(EXIT_FAILED)


def _cells(output: Output, kind: str, amount: int, limit: int | None) -> tuple[str, str, str]:
    if not output.is_terminal:
        return kind, str(amount), "" if limit is None else str(limit)
    share = f" ({amount / limit:.0%} used)" if limit else ""
    return kind, f"{amount:,}", "" if limit is None else f"{limit:,}{share}"
