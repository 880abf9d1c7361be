"""``everthread rewrap``: seals a tenant anew, after a key was changed or to encrypt a store at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.common import Output, Place, counted, dry_run_option, json_option, progress, run, store_command
from everthread.cli.encryption import VARIABLE, check_keyring, with_keys

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.wrappers.rewrapping import Rewrapped

EXAMPLES = """\b
Examples:
  everthread rewrap --keyring file:~/everthread.keys --dry-run
  everthread rewrap @prod --tenant acme --new-key        a new key, then everything with it
  everthread rewrap @prod --tenant acme --forget-old     later: the old keys go
  everthread rewrap @old --accept-plain                  encrypt what is not yet

\b
Runs beside readers and writers. Stopped at any moment, it is simply run again
(without --new-key). Old keys are forgotten only by a run that finds nothing to
do, two minutes after the key was made or later.
"""


@store_command(epilog=EXAMPLES)
@click.option("--keyring", metavar="WHERE", help=f"file:PATH or env:NAME. Default: the named store's, else {VARIABLE}.")
@click.option("--new-key", is_flag=True, help="First make a new key for the tenant.")
@click.option("--forget-old", is_flag=True, help="Forget the tenant's older keys, if nothing needs them any more.")
@click.option("--accept-plain", is_flag=True, help="Also seal what is not encrypted.")
@dry_run_option
@json_option
def rewrap(
    *,
    place: Place,
    keyring: str | None,
    new_key: bool,
    forget_old: bool,
    accept_plain: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Seal a tenant's threads with its current key."""
    where = keyring or place.keyring
    if not where:
        raise click.UsageError(f"Say where the master keys are: --keyring file:PATH or env:NAME, or {VARIABLE}.")
    check_keyring(where)
    output = Output(as_json=as_json)

    async def work(store: Store) -> Rewrapped:
        from everthread.wrappers.rewrapping import rewrap

        encrypted = with_keys(store, where, accept_plain=accept_plain)
        if new_key and not dry_run:
            await encrypted.keys.rotate(place.tenant)
        with progress("Sealing", unit="threads") as advance:
            return await rewrap(encrypted, place.tenant, forget_old=forget_old, dry_run=dry_run, advance=advance)

    done = run(work, msgspec.structs.replace(place, keyring=""))
    verb = "Would seal" if dry_run else "Sealed"
    text = f"{verb} {counted(done.records, 'record')} anew, in {counted(done.threads, 'thread')}."
    if done.keys_forgotten:
        text += " The older keys are forgotten."
    output.result(text, {**msgspec.to_builtins(done), "dry_run": dry_run})
