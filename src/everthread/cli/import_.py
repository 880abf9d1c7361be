"""``everthread import``: threads from a file or folder, and from what other programs wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everthread.cli.common import Output, Place, dry_run_option, json_option, skip_option, store_command

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.transfer import Report, Source, Watcher

EXAMPLES = """\b
Examples:
  everthread import threads.jsonl
  everthread import backup/ @prod --dry-run
  everthread import redis://localhost:6379/0 --from redis-lists --prefix lab11
  everthread import redis://localhost:6379/0 --from agent-framework-redis
  everthread import ~/history --from agent-framework-files --tenant acme
  everthread import sessions.db --from openai-agents

\b
Other sources than exports (--from):
  redis-lists            lists PREFIX:THREAD of plain JSON: Agent Framework's
                         betas, and its 1.x with legacy keys
  agent-framework-redis  Agent Framework 1.x on Redis with scoped keys (v2)
  agent-framework-files  its file history: a folder of JSON Lines or MessagePack
  openai-agents          the SQLite file of the OpenAI Agents SDK's sessions
  langchain-redis        LangChain's plain Redis lists

\b
A file is checked to its end before anything is written. What is there already is
compared and skipped, so an import can be run again. Without --tenant, threads go
to the tenant that they were exported from; with --tenant "" to the default one.
--skip-unreadable goes on past records that are no JSON, and threads of exports
that are damaged; each is told, and the exit status is 1.
"""
KINDS = ("redis-lists", "agent-framework-redis", "agent-framework-files", "openai-agents", "langchain-redis")


@store_command("import", epilog=EXAMPLES)
@click.argument("source")
@click.option("--from", "kind", type=click.Choice(KINDS), help="SOURCE is what another program wrote.")
@click.option("--prefix", metavar="TEXT", help="What keys in Redis begin with. Default: that program's default.")
@click.option("--scope", metavar="TENANT|APPLICATION|AGENT", help="Which scoped keys, where there are several scopes.")
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
    """Put the threads of SOURCE into the store.

    SOURCE is a file, a folder or a Redis URL.
    """
    if (kind is None or not kind.endswith(("-redis", "-lists"))) and prefix is not None:
        raise click.UsageError("--prefix goes with --from redis-lists, agent-framework-redis or langchain-redis.")
    if kind != "agent-framework-redis" and scope is not None:
        raise click.UsageError("--scope goes with --from agent-framework-redis.")
    from everthread.cli.transferring import carry_out

    is_tenant_given = bool(place.tenant) or click.get_current_context().params["tenant_option"] is not None

    async def work(store: Store, watcher: Watcher) -> Report:
        from everthread.transfer import import_threads
        from everthread.transfer.foreign import foreign_source

        found: str | Source = source if kind is None else foreign_source(kind, source, prefix=prefix, scope=scope)
        return await import_threads(
            store,
            found,
            tenant=place.tenant if is_tenant_given else None,
            dry_run=dry_run,
            skip_unreadable=skip_unreadable,
            watcher=watcher,
        )

    carry_out("imported", work, place, output=Output(as_json=as_json), dry_run=dry_run)
