"""Chat message stores for Agent Framework's betas (``1.0.0b251001`` … ``1.0.0b260210``), over any engine.

    agent = ChatAgent(chat_client=…, chat_message_store_factory=lambda: RedisChatMessageStore(url, key_prefix="trips"))

The serialized state of a store names its thread and place, and holds no messages and no secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, ClassVar, Self
from uuid import uuid4

from everthread._uncopied import Uncopied
from everthread.adapters.agent_framework.stored_rows import readable
from everthread.adapters.agent_framework_beta.messages import message_codec
from everthread.adapters.agent_framework_beta.runs import for_a_run, is_saving, run_input
from everthread.adapters.agent_framework_beta.store_state import (
    State,
    checked_place,
    state_of,
)
from everthread.adapters.contents import role_name
from everthread.adapters.shared_stores import Options, shared_stores
from everthread.adapters.storable import append_messages
from everthread.contract import Store
from everthread.errors import ConfigurationError, InvalidMessageError, ThreadNotFoundError
from everthread.model import Page, Retention, Thread, ThreadKey
from everthread.opening import open_store
from everthread.readable import read_around
from everthread.urls import scheme_of, without_credentials


class EverthreadChatMessageStore(Uncopied):
    """Stores one conversation of Agent Framework's betas, in any store.

    Creating one does no I/O and needs no running loop, so a ``chat_message_store_factory`` can make it.
    It works in every event loop, also in those of several threads. Those of one loop that name the same URL share one
    connection, which the last `aclose` closes, or the end of the loop; after `aclose` a store connects again at its
    next use. A `Store` that is passed in belongs to the loop that opened it.

    Each ``add_messages`` is one atomic append. It is tried again when the store does not answer, and takes effect once.

    Args:
        store: A `Store`, which stays the caller's to close, or the URL of one.
        thread_id: The conversation to continue; a new one, ``thread_<uuid4>``, if not given.
        tenant: The owner of the conversation.
        retention: What the store may delete, applied with each append.

    Raises:
        ConfigurationError: A wrong URL or option; also a ``ValueError``.
        InvalidIdentifierError: ``thread_id`` or ``tenant`` is not valid, such as an empty thread id.
        UnsupportedError: The installed Agent Framework is not one of the betas.
    """

    url_variable: ClassVar[str] = "EVERTHREAD_STORE"
    """The environment variable that names the place of a restored store."""

    place_keyword: ClassVar[str] = "store"
    """The argument that does the same."""

    url_in_state: ClassVar[str] = "store_url"
    """The key of the place in a state."""

    def __init__(
        self,
        store: Store | str,
        thread_id: str | None = None,
        *,
        tenant: str = "",
        retention: Retention | None = None,
    ) -> None:
        self._codec = message_codec()
        self._key = ThreadKey(f"thread_{uuid4()}" if thread_id is None else thread_id, tenant)
        if retention is not None and not isinstance(retention, Retention):
            raise ConfigurationError(f"retention must be a Retention, not {type(retention).__name__}.")
        self._retention = retention
        self._place = _checked_place(store, self._options())
        self._opened = shared_stores(store, self._options()) if isinstance(store, str) else None

    def _options(self) -> Options:
        """Return the options with which the store is opened, in addition to its URL."""
        return ()

    @property
    def thread_id(self) -> str:
        """The conversation's id."""
        return self._key.thread_id

    @property
    def tenant(self) -> str:
        """The conversation's owner."""
        return self._key.tenant

    @property
    def max_messages(self) -> int | None:
        """The highest number of stored messages."""
        return None if self._retention is None else self._retention.max_messages

    @property
    def location(self) -> str:
        """The place of the conversation, for people; holds no secret."""
        place = self._place
        return place.location if isinstance(place, Store) else _location(place, self._options())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.thread_id!r} on {self.location}>"

    # Messages: the protocol of the betas

    async def add_messages(self, messages: Sequence[Any], **kwargs: Any) -> None:
        """Append messages of the framework; do nothing if there are none.

        An agent's run stores a text that gives the reason in place of each content that cannot be stored.

        Args:
            messages: ``ChatMessage`` objects (``Message`` in the last betas).
            kwargs: Not used.

        Raises:
            InvalidMessageError: Outside a run: one is not a message, or cannot be stored losslessly; nothing was
                written.
            LimitExceededError: Outside a run: they are too large for the store; nothing was written.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
            raise InvalidMessageError(f"add_messages takes a sequence of messages, not {type(messages).__name__}.")
        given = list(messages)
        if not given:
            return
        await append_messages(
            self._store(),
            self._key,
            given,
            self._codec.makers,
            append_id=uuid4().hex,
            retention=self._retention,
            in_a_run=is_saving.get(),
        )

    async def list_messages(self, **kwargs: Any) -> list[Any]:
        """Return all stored messages, oldest first, in the installed release's own classes.

        Rows of other releases, 1.x included, and messages of other formats are converted. Leaves out a record
        that is no message, and logs its position as a warning. An agent's run gets only the tool calls and results
        that model services accept.

        Raises:
            InvalidMessageError: In a run: its input cannot be stored. The model is not asked.
            LimitExceededError: In a run: its input is too large for the store. The model is not asked.
            StoreUnavailableError: The store did not answer.
        """
        store = self._store()
        # Tools that have returned results have run, so their results are stored without this check.
        given = [each for each in run_input.get() or () if role_name(each) != "tool"]
        if given:
            await store.check_append(self._key, [self._codec.encode(message) for message in given])
        page = await read_around(store, self._key)
        return for_a_run(readable(page, self._key, self._codec.decode)[1])

    async def clear(self) -> None:
        """Delete all messages; the thread stays, and positions are not reused."""
        with suppress(ThreadNotFoundError):
            await self._store().truncate(self._key, stop=0)

    async def delete(self) -> bool:
        """Delete the conversation and its documents; return whether there was one."""
        return await self._store().delete_thread(self._key)

    async def list_threads(self, *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        """Return the tenant's conversations, the newest activity first."""
        return await self._store().list_threads(self.tenant, limit=limit, cursor=cursor)

    def for_thread(self, thread_id: str | None = None) -> Self:
        """Return a store for another conversation in the same place; a new one if no id is given."""
        return type(self)(self._place, thread_id, tenant=self.tenant, retention=self._retention)

    # State: enough to reconnect

    async def serialize(self, *, include_credentials: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Return the state in the form that the framework stores: ``{"messages": [], "store_metadata": {…}}``."""
        state = await self.serialize_state(include_credentials=include_credentials, **kwargs)
        return {"messages": [], "store_metadata": state}

    async def serialize_state(self, *, include_credentials: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON values from which `deserialize` continues in another process.

        Args:
            include_credentials: Write the URL with its password. A reader of the state can then read the store.
            kwargs: Not used.

        Raises:
            ConfigurationError: It is not clear which part of the URL is the password.
        """
        retention = self._retention or Retention()
        expire = retention.expire_after
        return {
            "thread_id": self.thread_id,
            "tenant": self.tenant,
            "store_url": self._stated_url(include_credentials=include_credentials),
            "max_messages": retention.max_messages,
            "expire_after": None if expire is None else expire.total_seconds(),
        }

    def _stated_url(self, *, include_credentials: bool) -> str | None:
        if isinstance(self._place, Store):
            return None
        return self._place if include_credentials else without_credentials(self._place)

    @classmethod
    async def deserialize(
        cls,
        serialized_store_state: Any,
        *,
        store: Store | str | None = None,
        tenant: str | None = None,
        **kwargs: Any,
    ) -> EverthreadChatMessageStore:
        """Return the store that `serialize` or `serialize_state` described.

        Args:
            serialized_store_state: Their result. On its own it opens Redis servers only, because anybody may have
                written it.
            store: The place of the conversation; otherwise ``EVERTHREAD_STORE`` in the environment names it, or the
                state does (without credentials).
            tenant: The owner of the conversation. Pass it if tenants are kept apart: otherwise the state names it.
            kwargs: Not used.

        Raises:
            ConfigurationError: The state is not valid or of another tenant, or neither it nor the caller names a place
                that may be opened.
        """
        state = state_of(serialized_store_state)
        place = store or os.environ.get(cls.url_variable) or cls._place_in(state)
        return cls(place, state.thread_id, tenant=state.tenant_within(tenant), retention=state.retention)

    @classmethod
    def _place_in(cls, state: State) -> str:
        url: str | None = getattr(state, cls.url_in_state)
        if not url:
            raise ConfigurationError(
                f"The state does not name the place of the conversation: pass {cls.place_keyword}= or set "
                f"{cls.url_variable}."
            )
        return checked_place(url, keyword=cls.place_keyword, variable=cls.url_variable)

    async def update_from_state(self, serialized_store_state: Any, **kwargs: Any) -> None:
        """Continue the conversation that a state names, in this store's own place, with its own retention.

        Args:
            serialized_store_state: The result of `serialize` or `serialize_state`; ``None`` or empty changes nothing.
            kwargs: ``store=`` (``redis_url=`` for Redis) moves this to another place, ``tenant=`` (``key_prefix=``) to
                another tenant; others are not used.

        Raises:
            ConfigurationError: The state is not valid, or names another place than this store, the caller and the
                environment, or another tenant (``key_prefix``) than this store and the caller; nothing has changed.
        """
        held = getattr(serialized_store_state, "messages", None)
        if held:
            # The first betas pass the state of their own in-memory store as an object with its messages.
            await self.add_messages(held)
        elif serialized_store_state:
            state = state_of(serialized_store_state)
            _ = state.retention  # Checked, but not followed: it could delete messages.
            if not kwargs.get(self.place_keyword):
                self._refuse_another_place(state)
            other = self._restored(state, kwargs)
            if (self._place, self._options()) != (other._place, other._options()):
                await self.aclose()
            self.__dict__.update(other.__dict__)

    def _refuse_another_place(self, state: State) -> None:
        url: str | None = getattr(state, self.url_in_state)
        meant = os.environ.get(self.url_variable)
        if url and not self._is_here(url) and not (meant and self._is_here(meant)):
            raise ConfigurationError(
                f"The state names another place ({scheme_of(url)}:) than {self.location}, where this store is. Pass "
                f"{self.place_keyword}= or set {self.url_variable} to name the place of the conversation."
            )

    def _is_here(self, url: str) -> bool:
        """Return whether a URL names the place of this store, with any user and password."""
        place = self._place
        here = place.location if isinstance(place, Store) else _location(place, ())
        # Only the own engine is asked: others may not be installed, and a state is no reason to load them.
        return here.partition(":")[0] == scheme_of(url) and _location(url, ()) == here

    def _restored(self, state: State, given: Mapping[str, Any]) -> EverthreadChatMessageStore:
        place, tenant = given.get("store") or self._place, given.get("tenant")
        tenant = state.tenant_within(self.tenant if tenant is None else tenant)
        return type(self)(place, state.thread_id, tenant=tenant, retention=self._retention)

    async def deserialize_state(self, serialized_store_state: Any, **kwargs: Any) -> None:
        """Do the same as `update_from_state`, under the name that the first betas gave it."""
        await self.update_from_state(serialized_store_state, **kwargs)

    # Closing

    async def aclose(self) -> None:
        """Release the connections in every event loop; the last message store that uses one closes it.

        A `Store` that was passed in stays open.
        """
        if self._opened is not None:
            await self._opened.release(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _store(self) -> Store:
        if self._opened is not None:
            return self._opened.here(self)
        assert isinstance(self._place, Store)
        return self._place


def _checked_place(store: object, options: Options) -> Store | str:
    if isinstance(store, Store):
        return store
    if not isinstance(store, str):
        raise ConfigurationError(f"A message store needs a Store or the URL of one, not {type(store).__name__}.")
    _location(store, options)
    return store


@lru_cache(maxsize=32)
def _location(url: str, options: Options) -> str:
    # Opens nothing, but raises for a wrong URL where the caller passes it.
    return open_store(url, **dict(options)).location
