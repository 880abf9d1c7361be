"""`Session` of the OpenAI Agents SDK on any store: one thread a session, one stored message an item."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

from agents import RunContextWrapper
from agents.items import TResponseInputItem
from agents.memory import SessionSettings

from everthread._uncopied import Uncopied
from everthread.adapters.openai_agents.items import FORMAT, from_a_complete_response, items_of
from everthread.adapters.retrying import append_with_retries, retried
from everthread.adapters.shared_stores import shared_stores
from everthread.contract import Store, read_all
from everthread.errors import ConfigurationError, ConflictError, StoreUnavailableError
from everthread.messages import codec
from everthread.messages.tool_links import turn_links
from everthread.model import Message, NewMessage, Retention, ThreadKey, check_count

T = TypeVar("T")
Context = RunContextWrapper[Any]

_MOST_ATTEMPTS = 50
_TAIL = 32
_MOST_IN_ONE_READ = 5000


class Snapshot(NamedTuple):
    """The items of a session for the SDK's compaction, in the form of its private class of this purpose."""

    items: list[TResponseInputItem]
    complete: bool
    replace_suffix: Callable[[int, list[TResponseInputItem]], Awaitable[bool]]


class EverthreadSession(Uncopied):
    """A conversation of the OpenAI Agents SDK that outlives the process: ``Runner.run(agent, text, session=session)``.

        session = EverthreadSession("trip-to-rome", "redis://localhost:6379/0")

    Items are stored unchanged, those of one call together. Two processes may use one session at the same time: no item
    is lost or stored twice. A session of this class may be the ``underlying_session`` of
    ``OpenAIResponsesCompactionSession``. All methods accept the run's context as ``wrapper``.

    Args:
        session_id: The ID of the thread.
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop. Sessions with the same URL share connections, which are closed when the loop ends or
            when the last of these sessions is closed or collected.
        tenant: The owner of the thread, or a function that returns it from the run's context. A function needs the
            context: give ``wrapper`` when you call a method outside of a run.
        session_settings: The framework's settings: ``SessionSettings(limit=…)`` or a dictionary.
        retention: Applies to the appends of this session instead of the retention of the thread and of the store.

    Attributes:
        session_id: The ID of the thread.
        session_settings: The framework's settings.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option, or another object as the store.
        InvalidIdentifierError: The session ID or the tenant is empty, too long or not text.
    """

    def __init__(
        self,
        session_id: str,
        store: Store | str,
        *,
        tenant: str | Callable[[Context], str] = "",
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        retention: Retention | None = None,
    ) -> None:
        if not isinstance(cast(object, store), (Store, str)):
            raise ConfigurationError(f"EverthreadSession needs a Store or the URL of one, not {type(store).__name__}.")
        self._key = ThreadKey(session_id, "" if callable(tenant) else tenant)
        self._tenant_of = tenant if callable(tenant) else None
        self._given = store if isinstance(store, Store) else None
        self._shared = shared_stores(store, ()) if isinstance(store, str) else None
        self._retention = retention
        self.session_id = session_id
        self.session_settings: SessionSettings | None = _settings(session_settings)

    @property
    def store(self) -> Store:
        """The store behind this session. With a URL, that of the running event loop."""
        if self._given is not None:
            return self._given
        assert self._shared is not None
        return self._shared.here(self)

    def __repr__(self) -> str:
        return f"<EverthreadSession of {self._key}>"

    def key(self, wrapper: Context | None = None) -> ThreadKey:
        """Return the key of the thread.

        Raises:
            ConfigurationError: The tenant depends on the run's context, and there is none.
        """
        if self._tenant_of is None:
            return self._key
        if wrapper is None:
            raise ConfigurationError(
                f"The tenant of session {self.session_id!r} depends on the run's context: give wrapper=, "
                "a RunContextWrapper."
            )
        return ThreadKey(self.session_id, self._tenant_of(wrapper))

    async def get_items(self, limit: int | None = None, *, wrapper: Context | None = None) -> list[TResponseInputItem]:
        """Return the newest ``limit`` items, oldest first; without a limit those that the settings allow, or all.

        The limit of the settings is a window for a model: it begins no later than allowed, but not inside a response,
        so it can have fewer items. Another limit returns exactly the newest items.

        Raises:
            CorruptRecordError: A record cannot be decoded.
            UnsupportedError: A message of another format has only contents of unknown types.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key, allowed = self.key(wrapper), self.session_settings.limit if self.session_settings else None
        limit = allowed if limit is None else limit
        check_count(limit, "limit", optional=True)
        messages = await self._newest(key, limit)
        items = items_of(messages, key)
        first = 0 if limit is None else max(len(items) - limit, 0)
        is_for_model, was_cut = limit == allowed, first > 0 or bool(messages and messages[0].seq > 0)
        newest = from_a_complete_response(items, first) if is_for_model and was_cut else items[first:]
        return cast(list[TResponseInputItem], newest)

    async def add_items(self, items: list[TResponseInputItem], *, wrapper: Context | None = None) -> None:
        """Store items after the others. Readers see all of them or none.

        Raises:
            InvalidMessageError: JSON would alter an item. The message gives the place.
            LimitExceededError: The items are larger than the store takes in one append.
            OutcomeUnknownError: The items may be stored, also when tried again.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        if not items:
            return
        key, values = self.key(wrapper), cast(Sequence[Mapping[str, object]], items)
        messages = _messages(values)
        title = codec.title_from(codec.view_of(value, FORMAT) for value in values)
        await append_with_retries(self.store, key, messages, retention=self._retention, default_title=title)

    async def pop_item(self, *, wrapper: Context | None = None) -> TResponseInputItem | None:
        """Delete and return the newest item; ``None`` if there is none. No other item is deleted.

        The calls before a deleted tool output are stored again, with new positions. If the process is killed between
        these two steps, the calls are lost too. A cancelled call completes both.

        Raises:
            OutcomeUnknownError: The item may be deleted.
            StoreUnavailableError: The store did not answer.
        """
        return await _completed(self._pop(self.key(wrapper)))

    async def clear_session(self, *, wrapper: Context | None = None) -> None:
        """Delete all items. The thread stays, with its title, metadata and documents.

        Raises:
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key = self.key(wrapper)
        page = await retried(lambda: self.store.read_last(key, 1))
        if page:
            await retried(lambda: self.store.truncate(key, start=page.next_seq))

    async def aclose(self) -> None:
        """Close connections that this session opened, if no other session uses them. The next use connects again."""
        if self._shared is not None:
            await self._shared.release(self)

    # The SDK's compaction looks for these two, as its own sessions have them. Without them it clears the session and
    # then adds the items: https://github.com/openai/openai-agents-python/blob/main/src/agents/memory

    async def _get_compaction_snapshot(self, limit: int) -> Snapshot | None:
        """Return the items if there are at most ``limit``, with the function that replaces those from an index on."""
        key = self.key()
        page = await retried(lambda: self.store.read_last(key, limit))
        found = [items_of([message], key) for message in page]
        if not page or page[0].seq > page.head_seq or any(len(items) != 1 for items in found):
            return None

        async def replace(start: int, output: list[TResponseInputItem]) -> bool:
            new = _messages(cast(Sequence[Mapping[str, object]], output))
            return await _completed(self._replace(key, [*map(_again, page[:start]), *new], page.next_seq))

        return Snapshot([cast(TResponseInputItem, item) for (item,) in found], True, replace)

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace all items in one step; return whether that was possible."""
        key, new = self.key(), _messages(cast(Sequence[Mapping[str, object]], items))
        page = await retried(lambda: self.store.read_last(key, 0))
        return await _completed(self._replace(key, new, page.next_seq))

    async def _replace(self, key: ThreadKey, messages: Sequence[NewMessage], next_seq: int) -> bool:
        """Append messages, and trim all others in the same step, unless the thread has another next position."""
        thread = await retried(lambda: self.store.get_thread(key))
        # An output without its call is linked to the message before it, and would be trimmed too.
        if thread is None or not messages or turn_links(messages).early_results:
            return False
        left = self._retention.expire_after if self._retention else None
        if self._retention is None and thread.expires_ms is not None:
            left = timedelta(milliseconds=thread.expires_ms - thread.updated_ms)
        only_these = Retention(max_messages=len(messages), expire_after=left)
        try:
            await append_with_retries(self.store, key, messages, expected_seq=next_seq, retention=only_these)
        except ConflictError:
            return False
        return True

    async def _newest(self, key: ThreadKey, limit: int | None) -> Sequence[Message]:
        if limit is None or limit >= _MOST_IN_ONE_READ:
            return [message async for message in read_all(self.store, key)]
        # One more shows whether the window begins inside a response.
        return (await retried(lambda: self.store.read_last(key, limit + 1))).messages

    async def _pop(self, key: ThreadKey) -> TResponseInputItem | None:
        for _ in range(_MOST_ATTEMPTS):
            tail, next_seq = await self._deleted_together(key)
            if not tail:
                return None
            items = items_of(tail[-1:], key)
            try:
                # Not tried again: another writer may have appended or deleted since.
                truncated = await self.store.truncate(key, stop=tail[0].seq, expected_seq=next_seq)
            except ConflictError:
                continue
            if not truncated.removed:
                continue
            if restored := [*map(_again, tail[:-1]), *_messages(items[:-1])]:
                await append_with_retries(self.store, key, restored, retention=self._retention)
            if items:
                return cast(TResponseInputItem, items[-1])
        raise StoreUnavailableError(f"Too many concurrent writers of {key}. Try again.")

    async def _deleted_together(self, key: ThreadKey) -> tuple[list[Message], int]:
        """Return the messages that the store deletes with the newest one, which is the last, and the next position."""
        count = _TAIL
        while True:
            page = await retried(lambda size=count: self.store.read_last(key, size))
            waiting: set[str] = set()
            for at in range(len(page) - 1, -1, -1):
                seen = codec.view(page[at], key)
                waiting |= {result.id for result in seen.results}
                waiting -= {call.id for call in seen.calls}
                if not waiting:
                    return list(page.messages[at:]), page.next_seq
            if len(page) < count:
                # A result without its call is linked to the message before it.
                return list(page), page.next_seq
            count *= 4


def _messages(items: Sequence[Mapping[str, object]]) -> list[NewMessage]:
    return [codec.new_message(item, format=FORMAT) for item in items]


def _again(message: Message) -> NewMessage:
    """Return a stored message to be stored once more."""
    return codec.new_message(message.payload, format=message.format, created_at=message.created_at)


def _settings(given: SessionSettings | Mapping[str, Any] | None) -> SessionSettings:
    return given if isinstance(given, SessionSettings) else SessionSettings(**(given or {}))


async def _completed(work: Awaitable[T]) -> T:
    """Await work that a cancelled caller must not leave half done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
        raise
