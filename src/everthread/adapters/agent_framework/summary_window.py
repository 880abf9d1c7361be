"""A window of a summary and the recent turns, for the history provider of Agent Framework 1.x."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from everthread._extras import missing_extra
from everthread.errors import ConfigurationError, CorruptRecordError, SummaryError
from everthread.messages.token_counts import CountTokens, guess_tokens
from everthread.operations.summarize import (
    PIECE_TOKENS,
    Summarizer,
    Summary,
    SummaryPolicy,
    Window,
    read_window,
    summarize,
)
from everthread.readable import read_around

try:
    from agent_framework import Message
except ImportError as error:
    raise missing_extra("agent-framework", error) from error

if TYPE_CHECKING:
    from agent_framework import SupportsAgentRun, SupportsChatGetResponse

    from everthread.contract import Store
    from everthread.model import ThreadKey

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds that a run waits at most for its summary."""


class SummaryWindow:
    """Pass a summary of the older turns to a model, and the recent turns unchanged. The store keeps all messages.

        window = SummaryWindow(SummaryPolicy(max_tokens=8_000, keep_turns=6))
        EverthreadHistoryProvider("sqlite:///threads.db", window=window)

    Each run that exceeds the policy's limits asks the model for a summary after it is saved, before it ends. A summary
    that fails or takes too long never fails the run: it is logged, without content, and the next run tries
    again; until then the model gets the earlier summary and all messages after it.

    Args:
        policy: The limits, and the number of the newest turns that stay unchanged.
        client: The chat client to ask; otherwise the agent's own.
        options: Chat options for that request, such as another model or a temperature.
        count_tokens: Measures texts for the policy.
        piece_tokens: The size of the parts in which the model gets a long conversation.
        timeout: Seconds that a run waits at most for its summary.

    Raises:
        ConfigurationError: The policy is not a `SummaryPolicy`, or has neither limit: every run would be summarized.
    """

    def __init__(
        self,
        policy: SummaryPolicy,
        *,
        client: SupportsChatGetResponse[Any] | None = None,
        options: Mapping[str, Any] | None = None,
        count_tokens: CountTokens = guess_tokens,
        piece_tokens: int = PIECE_TOKENS,
        timeout: float = TIMEOUT,
    ) -> None:
        if not isinstance(policy, SummaryPolicy) or (policy.max_messages is None and policy.max_tokens is None):
            raise ConfigurationError("A summary window needs a SummaryPolicy with max_messages, max_tokens or both.")
        self.policy = policy
        self._client = client
        self._options = dict(options or {})
        self._count_tokens = count_tokens
        self._piece_tokens = piece_tokens
        self._timeout = timeout

    async def read(self, store: Store, key: ThreadKey) -> Window:
        """Return the summary and the messages after it; all messages if the summary cannot be read."""
        try:
            return await read_window(store, key)
        except CorruptRecordError as error:
            log.warning(
                "The model gets all messages of %s: its summary cannot be read (%s).", key, type(error).__name__
            )
            return Window(None, await read_around(store, key))

    async def keep_small(self, store: Store, key: ThreadKey, agent: SupportsAgentRun) -> None:
        """Summarize a thread that exceeds the policy's limits; never fails."""
        try:
            async with asyncio.timeout(self._timeout):
                await summarize(
                    store,
                    key,
                    self._summarizer(agent),
                    self.policy,
                    count_tokens=self._count_tokens,
                    piece_tokens=self._piece_tokens,
                )
        except Exception as error:
            # Not its text, which may quote the conversation.
            log.warning("%s could not be summarized (%s); the next run tries again.", key, type(error).__name__)

    def _summarizer(self, agent: SupportsAgentRun) -> Summarizer:
        return chat_summarizer(self._client or getattr(agent, "client", None), self._options)


def chat_summarizer(
    client: SupportsChatGetResponse[Any] | None, options: Mapping[str, Any] | None = None
) -> Summarizer:
    """Return a function that asks a chat client for summaries; it raises `SummaryError` if there is no client."""

    async def summarize(request: str) -> str:
        if client is None:
            raise SummaryError("This agent has no chat client: give the summary window one.")
        response = await client.get_response([Message("user", [request])], options=dict(options or {}) or None)
        return response.text

    return summarize


def summary_message(summary: Summary) -> Message:
    """Return the summary as a message, in the role that the framework's own compaction uses."""
    return Message("assistant", [f"Summary of the conversation so far:\n{summary.text}"])
