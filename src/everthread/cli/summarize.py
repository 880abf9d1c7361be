"""``everthread summarize``: covers the older turns of a thread by a summary that a model writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from everthread._extras import import_extra
from everthread.cli.common import (
    CommandFailed,
    Output,
    Place,
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
  everthread show trip-to-rome          the summary and what follows it
  everthread show trip-to-rome --all    all messages

\b
The messages stay; the summary is kept beside them. Stopped at any moment, it
is simply run again. With --max-messages or --max-tokens nothing happens until
there is more than that.

\b
The model:
  Azure OpenAI   AOAI_ENDPOINT and AOAI_DEPLOYMENT; AOAI_API_KEY, or else your
                 Azure CLI or default credential
  OpenAI         OPENAI_API_KEY; OPENAI_BASE_URL for any compatible server;
                 --model or OPENAI_MODEL
"""


@store_command(epilog=EXAMPLES)
@click.argument("thread_id", metavar="THREAD")
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
    thread_id: str,
    keep_turns: int,
    max_messages: int | None,
    max_tokens: int | None,
    model_option: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Summarise the older turns of a thread; its messages stay."""
    from everthread.summaries import SummaryPolicy

    output = Output(as_json=as_json)
    policy = SummaryPolicy(max_messages, max_tokens, keep_turns)
    key = place.key(thread_id)
    if dry_run:
        run(lambda store: _plan(store, key, policy, output), place)
        return
    for module in ("agent_framework", "agent_framework_openai"):
        import_extra(module, "chat")
    run(lambda store: _summarize(store, key, policy, model_option, output), place)


async def _plan(store: Store, key: ThreadKey, policy: SummaryPolicy, output: Output) -> None:
    from everthread.summaries import plan_summary

    plan = await plan_summary(store, key, policy)
    if plan is None:
        _report_nothing(key, output, dry_run=True)
        return
    output.result(
        f"{key.thread_id}: {plan.messages:,} messages at positions {plan.start:,} to {plan.stop - 1:,} "
        f"(about {plan.tokens:,} tokens) would be summarised.",
        {
            "thread_id": key.thread_id,
            "dry_run": True,
            "start": plan.start,
            "stop": plan.stop,
            "messages": plan.messages,
            "tokens": plan.tokens,
        },
    )


async def _summarize(
    store: Store, key: ThreadKey, policy: SummaryPolicy, model_option: str | None, output: Output
) -> None:
    from everthread.summaries import plan_summary

    plan = await plan_summary(store, key, policy)
    if plan is None:
        _report_nothing(key, output, dry_run=False)
        return
    model = _model(model_option)
    try:
        summary = await _with_progress(store, key, policy, plan, model)
    except EverthreadError:
        raise
    except Exception as error:
        told = f"The model did not answer. {model.without_secrets(str(error))}"
        raise CommandFailed(f"{told} What was summarised until then is kept.") from error
    finally:
        await model.close()
    if summary is None:
        _report_nothing(key, output, dry_run=False)
    else:
        _report(key, summary, output)


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


def _model(option: str | None) -> Model:
    from everthread.cli.models import OFFLINE, choose_model
    from everthread.cli.offline_model import OfflineModel

    model = choose_model(None if option == OFFLINE else option, os.environ)
    if option == OFFLINE or isinstance(model.client, OfflineModel):
        raise CommandFailed(
            "A summary needs a model that can write one: set OPENAI_API_KEY or OPENAI_BASE_URL, or AOAI_ENDPOINT and "
            "AOAI_DEPLOYMENT."
        )
    return model


def _report_nothing(key: ThreadKey, output: Output, *, dry_run: bool) -> None:
    output.result(
        f"{key.thread_id}: there is nothing to summarise.",
        {"thread_id": key.thread_id, "dry_run": dry_run, "messages": 0},
    )


def _report(key: ThreadKey, summary: Summary, output: Output) -> None:
    output.result(
        f"{key.thread_id}: the {summary.messages:,} messages before position {summary.stop:,} are summarised.",
        {
            "thread_id": key.thread_id,
            "dry_run": False,
            "start": summary.start,
            "stop": summary.stop,
            "messages": summary.messages,
            "text": summary.text,
        },
    )
