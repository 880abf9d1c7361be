"""The work of ``everthread summarize``, on one thread and on many, and its output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import UNSET

from everthread.adapters.agent_framework.summary_window import chat_summarizer
from everthread.cli.exit_statuses import CommandFailed
from everthread.cli.json_output import FailedSummary, SummarizedThread, SummaryTotals
from everthread.cli.models import Model, summarizing_model
from everthread.cli.plain import counted
from everthread.cli.progress import progress
from everthread.cli.rendering import one_line
from everthread.errors import EverthreadError
from everthread.operations.summarize import Summarizer, Summary, SummaryPlan, plan_summary, summarize
from everthread.operations.summarize_many import summarize_threads

if TYPE_CHECKING:
    from everthread.cli.output import Output
    from everthread.contract import Store
    from everthread.listing import ThreadFilter
    from everthread.model import ThreadKey
    from everthread.operations.summarize import SummaryPolicy
    from everthread.operations.summarize_many import Outcome

MOST_FAILURES = 10
"""After this many failures in a row the model is down: it is not asked for thousands of threads."""


async def plan_one(store: Store, key: ThreadKey, policy: SummaryPolicy, output: Output) -> None:
    """Print what `summarize_one` would summarize."""
    _show_plan(key, await plan_summary(store, key, policy), output)


async def summarize_one(
    store: Store, key: ThreadKey, policy: SummaryPolicy, model_option: str | None, output: Output
) -> None:
    """Summarize a thread, and print the summary's extent.

    Raises:
        CommandFailed: The model failed.
    """
    plan = await plan_summary(store, key, policy)
    if plan is None:
        _show_summary(key, None, output)
        return
    model = summarizing_model(model_option, os.environ)
    try:
        summary = await _with_progress(store, key, policy, plan, model)
    except EverthreadError:
        raise
    except Exception as error:
        raise CommandFailed(f"{model.failure(error)} The parts summarized until then are stored.") from error
    finally:
        await model.close()
    _show_summary(key, summary, output, with_text=True)


async def _with_progress(
    store: Store, key: ThreadKey, policy: SummaryPolicy, plan: SummaryPlan, model: Model
) -> Summary | None:
    at = plan.start
    with progress("Summarizing", plan.stop - plan.start, unit="positions") as advance:

        def on_piece(summary: Summary) -> None:
            nonlocal at
            advance(summary.stop - at)
            at = summary.stop

        return await summarize(store, key, chat_summarizer(model.client), policy, on_piece=on_piece)


def _show_plan(key: ThreadKey, plan: SummaryPlan | None, output: Output) -> None:
    if plan is None:
        _show_nothing(key, output, dry_run=True)
        return
    positions = f"positions {plan.start:,} to {plan.stop - 1:,} (about {plan.tokens:,} tokens)"
    output.result(
        f"{key.thread_id}: would summarize {counted(plan.messages, 'message')} at {positions}.",
        SummarizedThread(
            thread_id=key.thread_id,
            dry_run=True,
            start=plan.start,
            stop=plan.stop,
            messages=plan.messages,
            tokens=plan.tokens,
        ),
    )


def _show_summary(key: ThreadKey, summary: Summary | None, output: Output, *, with_text: bool = False) -> None:
    if summary is None:
        _show_nothing(key, output, dry_run=False)
        return
    output.result(
        f"{key.thread_id}: summarized the {counted(summary.messages, 'message')} before position {summary.stop:,}.",
        SummarizedThread(
            thread_id=key.thread_id,
            dry_run=False,
            start=summary.start,
            stop=summary.stop,
            messages=summary.messages,
            text=summary.text if with_text else UNSET,
        ),
    )


def _show_nothing(key: ThreadKey, output: Output, *, dry_run: bool) -> None:
    output.result(
        f"{key.thread_id}: there is nothing to summarize.",
        SummarizedThread(thread_id=key.thread_id, dry_run=dry_run, messages=0),
    )


class ManySummaries:
    """Summarizes a tenant's threads, prints each that changes or fails, and counts."""

    def __init__(self, tenant: str, policy: SummaryPolicy, only: ThreadFilter, output: Output) -> None:
        self._tenant, self._policy, self._only = tenant, policy, only
        self._output = output
        self._totals = Counter[str]()
        self._in_a_row = 0
        self._failure: Callable[[Exception], str] = str

    @property
    def has_failures(self) -> bool:
        """Whether a thread failed."""
        return self._totals["failed"] > 0

    async def plan(self, store: Store) -> None:
        """Print what would be summarized."""
        await self._each(store, None, "Examining")
        totals, sums = self._totals, self._sums(dry_run=True)
        sums.messages, sums.tokens = totals["messages"], totals["tokens"]
        self._output.result(
            f"Would summarize {counted(totals['messages'], 'message')} (about {totals['tokens']:,} tokens) of "
            f"{sums.summarized:,} of {counted(sums.threads, 'thread')}.",
            sums,
        )

    async def summarize(self, store: Store, model_option: str | None) -> None:
        """Ask the model for the summaries, and store them."""
        model = summarizing_model(model_option, os.environ)
        self._failure = model.failure
        try:
            await self._each(store, chat_summarizer(model.client), "Summarizing")
        finally:
            await model.close()
        done = self._sums(dry_run=False)
        self._output.result(
            f"Summarized {done.summarized:,} of {counted(done.threads, 'thread')}; {done.failed:,} failed.", done
        )

    def _sums(self, *, dry_run: bool) -> SummaryTotals:
        counts = {name: self._totals[name] for name in ("threads", "summarized", "failed")}
        return SummaryTotals(dry_run=dry_run, **counts)

    async def _each(self, store: Store, summarizer: Summarizer | None, what: str) -> None:
        going = summarize_threads(store, summarizer, self._policy, self._tenant, only=self._only)
        async with aclosing(going) as outcomes:
            with progress(what, unit="threads") as advance:
                async for outcome in outcomes:
                    self._totals["threads"] += 1
                    self._add(outcome)
                    advance(1)
                    if self._in_a_row == MOST_FAILURES:
                        raise CommandFailed(f"{MOST_FAILURES} threads in a row failed: stopped. Run it again later.")

    def _add(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._fail(outcome.key, outcome.error)
            return
        if outcome.plan is not None:
            self._totals["messages"] += outcome.plan.messages
            self._totals["tokens"] += outcome.plan.tokens
            _show_plan(outcome.key, outcome.plan, self._output)
        elif outcome.summary is not None:
            _show_summary(outcome.key, outcome.summary, self._output)
        else:
            return
        self._totals["summarized"] += 1
        self._in_a_row = 0

    def _fail(self, key: ThreadKey, error: Exception) -> None:
        self._totals["failed"] += 1
        self._in_a_row += 1
        reason = one_line(str(error) if isinstance(error, EverthreadError) else self._failure(error), 300)
        self._output.note(f"{key} is not summarized: {reason}")
        if self._output.as_json:
            self._output.result("", FailedSummary(thread_id=key.thread_id, failed=reason))
