"""The history provider of Agent Framework 1.x over any store."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4
from weakref import WeakKeyDictionary

from everthread._extras import missing_extra
from everthread.adapters._retrying import append_with_retries
from everthread.adapters.agent_framework.messages import from_stored, to_new_message
from everthread.adapters.agent_framework.replays import Replay, find_replay, is_transcript
from everthread.adapters.agent_framework.sequence import valid_history
from everthread.adapters.agent_framework.sessions import DEFAULT_SOURCE, SessionKeys, StoredSession
from everthread.codec import shorten
from everthread.contract import Store
from everthread.errors import ConfigurationError, ThreadNotFoundError
from everthread.model import MessagePage, Page, Retention, ThreadKey, check_count
from everthread.opening import open_store
from everthread.summaries import SUMMARY_DOCUMENT, Window

try:
    from agent_framework import HistoryProvider, Message, SessionContext

    from everthread.adapters.agent_framework.summary_window import SummaryWindow, summary_message
except ImportError as error:
    raise missing_extra("agent-framework", error) from error

try:
    # What the base's before_run applies: it knows approvals of calls that a service carries out, too.
    from agent_framework._sessions import (
        _filter_approval_control_messages as without_settled_approvals,  # pyright: ignore[reportPrivateUsage]
    )
except ImportError:

    def without_settled_approvals(messages: Sequence[Message]) -> list[Message]:
        """Early releases of 1.x hand approvals over as they are; `valid_history` does what is needed."""
        return list(messages)


if TYPE_CHECKING:
    from agent_framework import AgentSession, SupportsAgentRun

TITLE_CHARACTERS = 80
MAX_LISTING_PAGES = 10
"""How many pages of the store one page of sessions looks through, where other sources' threads lie between."""


@dataclass(frozen=True)
class _Run:
    """What is known of one run between its hooks: what its input repeats, and the id of its save."""

    replay: Replay
    append_id: str = field(default_factory=lambda: uuid4().hex)


_saving: ContextVar[tuple[EverthreadHistoryProvider, _Run] | None] = ContextVar("saving", default=None)


class EverthreadHistoryProvider(HistoryProvider):
    """Gives an agent a history that outlives the process, on any store.

        agent = Agent(client, context_providers=[EverthreadHistoryProvider("sqlite:///threads.db")])
        await agent.run("I am Ana", session=AgentSession(session_id="trip"))

    A run costs one read (of at most ``window`` messages) and one write, which is atomic: what a run was given and
    what it answered is kept whole or not at all. A save whose outcome is unknown is tried again and takes effect once.

    What is stored: everything that a run answers, and its input, except for the part of an input that
    repeats the stored conversation (callers that send the whole transcript each time): see `replays`. A single message
    is always stored, however often the same was said before, unless its ``message_id`` is known.

    What is handed to the model: the stored messages, oldest first, of which those are left out that a model
    service would refuse (a tool result without its call, a call that a crashed run left without its result): see
    `sequence`. The store keeps them.

    Args:
        store: A `Store`, which stays the caller's to close, or the URL of one, which is connected at its first use and
            closed by `aclose` (or ``async with``).
        source_id: Tells several providers on one session apart: each has messages of its own.
        tenant: The owner of the sessions.
        retention: What the store may forget, applied with each save.
        window: Hand at most so many of the newest messages to the model, or a summary and the recent turns
            (`SummaryWindow`); ``None`` hands over all that is kept.
        load_messages: Hand the history to the model at all.
        store_inputs: Keep what a run was given.
        store_outputs: Keep what a run answered.
        store_context_messages: Keep also what other context providers added to a run.
        store_context_from: If given, only what these sources added.

    Raises:
        ConfigurationError: A negative window; a URL of an unknown scheme or with a wrong option.
        InvalidIdentifierError: ``source_id`` or ``tenant`` is no identifier.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        source_id: str = DEFAULT_SOURCE,
        tenant: str = "",
        retention: Retention | None = None,
        window: int | SummaryWindow | None = None,
        load_messages: bool = True,
        store_inputs: bool = True,
        store_outputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
    ) -> None:
        super().__init__(
            source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            store_outputs=store_outputs,
        )
        if not isinstance(window, SummaryWindow):
            check_count(window, "window", optional=True)
        if retention is not None and not isinstance(retention, Retention):
            raise ConfigurationError(f"retention must be a Retention, not {type(retention).__name__}.")
        self.window = window
        self.retention = retention
        self._keys = SessionKeys(source_id, tenant)
        self._owns_store = isinstance(store, str)
        self._store = open_store(store) if isinstance(store, str) else _checked_store(store)
        self._runs: WeakKeyDictionary[SessionContext, _Run] = WeakKeyDictionary()

    @property
    def store(self) -> Store:
        """The store behind this provider."""
        return self._store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.source_id!r} on {self._store.location}>"

    # The framework's interface

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Message]:
        """All messages that are kept of a session, oldest first, as they were stored.

        Raises:
            InvalidIdentifierError: The session has no id.
            CorruptRecordError: A record is not a message; names its position.
        """
        key = self._keys.key(session_id)
        return [from_stored(stored, key) for stored in await self._store.read(key)]

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,
        append_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Appends all these messages to a session as one turn.

        Args:
            session_id: The session; it is begun if there is none.
            messages: What to append; nothing happens if there are none.
            state: Not used.
            append_id: Makes the call safe to repeat: a turn is saved once under its id, also by several callers at the
                same time.
            kwargs: Not used.

        Raises:
            InvalidIdentifierError: The session has no id.
            InvalidMessageError: A message cannot be stored so that it comes back equal; nothing was written.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key = self._keys.key(session_id)
        saving = _saving.get()
        run = saving[1] if saving is not None and saving[0] is self else None
        if run is not None:
            messages = _without(messages, run.replay.messages)
        if not messages:
            return
        turn = [to_new_message(message) for message in messages]
        if run is not None:
            append_id = run.append_id
            if all(message.message_id for message in messages):
                # Ids make it the same turn whoever saves it, such as a caller that runs the agent again after a crash.
                append_id = sha256(b"\n".join(message.payload for message in turn)).hexdigest()
        await append_with_retries(
            self._store, key, turn, append_id=append_id, retention=self.retention, default_title=_title(messages)
        )

    async def before_run(
        self, *, agent: SupportsAgentRun, session: AgentSession, context: SessionContext, state: dict[str, Any]
    ) -> None:
        """Adds the history to a run's context: one read."""
        # In place of the base's own, which copies each message first: at 200 messages that costs as much as reading.
        history = valid_history(without_settled_approvals(await self._load(context)), context.input_messages)
        if any("_attribution" in message.additional_properties for message in history):
            context.extend_messages(self, history)
            return
        for message in history:
            attribution = {"source_id": self.source_id, "source_type": type(self).__name__}
            message.additional_properties["_attribution"] = attribution
        context.context_messages.setdefault(self.source_id, []).extend(history)

    async def after_run(
        self, *, agent: SupportsAgentRun, session: AgentSession, context: SessionContext, state: dict[str, Any]
    ) -> None:
        """Saves what a run was given and what it answered: one write."""
        token = _saving.set((self, await self._run(context)))
        try:
            await super().after_run(agent=agent, session=session, context=context, state=state)
        finally:
            _saving.reset(token)
        if isinstance(self.window, SummaryWindow):
            await self.window.keep_small(self._store, self._keys.key(context.session_id), agent)

    # Sessions

    async def list_sessions(self, *, limit: int = 50, cursor: str | None = None) -> Page[StoredSession]:
        """This source's sessions, the newest activity first.

        Where the store also keeps other sources' threads, a page may be shorter than ``limit``; only a ``cursor`` of
        ``None`` means that it was the last.

        Raises:
            ConfigurationError: ``limit`` is less than 1, or the cursor is not one that this gave.
        """
        check_count(limit, "limit", least=1)
        found: list[StoredSession] = []
        for _ in range(MAX_LISTING_PAGES):
            page = await self._store.list_threads(self._keys.tenant, limit=limit - len(found), cursor=cursor)
            for thread in page:
                session_id = self._keys.session_id(thread.key.thread_id)
                if session_id is not None:
                    found.append(StoredSession.of(session_id, thread))
            cursor = page.cursor
            if cursor is None or len(found) == limit:
                break
        return Page(tuple(found), cursor)

    async def clear(self, session_id: str) -> int:
        """Forgets a session's messages and says how many; the session itself (title, documents) stays."""
        key = self._keys.key(session_id)
        try:
            removed = (await self._store.truncate(key, stop=0)).removed
            await self._store.delete_document(key, SUMMARY_DOCUMENT)
            return removed
        except ThreadNotFoundError:
            return 0

    async def delete(self, session_id: str) -> bool:
        """Forgets a session wholly; says whether there was one."""
        return await self._store.delete_thread(self._keys.key(session_id))

    async def aclose(self) -> None:
        """Closes the store if this provider opened it. May be called again."""
        if self._owns_store:
            await self._store.aclose()

    async def __aenter__(self) -> Self:
        if self._owns_store:
            await self._store.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # Loading and saving

    async def _load(self, context: SessionContext) -> list[Message]:
        """The history that precedes a run's input."""
        key = self._keys.key(context.session_id)
        window = await self._read(key)
        summary, page = window.summary, window.page
        history = [from_stored(stored, key) for stored in page]
        replay = find_replay(context.input_messages, history, complete=_is_complete(page))
        self._runs[context] = _Run(replay)
        return [*([summary_message(summary)] if summary else []), *history[: replay.history_before]]

    async def _read(self, key: ThreadKey) -> Window:
        if isinstance(self.window, SummaryWindow):
            return await self.window.read(self._store, key)
        if self.window is None:
            return Window(None, await self._store.read(key))
        return Window(None, await self._store.read_last(key, self.window) if self.window else MessagePage((), 0, 0))

    async def _run(self, context: SessionContext) -> _Run:
        """What is known of a run when it ends, also where nothing was loaded for it."""
        run = self._runs.get(context)
        if run is None:
            run = self._runs[context] = _Run(await self._replay_without_history(context))
        return run

    async def _replay_without_history(self, context: SessionContext) -> Replay:
        # load_messages is off, or the service keeps the history: only a transcript is worth a look at the store.
        inputs = context.input_messages
        if not self.store_inputs or not is_transcript(inputs):
            return Replay((), 0)
        key = self._keys.key(context.session_id)
        page = await self._store.read_last(key, 2 * len(inputs))
        return find_replay(inputs, [from_stored(stored, key) for stored in page], complete=_is_complete(page))


def _checked_store(store: object) -> Store:
    if not isinstance(store, Store):
        raise ConfigurationError(f"A history provider needs a Store or the URL of one, not {type(store).__name__}.")
    return store


def _is_complete(page: MessagePage) -> bool:
    """Whether a page holds a thread from its very beginning."""
    return not page or page[0].seq == 0


def _without(messages: Sequence[Message], left_out: Sequence[Message]) -> list[Message]:
    """The messages without the first occurrence of each of these objects (not of equal ones)."""
    waiting = [id(message) for message in left_out]
    kept: list[Message] = []
    for message in messages:
        if id(message) in waiting:
            waiting.remove(id(message))
        else:
            kept.append(message)
    return kept


def _title(messages: Sequence[Message]) -> str | None:
    for message in messages:
        if message.role == "user" and message.text.strip():
            return shorten(message.text, TITLE_CHARACTERS)
    return None
