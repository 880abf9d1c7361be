"""Chat message stores for Agent Framework's betas (``1.0.0b251001`` … ``1.0.0b260210``), over any engine.

    agent = ChatAgent(chat_client=…, chat_message_store_factory=lambda: RedisChatMessageStore(url, key_prefix="trips"))

What a store serializes names its thread and place and holds no messages and no secret; `restore_thread`
(in `beta_threads`) goes on with a serialized ``AgentThread`` in another process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from types import TracebackType
from typing import Any, ClassVar, Self
from uuid import uuid4

from everthread.adapters._retrying import append_with_retries
from everthread.adapters.agent_framework.beta_messages import message_codec, role_of, text_of
from everthread.adapters.agent_framework.shared_stores import SharedStore, acquire
from everthread.codec import as_object, shorten
from everthread.contract import Store
from everthread.errors import ConfigurationError, InvalidMessageError, ThreadNotFoundError
from everthread.model import Page, Retention, Thread, ThreadKey
from everthread.opening import open_store
from everthread.settings import scheme_of, without_credentials

TITLE_CHARACTERS = 80

Options = tuple[tuple[str, Any], ...]


class EverthreadChatMessageStore:
    """One conversation of Agent Framework's betas, kept in any store.

    Creating one does no I/O and needs no running loop, so it can be made in a ``chat_message_store_factory``.
    Those of one event loop that name the same URL share one connection, which the last `aclose` closes; after
    `aclose` a store connects again at its next use.

    Each ``add_messages`` is one atomic append. It is tried again when the store does not answer, and takes effect once.

    Args:
        store: A `Store`, which stays the caller's to close, or the URL of one.
        thread_id: The conversation to go on with; a new one, ``thread_<uuid4>``, if not given.
        tenant: The owner of the conversation.
        retention: What may be forgotten, applied with each append.

    Raises:
        ConfigurationError: A wrong URL or option; also a ``ValueError``.
        InvalidIdentifierError: ``thread_id`` or ``tenant`` cannot name anything, such as an empty thread id.
        UnsupportedError: The installed Agent Framework is not one of the betas.
    """

    url_variable: ClassVar[str] = "EVERTHREAD_STORE"
    """The environment variable that names the place of a restored store."""

    def __init__(
        self,
        store: Store | str,
        thread_id: str | None = None,
        *,
        tenant: str = "",
        retention: Retention | None = None,
    ) -> None:
        from everthread.adapters.agent_framework.beta_threads import keep_state_of_stores

        keep_state_of_stores()
        self._codec = message_codec()
        self._key = ThreadKey(f"thread_{uuid4()}" if thread_id is None else thread_id, tenant)
        if retention is not None and not isinstance(retention, Retention):
            raise ConfigurationError(f"retention must be a Retention, not {type(retention).__name__}.")
        self._retention = retention
        self._place = _checked_place(store, self._options())
        self._shared: SharedStore | None = None

    def _options(self) -> Options:
        """What the store is opened with beside its URL."""
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
        """How many messages are kept at most."""
        return None if self._retention is None else self._retention.max_messages

    @property
    def location(self) -> str:
        """Where the conversation is kept, for people; holds no secret."""
        place = self._place
        return place.location if isinstance(place, Store) else _location(place, self._options())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.thread_id!r} on {self.location}>"

    # Messages: the protocol of the betas

    async def add_messages(self, messages: Sequence[Any], **kwargs: Any) -> None:
        """Appends messages of the framework; none are none.

        Args:
            messages: ``ChatMessage`` objects (``Message`` in the last betas).
            kwargs: Taken for the protocol's sake.

        Raises:
            InvalidMessageError: One is not a message, or cannot be stored losslessly; nothing was written.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
            raise InvalidMessageError(f"add_messages takes a sequence of messages, not {type(messages).__name__}.")
        given = list(messages)
        if not given:
            return
        encoded = [self._codec.encode(message) for message in given]
        await append_with_retries(
            self._store(), self._key, encoded, retention=self._retention, default_title=_title(given)
        )

    async def list_messages(self, **kwargs: Any) -> list[Any]:
        """All messages that are kept, oldest first, in the installed release's own classes.

        Rows that another release wrote, 1.x included, are converted.

        Raises:
            CorruptRecordError: A record is not a message of Agent Framework; names its position.
            StoreUnavailableError: The store did not answer.
        """
        page = await self._store().read(self._key)
        return [self._codec.decode(stored, self._key) for stored in page]

    async def clear(self) -> None:
        """Forgets all messages; the thread stays, and positions are not given again."""
        try:
            await self._store().truncate(self._key, stop=0)
        except ThreadNotFoundError:
            return

    async def delete(self) -> bool:
        """Forgets the conversation with all that belongs to it; says whether there was one."""
        return await self._store().delete_thread(self._key)

    async def list_threads(self, *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        """The saved conversations beside this one, the newest activity first."""
        return await self._store().list_threads(self.tenant, limit=limit, cursor=cursor)

    def for_thread(self, thread_id: str | None = None) -> Self:
        """A store like this one for another conversation in the same place; a new one if no id is given."""
        return type(self)(self._place, thread_id, tenant=self.tenant, retention=self._retention)

    # State: enough to reconnect

    async def serialize(self, *, include_credentials: bool = False, **kwargs: Any) -> dict[str, Any]:
        """The state in the form that the framework stores: ``{"messages": [], "store_metadata": {…}}``."""
        state = await self.serialize_state(include_credentials=include_credentials, **kwargs)
        return {"messages": [], "store_metadata": state}

    async def serialize_state(self, *, include_credentials: bool = False, **kwargs: Any) -> dict[str, Any]:
        """What is needed to go on elsewhere, as JSON values.

        Args:
            include_credentials: Write the URL with its password. Whoever reads the state can then read the store.
            kwargs: Taken for the protocol's sake.

        Raises:
            ConfigurationError: Which part of the URL is the password cannot be told.
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
        cls, serialized_store_state: Any, *, store: Store | str | None = None, **kwargs: Any
    ) -> EverthreadChatMessageStore:
        """The store that `serialize` or `serialize_state` described.

        Args:
            serialized_store_state: What they returned.
            store: Where the conversation is; otherwise ``EVERTHREAD_STORE`` in the environment says it, or the
                state does (without credentials).
            kwargs: Taken for the protocol's sake.

        Raises:
            ConfigurationError: The state is not one of these, or nothing says where the conversation is.
        """
        state = state_of(serialized_store_state)
        place = store or os.environ.get(cls.url_variable) or _text(state, "store_url")
        if not place:
            raise ConfigurationError("The state does not say where the conversation is kept: give store=.")
        return cls(place, _thread_id(state), tenant=_text(state, "tenant") or "", retention=_retention(state))

    async def update_from_state(self, serialized_store_state: Any, **kwargs: Any) -> None:
        """Goes on with the conversation that a state names, in this store's own place.

        Args:
            serialized_store_state: What `serialize` or `serialize_state` returned; ``None`` or empty changes nothing.
            kwargs: ``store=`` (``redis_url=`` for Redis) moves this to another place; others are taken for the
                protocol's sake.

        Raises:
            ConfigurationError: The state is not one of these; nothing has changed.
        """
        held = getattr(serialized_store_state, "messages", None)
        if held:
            # The first betas hand over the state of their own in-memory store as an object with its messages.
            await self.add_messages(held)
        elif serialized_store_state:
            await self._become(self._restored(state_of(serialized_store_state), kwargs))

    def _restored(self, state: Mapping[str, object], places: Mapping[str, Any]) -> EverthreadChatMessageStore:
        place = places.get("store") or self._place
        return type(self)(place, _thread_id(state), tenant=_text(state, "tenant") or "", retention=_retention(state))

    async def deserialize_state(self, serialized_store_state: Any, **kwargs: Any) -> None:
        """The same as `update_from_state`, under the name that the first betas gave it."""
        await self.update_from_state(serialized_store_state, **kwargs)

    async def _become(self, other: EverthreadChatMessageStore) -> None:
        if self._shared is not None and (self._place, self._options()) != (other._place, other._options()):
            await self.aclose()
        shared = self._shared
        self.__dict__.update(other.__dict__)
        self._shared = shared

    # Closing

    async def aclose(self) -> None:
        """Gives the connection up, which closes it if no other store of this event loop uses it.

        A `Store` that was handed in stays open.
        """
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _store(self) -> Store:
        place = self._place
        if isinstance(place, Store):
            return place
        # What was acquired in a loop that is gone cannot be used, nor closed, in this one.
        if self._shared is None or not self._shared.is_here():
            options = self._options()
            self._shared = acquire((place, options), lambda: open_store(place, **dict(options)))
        return self._shared.store


class RedisChatMessageStore(EverthreadChatMessageStore):
    """One conversation of Agent Framework's betas as a plain Redis list at ``{key_prefix}:{thread_id}``.

    `EverthreadChatMessageStore` says what holds for it. Threads that other programs wrote there as JSON,
    one message an element, are picked up as they are.

    Args:
        redis_url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
        thread_id: The conversation to go on with; a new one, ``thread_<uuid4>``, if not given.
        key_prefix: What the list's key begins with.
        max_messages: Keep at most so many of the newest messages; fewer where the oldest of them would be a
            tool's result without its call. 0 keeps nothing.

    Raises:
        ConfigurationError: No ``redis_url`` or a wrong one, a negative ``max_messages``, a prefix that cannot be one.
    """

    url_variable: ClassVar[str] = "REDIS_URL"

    def __init__(
        self,
        redis_url: str | None = None,
        thread_id: str | None = None,
        key_prefix: str = "chat_messages",
        max_messages: int | None = None,
    ) -> None:
        if not redis_url:
            raise ConfigurationError("redis_url is required, such as redis://localhost:6379/0.")
        if scheme_of(redis_url) not in {"redis", "rediss", "unix"}:
            raise ConfigurationError(f"redis_url is a redis://, rediss:// or unix:// URL, not {scheme_of(redis_url)}:.")
        self.key_prefix = key_prefix
        self.redis_url = redis_url
        """The URL as it was given, with its password: not for logs."""
        retention = None if max_messages is None else Retention(max_messages=max_messages)
        super().__init__(redis_url, thread_id, retention=retention)

    def _options(self) -> Options:
        return (("prefix", self.key_prefix),)

    @property
    def redis_key(self) -> str:
        """The key of the list of messages."""
        return f"{self.key_prefix}:{self.thread_id}"

    def for_thread(self, thread_id: str | None = None) -> Self:
        """A store like this one for another conversation in the same place; a new one if no id is given."""
        return type(self)(self.redis_url, thread_id, self.key_prefix, self.max_messages)

    async def serialize_state(self, *, include_credentials: bool = False, **kwargs: Any) -> dict[str, Any]:
        """What is needed to go on elsewhere: thread id, URL, prefix and limit.

        Args:
            include_credentials: Write the URL with its password. Whoever reads the state can then read the store.
            kwargs: Taken for the protocol's sake.
        """
        return {
            "thread_id": self.thread_id,
            "redis_url": self._stated_url(include_credentials=include_credentials),
            "key_prefix": self.key_prefix,
            "max_messages": self.max_messages,
        }

    @classmethod
    async def deserialize(cls, serialized_store_state: Any, **kwargs: Any) -> RedisChatMessageStore:
        """The store that `serialize` or `serialize_state` described, also where an older one kept the password.

        Args:
            serialized_store_state: What they returned.
            kwargs: ``redis_url=`` says where the conversation is; otherwise ``REDIS_URL`` in the environment does,
                or the state (without credentials). Others are taken for the protocol's sake.

        Raises:
            ConfigurationError: The state is not one of these, or nothing says where the conversation is.
        """
        state = state_of(serialized_store_state)
        url = kwargs.get("redis_url") or os.environ.get(cls.url_variable) or _text(state, "redis_url")
        if not url:
            raise ConfigurationError("The state does not say where Redis is: give redis_url= or set REDIS_URL.")
        return cls._from_state(url, state)

    def _restored(self, state: Mapping[str, object], places: Mapping[str, Any]) -> EverthreadChatMessageStore:
        return self._from_state(places.get("redis_url") or self.redis_url, state)

    @classmethod
    def _from_state(cls, url: str, state: Mapping[str, object]) -> Self:
        prefix = _text(state, "key_prefix")
        return cls(url, _thread_id(state), "chat_messages" if prefix is None else prefix, _limit(state))


def state_of(serialized: Any) -> Mapping[str, object]:
    """A store's state from what `EverthreadChatMessageStore.serialize` or ``serialize_state`` returned.

    Raises:
        ConfigurationError: It is neither.
    """
    outer = as_object(serialized)
    state = as_object(outer["store_metadata"]) if "store_metadata" in outer else outer
    if "thread_id" not in state:
        raise ConfigurationError(
            "This state does not say which thread it is of. Message stores serialize as "
            '{"messages": [], "store_metadata": {"thread_id": …}}; a thread of Agent Framework has that '
            "in chat_message_store_state only if everthread serialized it."
        )
    return state


def _thread_id(state: Mapping[str, object]) -> str:
    thread_id = _text(state, "thread_id")
    if thread_id is None:
        raise ConfigurationError("The state's thread_id is null.")
    return thread_id


def _text(state: Mapping[str, object], name: str) -> str | None:
    value = state.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"The state's {name} must be text, not {type(value).__name__}.")
    return value


def _limit(state: Mapping[str, object]) -> int | None:
    limit = state.get("max_messages")
    if limit is not None and type(limit) is not int:
        raise ConfigurationError(f"The state's max_messages must be a whole number, not {type(limit).__name__}.")
    return limit


def _retention(state: Mapping[str, object]) -> Retention | None:
    limit, seconds = _limit(state), state.get("expire_after")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise ConfigurationError("The state's expire_after must be a number of seconds.")
    if limit is None and seconds is None:
        return None
    return Retention(limit, None if seconds is None else timedelta(seconds=seconds))


def _checked_place(store: object, options: Options) -> Store | str:
    if isinstance(store, Store):
        return store
    if not isinstance(store, str):
        raise ConfigurationError(f"A message store needs a Store or the URL of one, not {type(store).__name__}.")
    _location(store, options)
    return store


@lru_cache(maxsize=32)
def _location(url: str, options: Options) -> str:
    # Opens nothing, but refuses what cannot be opened while whoever gave the URL is still near.
    return open_store(url, **dict(options)).location


def _title(messages: Sequence[Any]) -> str | None:
    for message in messages:
        if role_of(message) == "user" and (text := text_of(message)).strip():
            return shorten(text, TITLE_CHARACTERS)
    return None
