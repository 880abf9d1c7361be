"""``everthread rewrap``: encrypt a tenant again, after a key was changed or to encrypt a plain store."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click
import msgspec

from everthread.cli.json_output import RewrappedTenant
from everthread.cli.keyrings import VARIABLE, check_keyring
from everthread.cli.options import dry_run_option, flag_option, json_option, store_command
from everthread.cli.output import Output
from everthread.cli.plain import counted
from everthread.cli.progress import progress
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.wrappers.encryption.encrypted import Encrypted
    from everthread.wrappers.encryption.rewrapping import Rewrapped

EXAMPLES = """\b
Examples:
  everthread rewrap --keyring file:~/everthread.keys --dry-run
  everthread rewrap @prod --tenant acme --new-key        make a new key and use it
  everthread rewrap @prod --tenant acme --forget-old     later: delete the old keys
  everthread rewrap @old --accept-plain                  encrypt a plain store

\b
Runs beside readers and writers. After an interruption, run it again (without
--new-key). Old keys are deleted two minutes after the new one was made, or later
if a process asks for its keys less often, and only if no thread contains a record
that they encrypted.
"""


@store_command(epilog=EXAMPLES)
@click.option(
    "--keyring",
    metavar="PLACE",
    help=f"Place of the master keys: file:PATH or env:NAME. (default: the named store's, else {VARIABLE})",
)
@flag_option("--new-key", help="Make a new key for the tenant first.")
@flag_option("--forget-old", help="Delete the tenant's older keys when no record needs them.")
@flag_option("--accept-plain", help="Encrypt records that are not encrypted too.")
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
    """Encrypt a tenant's threads with its current key."""
    keyring = keyring or place.keyring
    if not keyring:
        raise click.UsageError(f"Name the master keys: --keyring file:PATH or env:NAME, or {VARIABLE}.")
    check_keyring(keyring)
    output = Output(as_json=as_json)

    async def work(store: Store) -> Rewrapped:
        from everthread.wrappers.encryption.rewrapping import rewrap

        encrypted = cast("Encrypted", store)
        if new_key and not dry_run:
            await encrypted.keys.rotate(place.tenant)
        with progress("Encrypting", unit="threads") as advance:
            return await rewrap(encrypted, place.tenant, forget_old=forget_old, dry_run=dry_run, advance=advance)

    done = run(work, msgspec.structs.replace(place, keyring=keyring, accept_plain=accept_plain))
    for remains in done.remains:
        output.note(f"Not erased yet: {remains}")
    if done.keys_in_first_form:
        form = "is" if dry_run else "was"
        output.note(f"The list of this tenant's keys {form} of the first version, which is not authenticated.")
    value = msgspec.convert({**msgspec.to_builtins(done), "dry_run": dry_run}, RewrappedTenant)
    output.result(_in_words(done, forget_old=forget_old, dry_run=dry_run), value)


def _in_words(done: Rewrapped, *, forget_old: bool, dry_run: bool) -> str:
    verb = "Would encrypt" if dry_run else "Encrypted"
    text = f"{verb} {counted(done.records, 'record')} again, in {counted(done.threads, 'thread')}."
    if done.left:
        text += f" {counted(done.left, 'record')} changed too often: run it again."
    if forget_old and not dry_run:
        waits = "No older key was deleted yet: run it again in a few minutes."
        text += f" {'The older keys are deleted.' if done.keys_forgotten else waits}"
    return text
