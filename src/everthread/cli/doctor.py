"""``everthread doctor``: examine a store, and find and repair problems in its threads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from everthread.cli.exit_statuses import EXIT_FAILED, EXIT_UNAVAILABLE
from everthread.cli.json_output import Check
from everthread.cli.options import dry_run_option, flag_option, json_option, store_command, yes_option
from everthread.cli.output import Output
from everthread.cli.runner import open_place, without_secrets
from everthread.errors import ConfigurationError, EverthreadError, MissingSchemaError, StoreUnavailableError
from everthread.foreign_kinds import KINDS, help_lines
from everthread.urls import scheme_of

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.model import HealthCheck

_EXAMINED = [
    (kind, kind.examined if kind.is_repaired else f"{kind.examined}: reported, not repaired")
    for kind in KINDS
    if kind.examined
]
EXAMPLES = """\b
Examples:
  everthread doctor
  everthread doctor @prod
  everthread doctor rediss://app@cache.example:6380/0 --read-only
  everthread doctor @prod --json | jq 'select(.status != "ok")'
  everthread doctor --repair --dry-run
  everthread doctor --repair --backup before.jsonl
  everthread doctor --undo before.jsonl
  everthread doctor sessions.db
  everthread doctor redis://localhost:6379/0 --as agent-framework-redis --repair --dry-run

\b
To test writing, the doctor appends a message to a thread of its own (in --tenant,
if given) and deletes the thread. Secrets are never printed. Warnings do not
change the exit status without --strict.

\b
--repair reads the threads of a tenant and looks for tool results without a call,
calls without a result, and other messages that a model service refuses. It prints
the repairs, asks, makes them, and writes the changed messages to a backup first.
The exit status is 1 if a problem is left.

\b
Threads that another program stores are examined where they are (--as):
{KINDS}
Files and folders are recognized by their content.
""".replace("{KINDS}", help_lines(_EXAMINED))
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


@store_command(epilog=EXAMPLES)
@click.argument("source", required=False, metavar="[SOURCE]")
@click.option(
    "--as",
    "kind",
    type=click.Choice([kind.name for kind, _ in _EXAMINED]),
    help="Program that wrote SOURCE. (default: recognized)",
)
@click.option(
    "--prefix",
    metavar="TEXT",
    help="With --as: prefix of the keys in Redis, or of the tables. (default: the program's)",
)
@flag_option("--stopped", help="No program writes to the store: repair calls of the last turn without waiting an hour.")
@flag_option("--read-only", help="Examine without writing.")
@flag_option("--strict", help="End with status 1 after warnings too.")
@flag_option("--repair", help="Find and repair problems in threads.")
@click.option(
    "--backup",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="New file for the backup of --repair. (default: everthread-repair-TIME.jsonl in this folder)",
)
@click.option(
    "--undo", type=click.Path(path_type=Path, exists=True), metavar="FILE", help="Backup whose repair to undo."
)
@yes_option
@dry_run_option
@json_option
def doctor(
    *,
    place: Place,
    source: str | None,
    kind: str | None,
    prefix: str | None,
    stopped: bool,
    read_only: bool,
    strict: bool,
    repair: bool,
    backup: Path | None,
    undo: Path | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Examine a store, and repair its threads.

    SOURCE is the URL of a store, or a store of another program. Checks the server, encryption, permissions, schema,
    durability, latency and clock.
    """
    if repair and undo is not None:
        raise click.UsageError("Give --repair or --undo, not both.")
    if backup is not None and not repair:
        raise click.UsageError("--backup names the file for --repair: give --repair too.")
    if read_only and (repair or undo is not None) and not dry_run:
        raise click.UsageError("With --read-only, --repair and --undo need --dry-run: they write.")
    output = Output(as_json=as_json)
    if source is not None or kind is not None:
        from everthread.cli.foreign_doctor import find_source, run_doctor

        found = find_source(source if source is not None else place.url, kind, prefix, stopped=stopped)
        if found is not None:
            is_well = run_doctor(found, output, repair=repair, backup=backup, undo=undo, yes=yes, dry_run=dry_run)
            raise click.exceptions.Exit(0 if is_well else EXIT_FAILED)
        from everthread.cli.places import find_place

        place = find_place(source, click.get_current_context().params["tenant_option"])
        place = place.to_read() if dry_run else place
    if repair or undo is not None:
        from everthread.cli import repairing

        is_well = (
            repairing.undo(place, undo, output, yes=yes, dry_run=dry_run)
            if undo is not None
            else repairing.repair(place, backup, output, yes=yes, dry_run=dry_run, stopped=stopped)
        )
        raise click.exceptions.Exit(0 if is_well else EXIT_FAILED)
    import asyncio

    checks = asyncio.run(_examine(place.to_read() if read_only else place, output))
    if any(check.name == "connection" and check.status == "error" for check in checks):
        raise click.exceptions.Exit(EXIT_UNAVAILABLE)
    bad = {"error", "warning"} if strict else {"error"}
    if any(check.status in bad for check in checks):
        raise click.exceptions.Exit(EXIT_FAILED)


async def _examine(place: Place, output: Output) -> list[HealthCheck]:
    from everthread.model import HealthCheck
    from everthread.operations.doctor import SCRATCH_TENANT, examine

    checks: list[HealthCheck] = []
    try:
        obstacle = await _obstacle(place)
    except ConfigurationError as error:
        obstacle = HealthCheck("opening", str(error), "error")
    if obstacle is not None:
        _show(obstacle, place, output)
        return [obstacle]
    store = open_place(place, is_guarded=False)
    try:
        async for check in examine(store, write=not place.read_only, tenant=place.tenant or SCRATCH_TENANT):
            checks.append(check)
            _show(check, place, output)
    finally:
        await store.aclose()
    return checks


async def _obstacle(place: Place) -> HealthCheck | None:
    """Return why a database cannot be examined as it is. Opening an empty one for writing would create the tables."""
    from everthread.model import HealthCheck

    store = open_place(place.to_read(), is_guarded=False)
    if scheme_of(store.location) not in {"postgres", "postgresql"}:
        return None
    try:
        await store.open()
    except MissingSchemaError:
        return HealthCheck("opening", "nothing is stored here: everthread has no tables in this database")
    except StoreUnavailableError as error:
        return HealthCheck("connection", str(error), "error")
    except EverthreadError:
        # The examination reports it.
        return None
    finally:
        await store.aclose()
    return None


def _show(check: HealthCheck, place: Place, output: Output) -> None:
    value, advice = without_secrets(check.value, place.url), without_secrets(check.advice, place.url)
    if output.is_terminal:
        from rich.text import Text

        from everthread.cli.plain import sanitize

        line = Text(f"{check.status:<8}", style=_STYLES[check.status])
        output.show(line.append(f"{check.name:<12} {sanitize(value)}", style="not bold default"))
        if advice:
            output.show(Text(f"{'':8}{'':12} {sanitize(advice)}", style="dim"))
        return
    row = Check(status=check.status, name=check.name, value=value, advice=advice)
    output.rows(("status", "what", "value", "advice"), [((row.status, row.name, row.value, row.advice), row)])
