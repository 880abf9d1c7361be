"""Summarize many threads of a tenant in one run, chosen by idleness and length. Made for a timer.

`everthread.operations.summarize` describes summaries, and summarizes one thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import msgspec

from everthread.contract import Store
from everthread.errors import StoreUnavailableError, ThreadNotFoundError
from everthread.listing import ALL_THREADS, ThreadFilter, find_threads, for_each
from everthread.messages.token_counts import CountTokens, guess_tokens
from everthread.model import Thread, ThreadKey
from everthread.operations.summarize import (
    ALL_BUT_THE_NEWEST,
    PIECE_TOKENS,
    Summarizer,
    Summary,
    SummaryPlan,
    SummaryPolicy,
    plan_summary,
    summarize,
)

AT_ONCE = 4
"""The number of threads summarized at the same time, and so of concurrent requests to the model."""


class Outcome(msgspec.Struct, frozen=True):
    """The result for one thread. Without summary, plan and error there was nothing to do.

    Attributes:
        summary: The new summary.
        plan: The plan, of a run without a summarizer.
        error: A failure of the model, or an unreadable record.
    """

    key: ThreadKey
    summary: Summary | None = None
    plan: SummaryPlan | None = None
    error: Exception | None = None

    def __repr__(self) -> str:
        # Without the error's text: a model's library may quote the conversation in it.
        error = None if self.error is None else type(self.error).__name__
        return f"Outcome({self.key}, summary={self.summary!r}, plan={self.plan!r}, error={error})"


def summarize_threads(
    store: Store,
    summarizer: Summarizer | None,
    policy: SummaryPolicy = ALL_BUT_THE_NEWEST,
    tenant: str = "",
    *,
    only: ThreadFilter = ALL_THREADS,
    count_tokens: CountTokens = guess_tokens,
    piece_tokens: int = PIECE_TOKENS,
    at_once: int = AT_ONCE,
) -> AsyncGenerator[Outcome, None]:
    """Summarize a tenant's threads with `everthread.operations.summarize.summarize`, and yield every result.

    The newest activity comes first. A thread that fails does not stop the others. A run that stops at any moment can be
    repeated: it continues, and finished pieces of a long thread stay. Memory is bounded by the concurrent threads.

    Args:
        store: The store.
        summarizer: Asks the model. ``None``: change nothing, and yield the plans.
        policy: When to summarize a thread, and how many turns to leave out.
        tenant: The owner of the threads.
        only: Selects threads.
        count_tokens: Measures texts for the model.
        piece_tokens: The most tokens in one request, without the instructions.
        at_once: The number of concurrent threads.

    Raises:
        StoreUnavailableError: The store does not answer.
    """

    async def summarized(key: ThreadKey) -> Outcome:
        if summarizer is None:
            return Outcome(key, plan=await plan_summary(store, key, policy, count_tokens=count_tokens))
        return Outcome(
            key,
            await summarize(store, key, summarizer, policy, count_tokens=count_tokens, piece_tokens=piece_tokens),
        )

    return _each(find_threads(store, tenant, only), summarized, at_once)


def _each(
    found: AsyncIterator[Thread], work: Callable[[ThreadKey], Awaitable[Outcome]], at_once: int
) -> AsyncGenerator[Outcome, None]:
    async def guarded(thread: Thread) -> Outcome:
        try:
            return await work(thread.key)
        except StoreUnavailableError:
            raise
        except ThreadNotFoundError:
            # It was deleted after the listing.
            return Outcome(thread.key)
        except Exception as error:
            # Every model library has its own exceptions.
            return Outcome(thread.key, error=error)

    return for_each(found, guarded, at_once=at_once)
