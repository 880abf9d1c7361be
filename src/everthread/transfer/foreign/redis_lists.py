"""Lists of other programs in Redis, one JSON message per element. SCAN finds the keys, never KEYS.

Sources: the betas' ``RedisChatMessageStore`` (``PREFIX:THREAD``), ``RedisHistoryProvider`` of agent-framework-redis
1.0.0b261022 (``PREFIX|v2|TENANT|APPLICATION|AGENT|SOURCE|SESSION``), ``RedisChatMessageHistory`` of
langchain-community 0.4 (``PREFIX`` and the session, the newest message first).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar, cast

from everthread._escaping import escape
from everthread._extras import import_extra
from everthread._url_options import engine_options
from everthread.errors import ConfigurationError, InvalidIdentifierError, StoreUnavailableError
from everthread.model import Message, ThreadKey
from everthread.transfer.foreign._turns import Numbered, decoded_segment, session_thread
from everthread.transfer.model import Heading, Skipped, Source, SourceThread
from everthread.urls import mask_url

_A_PAGE = 100
_KEYS_AT_ONCE = 1000
_GLOB = re.compile(r"([*?\[\]\\^-])")
_NONE = "~none"
_DEFAULT_SOURCE = "redis_memory"

T = TypeVar("T")


class RedisLists(Source):
    """The lists of a database with keys of one pattern.

    Args:
        url: A URL for redis-py. Of everthread's own options only ``prefix`` applies.
        prefix: The beginning of the keys.
    """

    newest_first = False
    format: str | None = None

    def __init__(self, url: str, prefix: str | None, default: str) -> None:
        rest, settings = engine_options(url, {}, {"prefix": str, "timeout": float, "retries": int})
        self._url = rest
        self.prefix = prefix or str(settings.get("prefix", default))
        self._client: Any = None

    @abstractmethod
    def pattern(self) -> str:
        """Return the pattern of the keys."""

    @abstractmethod
    def key_of(self, name: str) -> ThreadKey | None:
        """Return the thread of a list, or ``None`` if the list is not of this kind."""

    async def open(self) -> None:
        redis = import_extra("redis.asyncio", "redis")
        try:
            self._client = redis.Redis.from_url(self._url, decode_responses=False)
        except (ValueError, TypeError):
            # Raised without the cause, which may quote the password.
            self._client = None
        if self._client is None:
            raise ConfigurationError(f"Cannot use this Redis URL ({mask_url(self._url)}): check its form.")
        await self.answer(self._client.ping())

    @property
    def client(self) -> Any:
        """The open client of redis-py, which returns bytes."""
        return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def threads(self) -> AsyncIterator[SourceThread | Skipped]:
        async for name in self.names():
            try:
                key = self.key_of(name.decode())
            except InvalidIdentifierError as error:
                yield Skipped(f"the key {name[:100]!r}", str(error))
                continue
            if key is not None:
                yield _List(self, name, key)

    async def names(self) -> AsyncIterator[bytes]:
        """Yield the keys of all lists. A key may come twice."""
        cursor = 0
        while True:
            cursor, names = await self.answer(
                self._client.scan(cursor, match=self.pattern(), count=_KEYS_AT_ONCE, _type="list")
            )
            for name in sorted(names):
                if _is_text(name):
                    yield name
            if not cursor:
                return

    async def elements(self, name: bytes, start: int) -> list[bytes]:
        """Return some elements of a list from a position on, the oldest first."""
        if self.newest_first:
            # Counted from the end, so that a concurrent push moves nothing.
            found = await self.answer(self._client.lrange(name, -start - _A_PAGE, -start - 1))
            return cast(list[bytes], found)[::-1]
        return cast(list[bytes], await self.answer(self._client.lrange(name, start, start + _A_PAGE - 1)))

    async def answer(self, reply: Awaitable[T]) -> T:
        """Return the server's answer. A typed error leaves out the driver's text, which may hold a secret."""
        from redis import exceptions

        try:
            return await reply
        except exceptions.AuthenticationError:
            raise ConfigurationError(f"Redis refuses the user or password ({mask_url(self._url)}).") from None
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            raise StoreUnavailableError(
                f"Cannot connect to Redis ({mask_url(self._url)}): {type(error).__name__}. Is the server running?"
            ) from None
        except exceptions.ResponseError as error:
            raise ConfigurationError(f"Redis refuses the command ({mask_url(self._url)}): {error}.") from None


class _List(SourceThread):
    def __init__(self, source: RedisLists, name: bytes, key: ThreadKey) -> None:
        self._source = source
        self._name = name
        self.heading = Heading(key)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered(self._source.format)
        start = 0
        while found := await self._source.elements(self._name, start):
            yield [numbered.message(payload) for payload in found]
            start += len(found)


class PlainLists(RedisLists):
    """``PREFIX:THREAD``."""

    def __init__(self, url: str, prefix: str | None = None) -> None:
        super().__init__(url, prefix, "chat_messages")

    def pattern(self) -> str:
        return escaped_pattern(self.prefix) + ":*"

    def key_of(self, name: str) -> ThreadKey | None:
        thread_id = name.removeprefix(f"{self.prefix}:")
        return ThreadKey(thread_id) if thread_id else None


class LangChainLists(RedisLists):
    """``PREFIX`` and the session's ID; the newest message first."""

    newest_first = True
    format = "langchain"

    def __init__(self, url: str, prefix: str | None = None) -> None:
        super().__init__(url, prefix, "message_store:")

    def pattern(self) -> str:
        return escaped_pattern(self.prefix) + "*"

    def key_of(self, name: str) -> ThreadKey | None:
        thread_id = name.removeprefix(self.prefix)
        return ThreadKey(thread_id) if thread_id else None


class ScopedLists(RedisLists):
    """``PREFIX|v2|TENANT|APPLICATION|AGENT|SOURCE|SESSION``.

    The tenant becomes the thread's tenant. Sessions of two applications or agents may have the same ID, so a source
    reads one scope. Messages of another source than the provider's default become the thread that
    ``EverthreadHistoryProvider(source_id=…)`` reads.
    """

    def __init__(self, url: str, prefix: str | None = None, scope: str | None = None) -> None:
        super().__init__(url, prefix, "chat_messages")
        self._scope = scope

    async def open(self) -> None:
        await super().open()
        scopes = {scope async for name in self.names() if (scope := _scope_of(name.decode()))}
        if self._scope is None and len(scopes) > 1:
            shown = ", ".join(sorted(scopes)[:10])
            raise ConfigurationError(f"There are {len(scopes)} scopes (tenant|application|agent): {shown}. Choose one.")
        if not scopes:
            raise ConfigurationError(f"There are no sessions with scoped keys under the prefix {self.prefix!r}.")
        self._scope = self._scope or next(iter(scopes))
        if self._scope not in scopes:
            raise ConfigurationError(f"There are no sessions of the scope {self._scope!r} under this prefix.")

    def pattern(self) -> str:
        return escaped_pattern(_segment(self.prefix)) + "|v2|*"

    def key_of(self, name: str) -> ThreadKey | None:
        if _scope_of(name) != self._scope:
            return None
        _, _, tenant, _, _, source, session = name.split("|")
        source_id = decoded_segment(source, "~redis-source-")
        session_id = decoded_segment(session, "~redis-session-")
        is_default = source_id == _DEFAULT_SOURCE
        thread_id = session_thread(session_id) if is_default else f"~{escape(source_id)}~{session_id}"
        return ThreadKey(thread_id, "" if tenant == _NONE else decoded_segment(tenant, "~redis-tenant-"))


def _scope_of(name: str) -> str:
    parts = name.split("|")
    return "|".join(parts[2:5]) if len(parts) == 7 else ""


def _segment(prefix: str) -> str:
    """Return the prefix in the form of scoped keys: encoded unless it is harmless."""
    if re.fullmatch(r"[a-z0-9_-][a-z0-9._-]*(?<!\.)", prefix):
        return prefix
    from base64 import b32encode

    return "~redis-key-prefix-" + b32encode(prefix.encode()).decode().rstrip("=").lower()


def escaped_pattern(text: str) -> str:
    """Return a text as a pattern that matches itself alone."""
    return _GLOB.sub(r"\\\1", text)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
