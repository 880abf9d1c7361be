"""One agent, one store, and the current thread. Prints nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

from agent_framework import (
    Agent,
    AgentSession,
    ChatContext,
    ChatMiddleware,
    ChatResponse,
    ChatResponseUpdate,
    ResponseStream,
)

from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.cli.models import Model
from everthread.contract import Store
from everthread.errors import EverthreadError
from everthread.model import Page, Retention, Thread, ThreadKey

AGENT_NAME = "TravelPlanner"
WINDOW = 200
"""The newest messages that the model gets. The thread keeps all of them."""
INSTRUCTIONS = (
    "You are TravelPlanner, a concise travel assistant. Always use the facts the user gave earlier in this "
    "conversation (names, places, dates, likes and dislikes), and never ask again for what you were told."
)


class ReplyStopped(Exception):  # noqa: N818 - the user's wish, not a failure
    """The user stopped the reply before any of it had arrived; the turn was not stored."""


class ModelError(Exception):
    """The model did not answer, or stopped before its end; the turn was not stored."""


class Conversation:
    """Talks to the agent in one thread at a time, and lists the others.

    A turn (the user's message and the reply) is stored as a whole, once the reply is complete or was stopped.

    Args:
        store: The caller closes it.
        tenant: The tenant of the threads.
        max_messages: The newest messages that a thread keeps. Default: its retention, or that of the store.
        thread_id: The first thread. Default: a new one.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        *,
        tenant: str = "",
        max_messages: int | None = None,
        thread_id: str | None = None,
    ) -> None:
        self.store = store
        self.stop = asyncio.Event()
        self._tenant = tenant
        retention = None if max_messages is None else Retention(max_messages=max_messages)
        # The client gives the user the message of such a run back.
        provider = EverthreadHistoryProvider(
            store, tenant=tenant, retention=retention, window=WINDOW, on_incomplete=None
        )
        self._agent = Agent(
            model.client,
            INSTRUCTIONS,
            name=AGENT_NAME,
            context_providers=[provider],
            middleware=[_Stoppable(self.stop)],
        )
        if thread_id:
            self.load(thread_id)
        else:
            self.start_new()

    @property
    def key(self) -> ThreadKey:
        """The current thread's key."""
        return ThreadKey(self._session.session_id, self._tenant)

    def load(self, thread_id: str) -> None:
        """Make a thread the current one, whether it exists or not.

        Raises:
            InvalidIdentifierError: The ID cannot name a thread.
        """
        self._session = AgentSession(session_id=ThreadKey(thread_id).thread_id)

    def start_new(self) -> None:
        """Make a new thread the current one; it is stored with its first turn."""
        self.load(f"thread_{uuid4()}")

    async def say(self, text: str) -> AsyncIterator[str]:
        """Send a message and yield the reply as it arrives; at the end the turn is stored.

        Setting ``stop`` ends the reply: the part that had arrived is stored with the message.

        Raises:
            ReplyStopped: Nothing had arrived; nothing was stored.
            ModelError: The model failed; nothing was stored.
            EverthreadError: The store failed; nothing was stored, except perhaps with `OutcomeUnknownError`.
        """
        self.stop.clear()
        stream = self._agent.run(text, stream=True, session=self._session)
        try:
            async for update in stream:
                if update.text:
                    yield update.text
        except (EverthreadError, ReplyStopped):
            raise
        except Exception as error:
            # Each model library has its own exceptions, and none of them may lose the user's message.
            raise ModelError(f"{type(error).__name__}: {error}") from error

    async def saved_threads(self, cursor: str | None, *, limit: int) -> Page[Thread]:
        """Return a page of the threads that contain messages, the newest activity first."""
        while True:
            page = await self.store.list_threads(self._tenant, limit=limit, cursor=cursor)
            with_messages = tuple(thread for thread in page if thread.count)
            if with_messages or page.cursor is None:
                return Page(with_messages, page.cursor)
            cursor = page.cursor


class _Stoppable(ChatMiddleware):
    """Ends the model's stream on request, as if the model had ended there.

    The framework then stores the turn as usual: once, whole, with the part that arrived. Cancelling the run instead
    would race with the storing of the turn.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    async def process(self, context: ChatContext, call_next: Callable[[], Awaitable[None]]) -> None:
        await call_next()
        if isinstance(context.result, ResponseStream):
            context.result = ResponseStream(_until(context.result, self._stop), finalizer=ChatResponse.from_updates)


async def _until(
    stream: ResponseStream[ChatResponseUpdate, ChatResponse[Any]], stop: asyncio.Event
) -> AsyncIterator[ChatResponseUpdate]:
    stopping = asyncio.ensure_future(stop.wait())
    arrived = False
    try:
        while True:
            update = await _next_or_none(stream, stopping)
            if update is None:
                break
            arrived = arrived or bool(update.text)
            yield update
    finally:
        stopping.cancel()
    if stop.is_set() and not arrived:
        raise ReplyStopped


async def _next_or_none(
    stream: ResponseStream[ChatResponseUpdate, ChatResponse[Any]], stopping: asyncio.Future[Any]
) -> ChatResponseUpdate | None:
    pull = asyncio.ensure_future(_pull(stream))
    try:
        await asyncio.wait({pull, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return pull.result() if pull.done() else None
    finally:
        if not pull.done():
            pull.cancel()
            await asyncio.wait({pull})


async def _pull(stream: ResponseStream[ChatResponseUpdate, ChatResponse[Any]]) -> ChatResponseUpdate | None:
    return await anext(stream, None)
