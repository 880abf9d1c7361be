"""``everthread import``: read threads from a file or folder, or from the data of another program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.options import dry_run_option, json_option, skip_option, store_command
from everthread.cli.output import Output
from everthread.foreign_kinds import KINDS, help_lines

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.transfer import Report, Source, Watcher

_IMPORTED = [(kind, kind.imported) for kind in KINDS if kind.imported]
EXAMPLES = """\b
Examples:
  everthread import threads.jsonl
  everthread import backup/ @prod --dry-run
  everthread import redis://localhost:6379/0 --from redis-lists --prefix lab11
  everthread import redis://localhost:6379/0 --from agent-framework-redis
  everthread import ~/history --from agent-framework-files --tenant acme
  everthread import sessions.db --from openai-agents
  everthread import thread.json

\b
Sources besides exports (--from):
{KINDS}

\b
Without --from, exports, saved threads (JSON) and SQLite files are recognized by
their content. An export is checked to its end before anything is written. Messages
that the store already has are compared and skipped, so an import can be repeated.
Without --tenant, threads go to the tenant that they were exported from; with
--tenant "" to the default tenant. --skip-unreadable skips records that are not JSON
and damaged threads of exports; each is reported, and the exit status is 1.
""".replace("{KINDS}", help_lines(_IMPORTED))
OF_AGENT_FRAMEWORK = ("redis-lists", "agent-framework-redis", "agent-framework-threads", "agent-framework-files")
"""Kinds of sessions that `EverthreadHistoryProvider` continues."""


@store_command("import", epilog=EXAMPLES, may_create=True)
@click.argument("source")
@click.option(
    "--from",
    "kind",
    type=click.Choice([kind.name for kind, _ in _IMPORTED]),
    help="Program that wrote SOURCE. (default: everthread)",
)
@click.option("--prefix", metavar="TEXT", help="Prefix of the keys in Redis. (default: the program's)")
@click.option("--scope", metavar="TENANT|APPLICATION|AGENT", help="Scope to import. (default: the only one)")
@skip_option
@dry_run_option
@json_option
def import_(
    *,
    place: Place,
    source: str,
    kind: str | None,
    prefix: str | None,
    scope: str | None,
    skip_unreadable: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import threads into the store, which is created if it does not exist.

    SOURCE is a file, a folder or a Redis URL.
    """
    if (kind is None or not kind.endswith(("-redis", "-lists"))) and prefix is not None:
        raise click.UsageError("--prefix goes with --from redis-lists, agent-framework-redis or langchain-redis.")
    if kind != "agent-framework-redis" and scope is not None:
        raise click.UsageError("--scope goes with --from agent-framework-redis.")
    from everthread.cli.transferring import carry_out

    is_tenant_given = bool(place.tenant) or click.get_current_context().params["tenant_option"] is not None

    calls: list[str] = []

    async def work(store: Store, watcher: Watcher) -> Report:
        from everthread.transfer import import_threads
        from everthread.transfer.foreign import foreign_source
        from everthread.transfer.foreign.continuing import Providers

        providers = Providers(watcher)
        found: str | Source = source if kind is None else foreign_source(kind, source, prefix=prefix, scope=scope)
        report = await import_threads(
            store,
            found,
            tenant=place.tenant if is_tenant_given else None,
            dry_run=dry_run,
            skip_unreadable=skip_unreadable,
            watcher=providers,
        )
        if kind in OF_AGENT_FRAMEWORK:
            calls.extend(f"continue with: {call}" for call in providers.calls(store.location))
        return report

    carry_out("imported", work, place, output=Output(as_json=as_json), dry_run=dry_run, notes=lambda: calls)
