"""``everthread summarize``: covers the older turns of one thread, or of many, by summaries that a model writes."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
import msgspec

from everthread._extras import import_extra
from everthread.cli.common import (
    Age,
    CommandFailed,
    Output,
    Place,
    complete_store,
    counted,
    dry_run_option,
    json_option,
    progress,
    run,
    store_command,
)
from everthread.errors import EverthreadError

if TYPE_CHECKING:
    from everthread.cli.models import Model
    from everthread.contract import Store
    from everthread.model import ThreadKey
    from everthread.summaries import Summary, SummaryPlan, SummaryPolicy

EXAMPLES = """\b
Examples:
  everthread summarize trip-to-rome --dry-run
  everthread summarize trip-to-rome --keep-turns 6
  everthread summarize @prod trip-to-rome --max-tokens 8000 --model gpt-4o-mini
  everthread summarize --all --max-tokens 8000 --dry-run
  everthread summarize @prod --idle 7d --longer-than 100 --json
  everthread show trip-to-rome          the summary and what follows it
  everthread show trip-to-rome --all    all messages

\b
The messages stay; the summary is kept beside them. Stopped at any moment, it
is simply run again. With --max-messages or --max-tokens nothing happens until
there is more than that.

\b
Of many threads (--all, --idle, --longer-than), four are under way together. One
that fails is named and the others go on; the exit status is then 1. After ten
failures in a row it stops. Run again, it does what is left. With --json each
thread that changed or failed is an object, and the totals are the last.

\b
The model:
  Azure OpenAI   AOAI_ENDPOINT and AOAI_DEPLOYMENT; AOAI_API_KEY, or else your
                 Azure CLI or default credential
  OpenAI         OPENAI_API_KEY; OPENAI_BASE_URL for any compatible server;
                 --model or OPENAI_MODEL
"""


@store_command(epilog=EXAMPLES)
@click.argument("thread_id", metavar="[THREAD]", required=False, shell_complete=complete_store)
@click.option("--all", "is_all", is_flag=True, help="All threads of the tenant.")
@click.option("--idle", type=Age(), metavar="AGE", help="The threads without activity for so long: 24h, 7d.")
@click.option("--longer-than", type=click.IntRange(min=0), metavar="N", help="The threads with more than N messages.")
@click.option(
    "--keep-turns",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="How many of the newest turns are not summarised.",
)
@click.option("--max-messages", type=click.IntRange(min=0), metavar="N", help="Only with more than N new messages.")
@click.option("--max-tokens", type=click.IntRange(min=0), metavar="N", help="Only with more than about N new tokens.")
@click.option("--model", "model_option", metavar="NAME", help="The model.")
@dry_run_option
@json_option
def summarize(
    *,
    place: Place,
    thread_id: str | None,
    is_all: bool,
    idle: timedelta | None,
    longer_than: int | None,
    keep_turns: int,
    max_messages: int | None,
    max_tokens: int | None,
    model_option: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Summarise older turns; the messages stay.

    Of one thread, or of many.
    """
    is_many = is_all or idle is not None or longer_than is not None
    if is_many == (thread_id is not None):
        raise click.UsageError("Name one thread, or say which ones: --all, --idle, --longer-than.")
    from everthread.cli.summarize_many import ManySummaries
    from everthread.summaries import SummaryPolicy
    from everthread.threads import ThreadFilter

    output = Output(as_json=as_json)
    policy = SummaryPolicy(max_messages, max_tokens, keep_turns)
    if not dry_run:
        for module in ("agent_framework", "agent_framework_openai"):
            import_extra(module, "chat")
    if thread_id is None:
        before = None if idle is None else datetime.now(UTC) - idle
        only = ThreadFilter(active_before=before, longer_than=longer_than)
        many = ManySummaries(place.tenant, policy, only, output)
        run(lambda store: many.plan(store) if dry_run else many.summarize(store, model_option), place)
        many.end()
        return
    key = place.key(thread_id)
    if dry_run:
        run(lambda store: _plan(store, key, policy, output), place)
    else:
        run(lambda store: _summarize(store, key, policy, model_option, output), place)


async def _plan(store: Store, key: ThreadKey, policy: SummaryPolicy, output: Output) -> None:
    from everthread.summaries import plan_summary

    plan = await plan_summary(store, key, policy)
    if plan is None:
        _report_nothing(key, output, dry_run=True)
        return
    output.result(*told_plan(key, plan))


def told_plan(key: ThreadKey, plan: SummaryPlan) -> tuple[str, dict[str, object]]:
    """What would be summarised, as a sentence and as an object."""
    positions = f"positions {plan.start:,} to {plan.stop - 1:,} (about {plan.tokens:,} tokens)"
    return (
        f"{key.thread_id}: would summarise {counted(plan.messages, 'message')} at {positions}.",
        {"thread_id": key.thread_id, "dry_run": True, **msgspec.structs.asdict(plan)},
    )


async def _summarize(
    store: Store, key: ThreadKey, policy: SummaryPolicy, model_option: str | None, output: Output
) -> None:
    from everthread.cli.models import summarising_model
    from everthread.summaries import plan_summary

    plan = await plan_summary(store, key, policy)
    if plan is None:
        _report_nothing(key, output, dry_run=False)
        return
    model = summarising_model(model_option, os.environ)
    try:
        summary = await _with_progress(store, key, policy, plan, model)
    except EverthreadError:
        raise
    except Exception as error:
        raise CommandFailed(f"{model.failure(error)} What was summarised until then is kept.") from error
    finally:
        await model.close()
    if summary is None:
        _report_nothing(key, output, dry_run=False)
    else:
        text, value = told_summary(key, summary)
        output.result(text, {**value, "text": summary.text})


async def _with_progress(
    store: Store, key: ThreadKey, policy: SummaryPolicy, plan: SummaryPlan, model: Model
) -> Summary | None:
    from everthread.adapters.agent_framework.summary_window import chat_summariser
    from everthread.summaries import summarize as summarize_thread

    at = plan.start
    with progress("Summarising", plan.stop - plan.start, unit="positions") as advance:

        def told(summary: Summary) -> None:
            nonlocal at
            advance(summary.stop - at)
            at = summary.stop

        return await summarize_thread(store, key, chat_summariser(model.client), policy, on_piece=told)


def _report_nothing(key: ThreadKey, output: Output, *, dry_run: bool) -> None:
    output.result(
        f"{key.thread_id}: there is nothing to summarise.",
        {"thread_id": key.thread_id, "dry_run": dry_run, "messages": 0},
    )


def told_summary(key: ThreadKey, summary: Summary) -> tuple[str, dict[str, object]]:
    """What was summarised, as a sentence and as an object; without its text."""
    covered = {"start": summary.start, "stop": summary.stop, "messages": summary.messages}
    return (
        f"{key.thread_id}: summarised the {counted(summary.messages, 'message')} before position {summary.stop:,}.",
        {"thread_id": key.thread_id, "dry_run": False, **covered},
    )
