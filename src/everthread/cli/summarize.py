"""``everthread summarize``: replace the older turns of threads, for a model, by summaries that a model writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from everthread._extras import import_extra
from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.options import (
    MODEL_HELP,
    age_option,
    dry_run_option,
    flag_option,
    json_option,
    number_option,
    optional_thread_argument,
    store_command,
)
from everthread.cli.output import Output
from everthread.cli.places import Place
from everthread.cli.runner import run

EXAMPLES = f"""\b
Examples:
  everthread summarize trip-to-rome --dry-run
  everthread summarize trip-to-rome --keep-turns 6
  everthread summarize @prod trip-to-rome --max-tokens 8000 --model gpt-4o-mini
  everthread summarize --all --max-tokens 8000 --dry-run
  everthread summarize @prod --older-than 7d --longer-than 100 --json
  everthread show trip-to-rome          the summary and the messages after it
  everthread show trip-to-rome --all    all messages

\b
The messages stay stored; the summary is stored beside them. After an interruption,
run the command again.

\b
Of many threads (--all, --older-than, --longer-than), four are summarized at the same
time. A thread that fails is reported, the others continue, and the exit status is
1. After ten failures in a row the command stops. Run again, it does the rest. With
--json, each thread that changed or failed is an object, and the totals are the last
one.

{MODEL_HELP}
"""


@store_command(epilog=EXAMPLES)
@optional_thread_argument
@flag_option("--all", "is_all", help="Summarize all threads of the tenant.")
@age_option("--older-than", help="Summarize threads without activity for this time.")
@number_option("--longer-than", help="Summarize threads with more than N messages.")
@number_option("--keep-turns", help="Newest turns to leave unsummarized.", default=4)
@number_option("--max-messages", help="Summarize only threads with more new messages. (default: any number)")
@number_option("--max-tokens", help="Summarize only threads with more new tokens, about. (default: any number)")
@click.option("--model", "model_option", metavar="NAME", help="Model to use. (default: see below)")
@dry_run_option
@json_option
def summarize(
    *,
    place: Place,
    thread_id: str | None,
    is_all: bool,
    older_than: timedelta | None,
    longer_than: int | None,
    keep_turns: int,
    max_messages: int | None,
    max_tokens: int | None,
    model_option: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Summarize older turns; the messages stay stored.

    Summarizes one thread, or many.
    """
    is_many = is_all or older_than is not None or longer_than is not None
    if is_many == (thread_id is not None):
        raise click.UsageError("Name one thread, or choose many: --all, --older-than, --longer-than.")
    from everthread.cli.summarizing import ManySummaries, plan_one, summarize_one
    from everthread.listing import ThreadFilter
    from everthread.operations.summarize import SummaryPolicy

    output = Output(as_json=as_json)
    policy = SummaryPolicy(max_messages, max_tokens, keep_turns)
    if not dry_run:
        for module in ("agent_framework", "agent_framework_openai"):
            import_extra(module, "chat")
    if thread_id is not None:
        key = place.key(thread_id)
        run(
            lambda store: (
                plan_one(store, key, policy, output)
                if dry_run
                else summarize_one(store, key, policy, model_option, output)
            ),
            place,
        )
        return
    before = None if older_than is None else datetime.now(UTC) - older_than
    only = ThreadFilter(active_before=before, longer_than=longer_than)
    many = ManySummaries(place.tenant, policy, only, output)
    run(lambda store: many.plan(store) if dry_run else many.summarize(store, model_option), place)
    if many.has_failures:
        raise click.exceptions.Exit(EXIT_FAILED)
