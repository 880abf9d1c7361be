"""Summaries of many threads in one run: of a tenant's, chosen by idleness and length. Made for a timer.

What a summary is, and how one thread gets it, is in `everthread.summaries`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import msgspec

from everthread.contract import Store
from everthread.errors import StoreUnavailableError, ThreadNotFoundError
from everthread.model import Thread, ThreadKey
from everthread.summaries import (
    ALL_BUT_THE_NEWEST,
    PIECE_TOKENS,
    Summariser,
    Summary,
    SummaryPlan,
    SummaryPolicy,
    plan_summary,
    summarize,
)
from everthread.threads import ALL_THREADS, ThreadFilter, find_threads, for_each
from everthread.tokens import CountTokens, guess_tokens

AT_ONCE = 4
"""How many threads are summarised together, which is how often the model is asked at the same time."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one thread, or would; nothing of it where there was nothing to do.

    Attributes:
        summary: Its new summary.
        plan: What would be summarised, where that was asked.
        error: What went wrong with this thread: a failure of the model, a record that cannot be read.
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
    summariser: Summariser,
    policy: SummaryPolicy = ALL_BUT_THE_NEWEST,
    tenant: str = "",
    *,
    only: ThreadFilter = ALL_THREADS,
    count_tokens: CountTokens = guess_tokens,
    piece_tokens: int = PIECE_TOKENS,
    at_once: int = AT_ONCE,
) -> AsyncGenerator[Outcome, None]:
    """Summarises a tenant's threads as `everthread.summaries.summarize` does each; tells of every one.

    The newest activity comes first, and ``at_once`` threads are under way together. A thread whose summary fails
    is told of, and the others go on. Stopped at any moment and run again, it goes on: threads that are done have
    nothing left to do, and of a long one the finished pieces are kept. Memory is bounded by the threads under way.

    Args:
        store: Where the threads are.
        summariser: Asks the model.
        policy: When a thread is summarised, and how much of it.
        tenant: Whose threads.
        only: Which of them are looked at.
        count_tokens: Measures texts for the model.
        piece_tokens: How much the model is given at once, apart from the instructions.
        at_once: How many threads are under way together.

    Raises:
        StoreUnavailableError: The store does not answer.
    """

    async def summarised(key: ThreadKey) -> Outcome:
        return Outcome(
            key,
            await summarize(store, key, summariser, policy, count_tokens=count_tokens, piece_tokens=piece_tokens),
        )

    return _each(find_threads(store, tenant, only), summarised, at_once)


def plan_summaries(
    store: Store,
    policy: SummaryPolicy = ALL_BUT_THE_NEWEST,
    tenant: str = "",
    *,
    only: ThreadFilter = ALL_THREADS,
    count_tokens: CountTokens = guess_tokens,
    at_once: int = AT_ONCE,
) -> AsyncGenerator[Outcome, None]:
    """What `summarize_threads` would do now. Asks no model and changes nothing."""

    async def planned(key: ThreadKey) -> Outcome:
        return Outcome(key, plan=await plan_summary(store, key, policy, count_tokens=count_tokens))

    return _each(find_threads(store, tenant, only), planned, at_once)


def _each(
    found: AsyncIterator[Thread], work: Callable[[ThreadKey], Awaitable[Outcome]], at_once: int
) -> AsyncGenerator[Outcome, None]:
    async def guarded(thread: Thread) -> Outcome:
        try:
            return await work(thread.key)
        except StoreUnavailableError:
            raise
        except ThreadNotFoundError:
            # It was deleted since it was listed.
            return Outcome(thread.key)
        except Exception as error:
            # Each model's library has exceptions of its own.
            return Outcome(thread.key, error=error)

    return for_each(found, guarded, at_once=at_once)
