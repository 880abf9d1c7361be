"""``everthread doctor``: whether a store is well, and what is wrong in its threads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from everthread.cli.common import (
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
    Output,
    Place,
    dry_run_option,
    json_option,
    store_command,
    yes_option,
)
from everthread.cli.encryption import with_keys

if TYPE_CHECKING:
    from everthread.model import Fact

EXAMPLES = """\b
Examples:
  everthread doctor
  everthread doctor @prod
  everthread doctor rediss://app@cache.example:6380/0 --read-only
  everthread doctor @prod --json | jq 'select(.status != "ok")'
  everthread doctor --repair --dry-run
  everthread doctor --repair --backup before.jsonl
  everthread doctor --undo before.jsonl

\b
To try writing, a message is appended to a thread of the doctor's own (of --tenant,
if given), which is deleted at once; --read-only leaves that out. Secrets are never printed.
Warnings do not change the exit status; with --strict they are failures.

\b
--repair looks through the threads of a tenant for tool results without their call,
calls without a result, and records that are not JSON, says what it would do, asks,
and mends them. Each thread is kept in the backup as it was. The status is 1 where
something is still wrong.
"""
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


@store_command(epilog=EXAMPLES)
@click.option("--read-only", is_flag=True, help="Write nothing.")
@click.option("--strict", is_flag=True, help="End with status 1 after warnings too.")
@click.option("--repair", is_flag=True, help="Find and mend what is wrong in threads.")
@click.option("--backup", type=click.Path(path_type=Path), metavar="FILE", help="What --repair keeps; a new file.")
@click.option("--undo", type=click.Path(path_type=Path, exists=True), metavar="FILE", help="Take a repair back.")
@yes_option
@dry_run_option
@json_option
def doctor(
    *,
    place: Place,
    read_only: bool,
    strict: bool,
    repair: bool,
    backup: Path | None,
    undo: Path | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Examine a store, and mend its threads.

    It looks at server, encryption, rights, schema, durability, latency and clock.
    """
    output = Output(as_json=as_json)
    if repair or undo is not None:
        from everthread.cli import mending

        is_well = (
            mending.undo(place, undo, output, yes=yes)
            if undo is not None
            else (mending.repair(place, backup, output, yes=yes, dry_run=dry_run))
        )
        raise click.exceptions.Exit(0 if is_well else EXIT_FAILED)
    import asyncio

    facts = asyncio.run(_examine(place, output, write=not read_only))
    if any(fact.name == "connection" and fact.status == "error" for fact in facts):
        raise click.exceptions.Exit(EXIT_UNAVAILABLE)
    bad = {"error", "warning"} if strict else {"error"}
    if any(fact.status in bad for fact in facts):
        raise click.exceptions.Exit(EXIT_FAILED)


async def _examine(place: Place, output: Output, *, write: bool) -> list[Fact]:
    from everthread.doctor import SCRATCH_TENANT, examine
    from everthread.opening import open_store

    store = open_store(place.url)
    store = with_keys(store, place.keyring) if place.keyring else store
    facts: list[Fact] = []
    try:
        async for fact in examine(store, write=write, tenant=place.tenant or SCRATCH_TENANT):
            facts.append(fact)
            _show(fact, place, output)
    finally:
        await store.aclose()
    return facts


def _show(fact: Fact, place: Place, output: Output) -> None:
    from everthread.cli.stores import without_secrets

    value, advice = without_secrets(fact.value, place.url), without_secrets(fact.advice, place.url)
    if output.is_terminal:
        from rich.text import Text

        from everthread.cli.rendering import sanitise

        line = Text(f"{fact.status:<8}", style=_STYLES[fact.status])
        output.show(line.append(f"{fact.name:<12} {sanitise(value)}", style="not bold default"))
        if advice:
            output.show(Text(f"{'':8}{'':12} {sanitise(advice)}", style="dim"))
        return
    row = {"status": fact.status, "name": fact.name, "value": value, "advice": advice}
    output.rows(("status", "what", "value", "advice"), [(tuple(row.values()), row)])
