"""What ``everthread summarize`` does with many threads, and what it tells of them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from everthread.cli.common import EXIT_FAILED, CommandFailed, Output, counted, progress
from everthread.cli.rendering import one_line
from everthread.cli.summarize import told_plan, told_summary
from everthread.errors import EverthreadError

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.summaries import SummaryPolicy
    from everthread.summarizing import Outcome
    from everthread.threads import ThreadFilter

MOST_FAILURES = 10
"""After so many in a row it is not the threads: a model that is down is not asked thousands of times."""


class ManySummaries:
    """Goes over a tenant's threads, tells of each that changes or fails, and counts."""

    def __init__(self, tenant: str, policy: SummaryPolicy, only: ThreadFilter, output: Output) -> None:
        self._tenant, self._policy, self._only = tenant, policy, only
        self._output = output
        self._totals = {"threads": 0, "summarised": 0, "messages": 0, "tokens": 0, "failed": 0}
        self._in_a_row = 0
        self._failure: Callable[[Exception], str] = str

    async def plan(self, store: Store) -> None:
        """Tells what would be summarised."""
        from everthread.summarizing import plan_summaries

        await self._go_over(plan_summaries(store, self._policy, self._tenant, only=self._only), "Looking")
        totals = self._totals
        self._output.result(
            f"Would summarise {counted(totals['messages'], 'message')} (about {totals['tokens']:,} tokens) of "
            f"{totals['summarised']:,} of {counted(totals['threads'], 'thread')}.",
            {"dry_run": True, **totals},
        )

    async def summarize(self, store: Store, model_option: str | None) -> None:
        """Asks the model for the summaries."""
        from everthread.adapters.agent_framework.summary_window import chat_summariser
        from everthread.cli.models import summarising_model
        from everthread.summarizing import summarize_threads

        model = summarising_model(model_option, os.environ)
        self._failure = model.failure
        try:
            outcomes = summarize_threads(
                store, chat_summariser(model.client), self._policy, self._tenant, only=self._only
            )
            await self._go_over(outcomes, "Summarising")
        finally:
            await model.close()
        done = {name: self._totals[name] for name in ("threads", "summarised", "failed")}
        self._output.result(
            f"Summarised {done['summarised']:,} of {counted(done['threads'], 'thread')}; {done['failed']:,} failed.",
            {"dry_run": False, **done},
        )

    def end(self) -> None:
        """Ends the command with a failure if a thread had one."""
        if self._totals["failed"]:
            raise click.exceptions.Exit(EXIT_FAILED)

    async def _go_over(self, going: AsyncGenerator[Outcome, None], what: str) -> None:
        async with aclosing(going) as outcomes:
            with progress(what, unit="threads") as advance:
                await self._tell_all(outcomes, advance)

    async def _tell_all(self, outcomes: AsyncIterator[Outcome], advance: Callable[[int], None]) -> None:
        async for outcome in outcomes:
            self._totals["threads"] += 1
            self._tell(outcome)
            advance(1)
            if self._in_a_row == MOST_FAILURES:
                raise CommandFailed(f"{MOST_FAILURES} threads in a row failed: stopped. Run it again later.")

    def _tell(self, outcome: Outcome) -> None:
        key, totals = outcome.key, self._totals
        if outcome.error is not None:
            totals["failed"] += 1
            self._in_a_row += 1
            error = outcome.error
            why = one_line(str(error) if isinstance(error, EverthreadError) else self._failure(error), 300)
            self._output.note(f"{key} is not summarised: {why}")
            if self._output.as_json:
                self._output.result("", {"thread_id": key.thread_id, "failed": why})
            return
        if outcome.plan is not None:
            totals["messages"] += outcome.plan.messages
            totals["tokens"] += outcome.plan.tokens
            self._output.result(*told_plan(key, outcome.plan))
        elif outcome.summary is not None:
            self._output.result(*told_summary(key, outcome.summary))
        else:
            return
        totals["summarised"] += 1
        self._in_a_row = 0
