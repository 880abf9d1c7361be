"""A class with the interface of the betas' own ``RedisChatMessageStore``, over everthread's Redis engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast
from uuid import uuid4

from everthread.adapters.agent_framework_beta.chat_message_store import EverthreadChatMessageStore, Options
from everthread.adapters.agent_framework_beta.store_state import State, state_of
from everthread.adapters.contents import title_of
from everthread.adapters.retrying import append_with_retries
from everthread.adapters.shared_stores import shared_clients
from everthread.capabilities import SupportsRewrite, required_capability
from everthread.errors import ConfigurationError, ConflictError, EverthreadError, UnsupportedError
from everthread.model import Message, MessagePage, Retention, Rewrite
from everthread.urls import scheme_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEFAULT_PREFIX = "chat_messages"


class RedisChatMessageStore(EverthreadChatMessageStore):
    """Stores one conversation of Agent Framework's betas as a plain Redis list at ``{key_prefix}:{thread_id}``.

    It is an `EverthreadChatMessageStore` with the interface of ``RedisChatMessageStore`` in ``agent-framework-redis``.
    It continues lists that other programs wrote, one JSON message an element.

    Args:
        redis_url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
        thread_id: The conversation to continue; a new one, ``thread_<uuid4>``, if not given.
        key_prefix: The prefix of the list's key.
        max_messages: Keep at most this number of the newest messages; fewer if the oldest of them would be a
            tool's result without its call. 0 keeps nothing.
        messages: Written at the first use, if the thread then has no messages.
        credential_provider: One of redis-py, such as `everthread.engines.redis.EntraCredentials`; instead of a URL.
        host: The server, if there is a ``credential_provider``.
        port: Its port.
        ssl: Connect with TLS.
        username: Must be ``None``: the ``credential_provider`` gives the name.

    Raises:
        ConfigurationError: No ``redis_url`` or a wrong one, a negative ``max_messages``, a prefix that cannot be one.
    """

    url_variable: ClassVar[str] = "REDIS_URL"
    place_keyword: ClassVar[str] = "redis_url"
    url_in_state: ClassVar[str] = "redis_url"

    def __init__(
        self,
        redis_url: str | None = None,
        thread_id: str | None = None,
        key_prefix: str = DEFAULT_PREFIX,
        max_messages: int | None = None,
        messages: Sequence[Any] | None = None,
        *,
        credential_provider: Any = None,
        host: str | None = None,
        port: int = 6380,
        ssl: bool = True,
        username: str | None = None,
    ) -> None:
        url = _url(redis_url, credential_provider, host, port, username, ssl=ssl)
        self.key_prefix = key_prefix
        self.redis_url = redis_url
        """The URL that was passed, with its password: not for logs."""
        self._credential_provider = credential_provider
        retention = None if max_messages is None else Retention(max_messages=max_messages)
        super().__init__(url, thread_id, retention=retention)
        self._clients = shared_clients(url, self._credentials())
        self._initial = [self._codec.encode(message) for message in messages or ()]
        self._initial_title = title_of(messages or ())
        self._initial_id = uuid4().hex

    def _options(self) -> Options:
        return (("prefix", self.key_prefix), *self._credentials())

    def _credentials(self) -> Options:
        provider = self._credential_provider
        return () if provider is None else (("credential_provider", provider),)

    @property
    def redis_key(self) -> str:
        """The key of the list of messages."""
        return f"{self.key_prefix}:{self.thread_id}"

    @property
    def _redis_client(self) -> Redis:
        """A client of redis-py with the same connection settings, for programs that read keys directly.

        It decodes responses. Each event loop has its own; `aclose` closes them.
        """
        return self._clients.here(self)

    def for_thread(self, thread_id: str | None = None) -> Self:
        return type(self)(self.redis_url, thread_id, self.key_prefix, self.max_messages, **self._server())

    def _server(self) -> dict[str, Any]:
        if self._credential_provider is None:
            return {}
        scheme, _, place = cast(str, self._place).partition("://")
        host, _, port = place.rpartition(":")
        return {
            "credential_provider": self._credential_provider,
            "host": host.strip("[]"),
            "port": int(port),
            "ssl": scheme == "rediss",
        }

    # Messages

    async def add_messages(self, messages: Sequence[Any], **kwargs: Any) -> None:
        await self._begin()
        await super().add_messages(messages, **kwargs)

    async def list_messages(self, **kwargs: Any) -> list[Any]:
        await self._begin()
        return await super().list_messages(**kwargs)

    async def clear(self) -> None:
        self._initial = []
        await super().clear()

    async def _begin(self) -> None:
        """Write the messages that the store was made with, unless the thread has some."""
        if not self._initial:
            return
        thread = await self._store().get_thread(self._key)
        if thread is None or not thread.count:
            # Another writer may be first, or another task of this one with the same append id.
            with suppress(ConflictError):
                await append_with_retries(
                    self._store(),
                    self._key,
                    self._initial,
                    append_id=self._initial_id,
                    expected_seq=0 if thread is None else thread.next_seq,
                    retention=self._retention,
                    default_title=self._initial_title,
                )
        self._initial = []

    def __bool__(self) -> bool:
        return True

    async def __len__(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] - as the betas' own class
        return await self.count()

    async def count(self) -> int:
        """Return the number of stored messages."""
        await self._begin()
        thread = await self._store().get_thread(self._key)
        return 0 if thread is None else thread.count

    async def getitem(self, index: int) -> Any:
        """Return the message at an index, which may be negative.

        Raises:
            IndexError: There is none.
        """
        return self._codec.decode(await self._stored(index), self._key)

    async def setitem(self, index: int, item: Any) -> None:
        """Replace the message at an index, which may be negative.

        Raises:
            IndexError: There is none.
            ConflictError: Another writer changed or deleted it at the same time.
        """
        stored, store = await self._stored(index), required_capability(self._store(), SupportsRewrite)
        change = Rewrite(stored.seq, stored.payload, self._codec.encode(item).payload)
        if change.old != change.new and not await store.rewrite(self._key, [change]):
            raise ConflictError(f"Another writer changed position {stored.seq} of {self._key}: try again.", stored.seq)

    async def append(self, item: Any) -> None:
        """Append one message."""
        await self.add_messages([item])

    async def extend(self, items: Sequence[Any]) -> None:
        """Append messages, as `add_messages` does."""
        await self.add_messages(items)

    async def index(self, item: Any) -> int:
        """Return the index of the first message that equals ``item``.

        Raises:
            ValueError: There is none.
        """
        return (await self._found(item))[0]

    async def remove(self, item: Any) -> None:
        """Remove the first message that equals ``item``, if it is the oldest or the newest one.

        Raises:
            ValueError: There is none.
            UnsupportedError: It is neither.
            ConflictError: Another writer appended at the same time.
        """
        at, page = await self._found(item)
        seq = page[at].seq
        if 0 < at < len(page) - 1:
            raise UnsupportedError("Only the oldest or the newest message of a thread can be removed.")
        bounds = {"stop": seq} if at else {"start": seq + 1}
        await self._store().truncate(self._key, **bounds, expected_seq=page.next_seq)

    async def ping(self) -> bool:
        """Return whether the server answers."""
        try:
            await self._store().get_thread(self._key)
        except EverthreadError:
            return False
        return True

    async def _stored(self, index: int) -> Message:
        await self._begin()
        wanted = index + 1 if index >= 0 else -index
        store = self._store()
        page = await (store.read(self._key, limit=wanted) if index >= 0 else store.read_last(self._key, wanted))
        if len(page) < wanted:
            raise IndexError("list index out of range")
        return page[-1 if index >= 0 else 0]

    async def _found(self, item: Any) -> tuple[int, MessagePage]:
        await self._begin()
        wanted = self._codec.encode(item).payload
        page = await self._store().read(self._key)
        for at, stored in enumerate(page):
            if stored.payload == wanted:
                return at, page
        raise ValueError("ChatMessage not found in store")

    # State

    async def serialize_state(self, *, include_credentials: bool = False, **kwargs: Any) -> dict[str, Any]:
        return {
            "thread_id": self.thread_id,
            "redis_url": self._stated_url(include_credentials=include_credentials),
            "key_prefix": self.key_prefix,
            "max_messages": self.max_messages,
        }

    @classmethod
    async def deserialize(cls, serialized_store_state: Any, **kwargs: Any) -> RedisChatMessageStore:
        """Return the store that `serialize` or `serialize_state` described.

        Args:
            serialized_store_state: Their result. On its own it opens a Redis server, and sends it no credentials
                but its own, because anybody may have written it.
            kwargs: ``redis_url=``, or ``credential_provider=`` and ``host=`` with their options, name the place of the
                conversation; otherwise ``REDIS_URL`` in the environment does, or the state. Others are not used.

        Raises:
            ConfigurationError: The state is not valid, or neither it nor the caller names a place that may be opened.
        """
        state = state_of(serialized_store_state)
        server = {name: kwargs[name] for name in _SERVER if kwargs.get(name) is not None}
        if "credential_provider" in server:
            return cls(kwargs.get("redis_url"), **_thread_in(state), **server)
        url = kwargs.get("redis_url") or os.environ.get(cls.url_variable) or cls._place_in(state)
        return cls(url, **_thread_in(state))

    def _restored(self, state: State, given: Mapping[str, Any]) -> EverthreadChatMessageStore:
        prefix = given.get("key_prefix") or self.key_prefix
        if state.key_prefix not in {None, prefix}:
            raise ConfigurationError("The state names another key_prefix than this store: pass key_prefix= for it.")
        url, server = given.get("redis_url"), dict[str, Any]()
        if not url:
            url, server = self.redis_url, self._server()
        return type(self)(url, state.thread_id, prefix, self.max_messages, **server)

    async def aclose(self) -> None:
        await super().aclose()
        await self._clients.release(self)


_SERVER = ("credential_provider", "host", "port", "ssl", "username")


def _thread_in(state: State) -> dict[str, Any]:
    prefix = DEFAULT_PREFIX if state.key_prefix is None else state.key_prefix
    return {"thread_id": state.thread_id, "key_prefix": prefix, "max_messages": state.max_messages}


def _url(
    redis_url: str | None, provider: object, host: str | None, port: int, username: str | None, *, ssl: bool
) -> str:
    if provider is None:
        if not redis_url:
            raise ConfigurationError(
                "redis_url is required, such as redis://localhost:6379/0, or host with credential_provider."
            )
        if scheme_of(redis_url) not in {"redis", "rediss", "unix"}:
            raise ConfigurationError(f"redis_url is a redis://, rediss:// or unix:// URL, not {scheme_of(redis_url)}:.")
        return redis_url
    if redis_url is not None:
        raise ConfigurationError("redis_url and credential_provider exclude each other.")
    if not host:
        raise ConfigurationError("credential_provider needs host.")
    if username is not None:
        raise ConfigurationError("credential_provider gives the user name: leave username out.")
    return f"redis{'s' * bool(ssl)}://{f'[{host}]' if ':' in host else host}:{port}"
