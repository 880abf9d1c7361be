"""``everthread new-key``: a line for a file of master keys."""

from __future__ import annotations

import click

EXAMPLES = """\b
Examples:
  (umask 077; everthread new-key 2026 > ~/everthread.keys)
  everthread new-key 2027 | cat - ~/everthread.keys > both; mv both ~/everthread.keys

\b
Prints ID:KEY, 32 random bytes in base64. The first line of a file is the key to
seal with; keep the older ones below it until rewrap has run. Whoever has this
file and the store can read everything: keep them apart, and keep a copy of it,
since without it nothing can be read again.
"""


@click.command("new-key", epilog=EXAMPLES)
@click.argument("key_id", metavar="ID")
def new_key(key_id: str) -> None:
    """Make a master key for encrypted stores."""
    from everthread.wrappers.master_keys import new_master_key

    click.echo(new_master_key(key_id).to_line())
