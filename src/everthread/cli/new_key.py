"""``everthread new-key``: make a line for a file of master keys."""

from __future__ import annotations

import click

from everthread.cli.exit_statuses import EXIT_STATUSES

EXAMPLES = f"""\b
Examples:
  (umask 077; everthread new-key 2026 > ~/everthread.keys)
  everthread new-key 2027 | cat - ~/everthread.keys > both; mv both ~/everthread.keys

\b
Prints ID:KEY, 32 random bytes in Base64. The first line of a key file encrypts;
keep the older keys below it until rewrap has run. This file and the store together
make everything readable: store them apart. Back the file up: without it, nothing
can be read again.

{EXIT_STATUSES}"""


@click.command("new-key", epilog=EXAMPLES)
@click.argument("key_id", metavar="ID")
def new_key(key_id: str) -> None:
    """Make a master key for encrypted stores."""
    from everthread.wrappers.encryption.master_keys import new_master_key

    click.echo(new_master_key(key_id).to_line())
