"""The history provider of Agent Framework 1.x over any store."""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from everthread._extras import missing_extra
from everthread.adapters.agent_framework.approvals import (
    answerable,
    restore_approvals,
    resumed,
    without_ignored_approvals,
)
from everthread.adapters.agent_framework.compaction import (
    Compaction,
    is_compacted,
    read_compaction,
)
from everthread.adapters.agent_framework.comparing import compare
from everthread.adapters.agent_framework.messages import MAKERS, from_stored, to_new_message
from everthread.adapters.agent_framework.outages import TIMEOUT, OnOutage, Outages
from everthread.adapters.agent_framework.replays import Replay, find_replay, is_transcript, newest_answer
from everthread.adapters.agent_framework.runs import Run, history_before, is_kept_by_a_service, without_stored
from everthread.adapters.agent_framework.sequence import ready_history
from everthread.adapters.agent_framework.sessions import (
    DEFAULT_SOURCE,
    SessionKeys,
    StoredSessions,
)
from everthread.adapters.agent_framework.stored_rows import readable
from everthread.adapters.agent_framework.unfinished import POLICIES, OnIncomplete, UnfinishedRun, marked
from everthread.adapters.paused_collector import paused_collector
from everthread.adapters.storable import append_messages
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store
from everthread.errors import ConfigurationError
from everthread.model import Retention, check_count
from everthread.readable import read_around

try:
    from agent_framework import AgentSession, ChatMiddlewareLayer, HistoryProvider, Message, SessionContext

    from everthread.adapters.agent_framework.search_tool import search_tool as _search_tool
    from everthread.adapters.agent_framework.summary_window import SummaryWindow
    from everthread.adapters.agent_framework.windows import Loaded, WindowReader
except ImportError as error:
    raise missing_extra("agent-framework", error) from error

try:
    # The base's before_run applies it: it also knows approvals of calls that a service carries out.
    from agent_framework._sessions import (
        _filter_approval_control_messages as without_settled_approvals,  # pyright: ignore[reportPrivateUsage]
    )
except ImportError:

    def without_settled_approvals(messages: Sequence[Message]) -> list[Message]:
        """Return all messages: early releases of 1.x need only the work of `ready_history`."""
        return list(messages)


if TYPE_CHECKING:
    from agent_framework import SupportsAgentRun


@dataclass(eq=False)
class _Loading:
    """A run that loads its history; ``loaded`` is set by `EverthreadHistoryProvider.get_messages`."""

    provider: EverthreadHistoryProvider
    session_id: str | None
    inputs: Sequence[Message]
    compacts: bool
    loaded: Loaded | None = None
    compaction: Compaction | None = None


@dataclass(eq=False)
class _Saving:
    """A run that saves its turn; ``count`` is the number of saves so far."""

    provider: EverthreadHistoryProvider
    append_id: str
    count: int = 0

    def next_id(self) -> str:
        """Return the id of the next save: an override may save a run in several parts."""
        self.count += 1
        return self.append_id if self.count == 1 else f"{self.append_id}-{self.count}"


_loading: ContextVar[_Loading | None] = ContextVar("loading", default=None)
_saving: ContextVar[_Saving | None] = ContextVar("saving", default=None)


class EverthreadHistoryProvider(StoredSessions, HistoryProvider):
    """A history of an agent that outlives the process, on any store.

        agent = Agent(client, context_providers=[EverthreadHistoryProvider("sqlite:///threads.db")])
        await agent.run("I am Ana", session=AgentSession(session_id="trip"))

    A run costs one read (of at most ``window`` messages) and one atomic write of its input and answer. A save with an
    unknown outcome is tried again and takes effect once.

    The part of an input that repeats stored messages is not stored again (callers may send the whole transcript with
    each run): see `replays`. The model gets the stored messages, oldest first, without those that a model service
    would refuse, such as a tool result without its call: see `sequence`. They stay stored.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        source_id: The name of this history: several providers on one session have messages of their own.
        tenant: The owner of the sessions.
        retention: What the store may delete, applied with each save.
        window: The model gets at most this number of the newest messages, or a summary and the recent turns
            (`SummaryWindow`), behind the system message at the thread's head if one is stored; ``None``: all messages.
        load_messages: Give the history to the model.
        skip_excluded: Leave out messages that a `CompactionProvider` of an earlier run has excluded, or with a true
            ``additional_properties["_excluded"]``. Always on if the agent has a `CompactionProvider` with
            an ``after_strategy`` for this source.
        store_inputs: Store the input of a run.
        store_outputs: Store the answer of a run.
        store_context_messages: Store messages that other context providers add to a run.
        store_context_from: If given, only the messages of these sources.
        on_incomplete: The messages of a cancelled or failed run that are stored: ``close`` answers open tool calls with
            an unknown outcome, ``keep`` does not, ``drop`` stores the input only. See `unfinished`. ``None`` stores
            nothing, for a caller that sends the same input again.
        on_outage: If the store does not answer: ``raise`` fails the run, ``answer`` logs an error and lets the model
            answer without the history, and the turn is not stored.
        timeout: Seconds that a run waits for its history, and again for its turn to be stored; ``None``: no bound.
        search_tool: Give the model a tool, ``search_history``, that searches all stored messages of the session.

    Raises:
        ConfigurationError: A negative window or timeout, an unknown policy; a URL of an unknown scheme or with a wrong
            option.
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
        skip_excluded: bool = False,
        store_inputs: bool = True,
        store_outputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
        on_incomplete: OnIncomplete | None = "close",
        on_outage: OnOutage = "raise",
        timeout: float | None = TIMEOUT,
        search_tool: bool = False,
    ) -> None:
        HistoryProvider.__init__(
            self,
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
        if on_incomplete is not None and on_incomplete not in POLICIES:
            raise ConfigurationError(f"on_incomplete is one of {', '.join(POLICIES)}, or None.")
        self.on_incomplete: OnIncomplete | None = on_incomplete
        self.window = window
        self.skip_excluded = skip_excluded
        self._reader = WindowReader(window)
        self.retention = retention
        self._outages = Outages(on_outage, timeout)
        UsesStore.__init__(self, store)
        self._keys = SessionKeys(source_id, tenant)
        self._tools = [_search_tool(self._store, self._keys)] if search_tool else []
        self._runs: WeakKeyDictionary[SessionContext, Run] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.source_id!r} on {self._store.location}>"

    # The framework's interface

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Message]:
        """Return all stored messages of a session, oldest first.

        While a run of the session loads its history: only the window, and the messages in front of it.
        Override it to change the history that a run's model gets.

        Leaves out a record that is not a message, and logs its position as a warning.

        Raises:
            InvalidIdentifierError: The session has no id.
        """
        key = self._keys.key(session_id)
        loading = _loading.get()
        if loading is None or loading.provider is not self or loading.session_id != session_id:
            return readable(await read_around(self._store, key), key, from_stored)[1]
        loading.loaded = await self._reader.read(self._store, key, loading.inputs)
        if not loading.compacts:
            return [*loading.loaded.lead, *loading.loaded.asked, *loading.loaded.messages]
        loading.compaction = await read_compaction(self._store, key, loading.loaded)
        return [*loading.loaded.lead, *loading.loaded.asked, *loading.compaction.included]

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,
        append_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Append these messages to a session as one turn.

        A run calls it with the new part of its input and with its answer. Override it to change the stored messages.
        In a run, a text that gives the reason replaces each content that cannot be stored, and a warning is logged.
        A run that is more than one append takes is stored in several.

        Args:
            session_id: The session; created if there is none.
            messages: The messages to append; nothing happens if there are none.
            state: Not used.
            append_id: Makes the call safe to repeat: a turn is saved once under its id, also by concurrent callers.
            kwargs: Not used.

        Raises:
            InvalidIdentifierError: The session has no id.
            InvalidMessageError: Outside a run: a message cannot be stored so that it comes back equal; nothing was
                written.
            LimitExceededError: Outside a run: the messages are too large for the store; nothing was written.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key = self._keys.key(session_id)
        if not messages:
            return
        saving = _saving.get()
        in_a_run = saving is not None and saving.provider is self
        await append_messages(
            self._store,
            key,
            messages,
            MAKERS,
            append_id=append_id or (saving.next_id() if saving is not None and in_a_run else None),
            retention=self.retention,
            in_a_run=in_a_run,
        )

    async def before_run(
        self, *, agent: SupportsAgentRun, session: AgentSession, context: SessionContext, state: dict[str, Any]
    ) -> None:
        """Add the history to a run's context: one read.

        Adds nothing if a service keeps the conversation (``service_session_id``): it has the messages.

        Raises:
            InvalidMessageError: An input cannot be stored. The model is not asked.
            LimitExceededError: The input is larger than the store takes. The model is not asked.
            StoreUnavailableError: The store did not answer. The model is not asked.
        """
        if self._tools:
            context.extend_tools(self.source_id, self._tools)
        # The state of a run whose history cannot be loaded.
        run, history = Run(Replay((), 0), context.input_messages), list[Message]()
        async with self._outages.bounded("Loading", self._keys.key(context.session_id)):
            run, history = await self._load(context, session, agent, state)
        with paused_collector(len(history)):
            self._hand_over(context, history, answerable(session, context.input_messages))
        is_per_call = getattr(agent, "require_per_service_call_history_persistence", False)
        is_followed = not is_per_call and isinstance(getattr(agent, "client", None), ChatMiddlewareLayer)
        if self.on_incomplete is not None and is_followed:
            # Without the context: the chat client holds the middlewares of its last run.
            store = partial(self._save_unfinished, run, context.session_id, state)
            run.unfinished = UnfinishedRun(self.on_incomplete, store)
            context.extend_middleware(self.source_id, run.unfinished.middleware)

    async def _load(
        self, context: SessionContext, session: AgentSession, agent: SupportsAgentRun, state: dict[str, Any]
    ) -> tuple[Run, list[Message]]:
        if is_kept_by_a_service(context, agent):
            run = await self._run(context)
            history: list[Message] = []
        else:
            run, history = await self._begin(context, session, agent, state)
        # Tools that have returned results have run, so their results are stored without this check.
        given = [message for message in run.new_inputs if message.role != "tool"] if self.store_inputs else []
        if given:
            turn = [to_new_message(message) for message in given]
            await self._store.check_append(self._keys.key(context.session_id), turn)
        return run, history

    async def after_run(
        self, *, agent: SupportsAgentRun, session: AgentSession, context: SessionContext, state: dict[str, Any]
    ) -> None:
        """Save the input and the answer of a run: one write.

        Raises:
            StoreUnavailableError: The store did not answer. The turn may be stored; save it again with the same ids.
        """
        async with self._outages.bounded("Saving", self._keys.key(context.session_id)):
            await self._save(agent, session, context, state)
        if isinstance(self.window, SummaryWindow):
            await self.window.keep_small(self._store, self._keys.key(context.session_id), agent)

    async def _save(
        self, agent: SupportsAgentRun, session: AgentSession, context: SessionContext, state: dict[str, Any]
    ) -> None:
        run = await self._run(context)
        outputs = context.response.messages if context.response else []
        unstored = copy.copy(context)
        unstored.input_messages = run.unstored(context.input_messages, outputs)
        if run.unfinished is not None and (stored := run.unfinished.finish()) is not None:
            # A middleware has repeated a call to the model that had failed.
            unstored.input_messages = []
            unstored._response = without_stored(context.response, stored)  # pyright: ignore[reportPrivateUsage]
        state.pop("messages", None)
        if run.compaction is not None:
            await run.compaction.keep(self._store, self._keys.key(context.session_id))
        if not self.store_context_messages and run.is_stored(outputs):
            return
        token = _saving.set(_Saving(self, run.append_id(outputs)))
        try:
            await super().after_run(agent=agent, session=session, context=unstored, state=state)
        finally:
            _saving.reset(token)

    async def _save_unfinished(
        self, run: Run, session_id: str | None, state: dict[str, Any], outputs: Sequence[Message], how: str
    ) -> None:
        given = run.unstored(run.inputs, outputs) if self.store_inputs else []
        messages = [*given, *(outputs if self.store_outputs else ())]
        if not messages:
            return
        token = _saving.set(_Saving(self, run.append_id(outputs)))
        try:
            async with self._outages.bounded("Saving", self._keys.key(session_id)):
                await self.save_messages(session_id, marked(messages, how), state=state)
        finally:
            _saving.reset(token)

    # Sessions

    async def resume(
        self, session_id: str, messages: Sequence[Message], *, agent: SupportsAgentRun | None = None
    ) -> AgentSession:
        """Return the session of an id for a run in which these messages grant or refuse approvals.

        Needed only with ``require_per_service_call_history_persistence=True``, where the framework looks at approvals
        before it loads the history. Other runs need no more than ``AgentSession(session_id=…)``.

        Args:
            session_id: The session.
            messages: All approvals and refusals of the answer in which the model made the calls.
            agent: The agent of the run. Its tools decide which calls of that answer need no approval.

        Raises:
            ConfigurationError: The answer made other calls, and without the agent it is unknown which need an approval.
            InvalidIdentifierError: The id cannot name a session.
        """
        loaded = await self._reader.read(self._store, self._keys.key(session_id), messages)
        return resumed(session_id, loaded.with_turns, messages, agent)

    # Loading and saving

    async def _begin(
        self, context: SessionContext, session: AgentSession, agent: SupportsAgentRun, state: dict[str, Any]
    ) -> tuple[Run, list[Message]]:
        """Load the history that precedes a run's input."""
        compacts, inputs = self._is_compacted(agent), context.input_messages
        loading = _Loading(self, context.session_id, inputs, compacts or self.skip_excluded)
        token = _loading.set(loading)
        try:
            history = await self.get_messages(context.session_id, state=state)
        finally:
            _loading.reset(token)
        # An override of `get_messages` may return other messages than the stored ones, or may not read these.
        loaded = loading.loaded or Loaded(list(history), (), (), [], complete=False)
        if loading.loaded is None and not is_transcript(inputs):
            replay, compared = find_replay(inputs, loaded.messages, complete=False), loaded.messages
        else:
            replay, compared = await compare(self._store, self._keys.key(context.session_id), inputs, loading.loaded)
        run = self._runs[context] = Run(replay, inputs)
        if not run.new_inputs and inputs and inputs[-1].role == "user":
            run.answer = newest_answer(compared)
        restore_approvals(session, loaded.with_turns, inputs)
        lead, rest = loaded.split(history, inputs)
        changeable = len(loaded.messages) if loading.loaded is not None else len(compared)
        if compacts and loading.compaction is not None:
            run.compaction = loading.compaction
            state["messages"] = run.compaction.listed
        return run, [*lead, *history_before(rest, compared, replay, changeable=0 if compacts else changeable)]

    def _is_compacted(self, agent: SupportsAgentRun) -> bool:
        if not is_compacted(agent, self.source_id, self):
            return False
        if self.window is not None:
            raise ConfigurationError(
                "CompactionProvider(after_strategy=…) needs all messages, and a window loads only some: use one of the "
                "two."
            )
        return True

    def _hand_over(self, context: SessionContext, history: Sequence[Message], approved: Set[str]) -> None:
        # In place of the base's own, which copies each message first: at 200 messages that costs as much as reading.
        if approved:
            history = without_ignored_approvals(history)
        history = ready_history(history, context.input_messages, approved, without_settled_approvals)
        source_id, source_type = self.source_id, type(self).__name__
        for message in history:
            if "_attribution" in message.additional_properties:
                context.extend_messages(self, history)
                return
        for message in history:
            attribution = {"source_id": source_id, "source_type": source_type}
            message.additional_properties["_attribution"] = attribution
        context.context_messages.setdefault(self.source_id, []).extend(history)

    async def _run(self, context: SessionContext) -> Run:
        """Return the run of a context, also if nothing was loaded for it."""
        run = self._runs.get(context)
        if run is None:
            replay = await self._replay_without_history(context)
            run = self._runs[context] = Run(replay, context.input_messages)
        return run

    async def _replay_without_history(self, context: SessionContext) -> Replay:
        # load_messages is off, or the service keeps the history: only a transcript is worth a read.
        inputs = context.input_messages
        if not self.store_inputs or not is_transcript(inputs):
            return Replay((), 0)
        return (await compare(self._store, self._keys.key(context.session_id), inputs))[0]
