"""One agent, one store, and the thread that is being talked in. Prints nothing."""

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

from everthread import threads
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.cli.models import Model
from everthread.contract import Store, read_all
from everthread.errors import EverthreadError
from everthread.model import Message, MessagePage, Page, Retention, Thread, ThreadKey

AGENT_NAME = "TravelPlanner"
INSTRUCTIONS = (
    "You are TravelPlanner, a concise travel assistant. Always use the facts the user gave earlier in this "
    "conversation (names, places, dates, likes and dislikes), and never ask again for what you were told."
)


class ReplyStopped(Exception):  # noqa: N818 - the user's wish, not a failure
    """The reply was stopped before anything of it had arrived; the turn was not kept."""


class ModelError(Exception):
    """The model did not answer, or stopped in the middle; the turn was not kept."""


class Conversation:
    """Talks to the agent in one thread at a time, and finds the others.

    A turn (the user's message and the reply) is stored as a whole, once the reply is complete or was stopped.

    Args:
        store: Stays the caller's: it is not closed here.
        tenant: Whose threads.
        max_messages: How many messages a thread keeps; otherwise what it or its store says.
        thread_id: The thread to begin with; a fresh one if not given.
        new_id: Makes the ids of fresh threads.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        *,
        tenant: str = "",
        max_messages: int | None = None,
        thread_id: str | None = None,
        new_id: Callable[[], str] = lambda: f"thread_{uuid4()}",
    ) -> None:
        self.store = store
        self.stop = asyncio.Event()
        self._new_id = new_id
        self._tenant = tenant
        retention = None if max_messages is None else Retention(max_messages=max_messages)
        provider = EverthreadHistoryProvider(store, tenant=tenant, retention=retention)
        self._agent = Agent(
            model.client,
            INSTRUCTIONS,
            name=AGENT_NAME,
            context_providers=[provider],
            middleware=[_Stoppable(self.stop)],
        )
        self.go_on_with(thread_id or new_id())

    @property
    def key(self) -> ThreadKey:
        """The current thread."""
        return ThreadKey(self._session.session_id, self._tenant)

    def go_on_with(self, thread_id: str) -> None:
        """Makes a thread the current one, whether it exists or not.

        Raises:
            InvalidIdentifierError: It cannot name a thread.
        """
        self._session = AgentSession(session_id=ThreadKey(thread_id).thread_id)

    def start_fresh(self) -> None:
        """Makes a new thread the current one; it is stored with its first turn."""
        self.go_on_with(self._new_id())

    async def say(self, text: str) -> AsyncIterator[str]:
        """Sends a message and yields the reply as it arrives; the turn has been stored when this ends.

        Setting ``stop`` meanwhile ends the reply: what had arrived is stored with the message.

        Raises:
            ReplyStopped: Stopped before anything had arrived; nothing was stored.
            ModelError: The model failed; nothing was stored.
            EverthreadError: The store failed; nothing was stored, unless it says that the outcome is unknown.
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
            # Each model's library has exceptions of its own; none of them may cost the user their message.
            raise ModelError(f"{type(error).__name__}: {error}") from error

    async def current(self) -> Thread | None:
        """What is known of the current thread, or ``None`` while nothing of it is stored."""
        return await self.store.get_thread(self.key)

    def messages(self) -> AsyncIterator[Message]:
        """The current thread's messages, oldest first."""
        return read_all(self.store, self.key, page_size=200)

    async def newest(self, count: int) -> MessagePage:
        """The current thread's last messages, oldest first."""
        return await self.store.read_last(self.key, count)

    async def saved_threads(self, cursor: str | None, *, limit: int) -> Page[Thread]:
        """A page of the threads that hold messages, the newest activity first."""
        while True:
            page = await self.store.list_threads(self._tenant, limit=limit, cursor=cursor)
            with_messages = tuple(thread for thread in page if thread.count)
            if with_messages or page.cursor is None:
                return Page(with_messages, page.cursor)
            cursor = page.cursor

    async def title_of(self, thread: Thread) -> str | None:
        """A thread's title; if it has none, one from its first user message that is still kept."""
        return await threads.title_of(self.store, thread)


class _Stoppable(ChatMiddleware):
    """Ends the model's stream when asked to, as if the model had ended there.

    The framework then finishes the turn as ever: it is stored once, whole, with the part that
    arrived. Cancelling the run instead would race with the storing of the turn.
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
