"""A window that hands a model a summary and the recent turns, for the history provider of Agent Framework 1.x."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent_framework import Message

from everthread.errors import ConfigurationError, CorruptRecordError, SummaryError
from everthread.summaries import (
    PIECE_TOKENS,
    Summariser,
    Summary,
    SummaryPolicy,
    Window,
    read_window,
    summarize,
)
from everthread.tokens import CountTokens, guess_tokens

if TYPE_CHECKING:
    from agent_framework import SupportsAgentRun, SupportsChatGetResponse

    from everthread.contract import Store
    from everthread.model import ThreadKey

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds that a run waits at most for its summary."""


class SummaryWindow:
    """Gives a model a summary of the older turns and the recent turns as they are; the store keeps all messages.

        window = SummaryWindow(SummaryPolicy(max_tokens=8_000, keep_turns=6))
        EverthreadHistoryProvider("sqlite:///threads.db", window=window)

    When a run has been saved and the policy says so, the model is asked for the summary, before the run ends. If that
    fails, takes too long or is cut off, the run does not fail: it is logged, without content, and the next run tries
    again; until then the model is handed the earlier summary and all that follows it.

    Args:
        policy: When to summarise, and how many of the newest turns stay as they are.
        client: The chat client to ask; otherwise the agent's own.
        options: Chat options for that request, such as another model or a temperature.
        count_tokens: Measures texts for the policy.
        piece_tokens: How much of a long conversation the model is given at once.
        timeout: Seconds that a run waits at most for its summary.

    Raises:
        ConfigurationError: The policy is not one, or it has neither limit: every run would then be summarised.
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
        """The summary and the messages after it; all messages where the summary cannot be read."""
        try:
            return await read_window(store, key)
        except CorruptRecordError as error:
            log.warning("The summary of %s cannot be used, so all messages are: %s", key, type(error).__name__)
            return Window(None, await store.read(key))

    async def keep_small(self, store: Store, key: ThreadKey, agent: SupportsAgentRun) -> None:
        """Summarises a thread if the policy says so; never fails."""
        try:
            async with asyncio.timeout(self._timeout):
                await summarize(
                    store,
                    key,
                    self._summariser(agent),
                    self.policy,
                    count_tokens=self._count_tokens,
                    piece_tokens=self._piece_tokens,
                )
        except Exception as error:
            # Not its text, which may quote the conversation.
            log.warning("%s could not be summarised (%s); the next run tries again.", key, type(error).__name__)

    def _summariser(self, agent: SupportsAgentRun) -> Summariser:
        return chat_summariser(self._client or getattr(agent, "client", None), self._options)


def chat_summariser(
    client: SupportsChatGetResponse[Any] | None, options: Mapping[str, Any] | None = None
) -> Summariser:
    """Asks a chat client of Agent Framework for summaries.

    Raises:
        SummaryError: When it is asked and there is no client.
    """

    async def summarise(request: str) -> str:
        if client is None:
            raise SummaryError("This agent has no chat client: give the summary window one.")
        response = await client.get_response([Message("user", [request])], options=dict(options or {}) or None)
        return response.text

    return summarise


def summary_message(summary: Summary) -> Message:
    """The summary as a model is handed it, in the role that the framework's own compaction uses."""
    return Message("assistant", [f"Summary of the conversation so far:\n{summary.text}"])
