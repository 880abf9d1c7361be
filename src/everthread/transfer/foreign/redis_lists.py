"""Lists of other programs in Redis, one JSON message per element. SCAN finds the keys, never KEYS.

Sources: the betas' ``RedisChatMessageStore`` (``PREFIX:THREAD``), ``RedisHistoryProvider`` of agent-framework-redis
1.0.0b261022 (``PREFIX|v2|TENANT|APPLICATION|AGENT|SOURCE|SESSION``), ``RedisSession`` of openai-agents 0.24
(``PREFIX:SESSION:messages``), ``RedisChatMessageHistory`` of langchain-community 0.4 (``PREFIX`` and the session, the
newest message first).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from everthread._escaping import escape
from everthread._extras import import_extra
from everthread._url_options import engine_options
from everthread.errors import ConfigurationError, InvalidIdentifierError, StoreUnavailableError
from everthread.messages.codec import as_text
from everthread.model import Message, ThreadKey
from everthread.transfer.foreign._turns import Numbered, decoded_segment, session_thread
from everthread.transfer.model import Heading, Openable, Skipped, Source, SourceThread
from everthread.urls import mask_url

KEYS_AT_ONCE = 1000
_A_PAGE = 100
_TIMEOUT = 30.0
_GLOB = re.compile(r"([*?\[\]\\^-])")
_NONE = "~none"
_DEFAULT_SOURCE = "redis_memory"
_ITEMS = ":messages"
_PREFIX_MARK = "~redis-key-prefix-"

T = TypeVar("T")


class RedisLists(Openable):
    """The lists with keys of one pattern, in a database or on all primaries of a cluster.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://`` or ``redis+cluster://``. Of everthread's own options only
            ``prefix`` and ``timeout`` apply.
        prefix: The beginning of the keys. Default: that program's default.
    """

    default_prefix = ""
    newest_first = False
    format: str | None = None

    def __init__(self, url: str, prefix: str | None = None) -> None:
        rest, settings = engine_options(url, {}, {"prefix": str, "timeout": float, "retries": int})
        self._url = rest
        self._timeout = float(settings.get("timeout", _TIMEOUT))
        self.prefix = prefix or str(settings.get("prefix", self.default_prefix))
        self._clients: list[Any] = []
        self._owners: Callable[[bytes], Any] = lambda _: self._clients[0]

    @abstractmethod
    def pattern(self) -> str:
        """Return the pattern of the keys."""

    @abstractmethod
    def thread_of(self, name: str) -> str:
        """Return the ID of the thread in a list; empty if the list is not of this kind."""

    async def open(self) -> None:
        import_extra("redis.asyncio", "redis")
        from everthread.engines.redis.client.dialing import client_like, pool_at
        from everthread.engines.redis.client.urls import target_of

        target = target_of(self._url)
        if target.kind == "sentinel":
            raise ConfigurationError("Name the primary itself (redis://), not its sentinels.")
        pool = pool_at(target.url, self._timeout)
        if target.kind == "cluster":
            await self._find_primaries(pool, target.hosts)
        else:
            self._clients = [client_like(pool)]
            await self.answer(self._clients[0].ping())

    async def _find_primaries(self, pool: Any, seeds: Sequence[tuple[str, int]]) -> None:
        from everthread.engines.redis.client.dialing import client_like
        from everthread.engines.redis.keys import slot_of

        seed, rows = await self._slots(pool, seeds)
        clients: dict[tuple[str, int], Any] = {}
        owners: list[tuple[int, int, Any]] = []
        for first, last, primary, *_ in rows:
            # An empty host means the server that was asked.
            address = (as_text(_decoded(primary[0])) or seed[0], int(primary[1]))
            if address not in clients:
                clients[address] = client_like(pool, host=address[0], port=address[1])
                self._clients.append(clients[address])
            owners.append((first, last, clients[address]))

        def owner_of(name: bytes) -> Any:
            slot = slot_of(name)
            for first, last, client in owners:
                if first <= slot <= last:
                    return client
            raise StoreUnavailableError("A slot of the cluster has no server now: see CLUSTER SLOTS.")

        self._owners = owner_of

    async def _slots(self, pool: Any, seeds: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], list[Any]]:
        from everthread.engines.redis.client.dialing import client_like

        unreachable: StoreUnavailableError | None = None
        for seed in seeds:
            client = client_like(pool, host=seed[0], port=seed[1])
            try:
                return seed, cast(list[Any], await self.answer(cast(Any, client).execute_command("CLUSTER", "SLOTS")))
            except StoreUnavailableError as error:
                unreachable = error
            finally:
                await client.aclose()
        assert unreachable is not None
        raise unreachable

    def client_of(self, name: bytes) -> Any:
        """Return the open client of redis-py for the server of a key. It returns bytes."""
        return self._owners(name)

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()

    async def names(self) -> AsyncIterator[bytes]:
        """Yield the keys of all lists of this kind. A key may come twice."""
        async for name in self.keys(self.pattern(), "list"):
            if _is_text(name) and self.thread_of(name.decode()):
                yield name

    async def keys(self, pattern: str, kind: str | None = None, *, steps: int | None = None) -> AsyncIterator[bytes]:
        """Yield keys that match a pattern, of a type if one is given. A key may come twice.

        Args:
            steps: The most steps of the scan of each server; ``None`` for all keys.
        """
        for client in self._clients:
            cursor, done = 0, 0
            while True:
                cursor, names = await self.answer(client.scan(cursor, match=pattern, count=KEYS_AT_ONCE, _type=kind))
                for name in sorted(names):
                    yield name
                done += 1
                if not cursor or done == steps:
                    break

    async def size_of(self, name: bytes) -> int:
        """Return the approximate bytes of a list in the server's memory; 0 if the user may not know."""
        try:
            return await self.answer(self.client_of(name).memory_usage(name, samples=0)) or 0
        except ConfigurationError:
            return 0

    async def changed_ms(self, name: bytes) -> int | None:
        """Return the time of a list's last change, in milliseconds since 1970; ``None`` if it is not known."""
        return None

    async def elements(self, name: bytes, start: int, count: int = _A_PAGE) -> list[bytes]:
        """Return some elements of a list from a position on, the oldest first."""
        client = self.client_of(name)
        if self.newest_first:
            # Counted from the end, so that a concurrent push moves nothing.
            found = await self.answer(client.lrange(name, -start - count, -start - 1))
            return cast(list[bytes], found)[::-1]
        return cast(list[bytes], await self.answer(client.lrange(name, start, start + count - 1)))

    async def answer(self, reply: Awaitable[T]) -> T:
        """Return the server's answer. A typed error leaves out the driver's text, which may hold a secret."""
        from redis import exceptions

        shown = mask_url(self._url)
        try:
            return await reply
        except exceptions.AuthenticationError:
            raise ConfigurationError(f"Redis refuses the user or password ({shown}).") from None
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            raise StoreUnavailableError(
                f"Cannot connect to Redis ({shown}): {type(error).__name__}. Is the server running?"
            ) from None
        except exceptions.MovedError:
            raise ConfigurationError(
                f"This server is part of a cluster ({shown}): write redis+cluster:// in place of redis://."
            ) from None
        except exceptions.NoPermissionError:
            raise ConfigurationError(f"This user may not run a command that is needed ({shown}).") from None
        except exceptions.RedisError as error:
            code = str(error).partition(" ")[0][:40]
            raise ConfigurationError(f"Redis refuses the command ({shown}): {code}.") from None


def _decoded(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


class AnyLists(RedisLists):
    """All lists."""

    def pattern(self) -> str:
        return "*"

    def thread_of(self, name: str) -> str:
        return name


class PlainLists(RedisLists):
    """``PREFIX:THREAD``."""

    default_prefix = "chat_messages"

    def pattern(self) -> str:
        return escaped_pattern(self.prefix) + ":*"

    def thread_of(self, name: str) -> str:
        return name.removeprefix(f"{self.prefix}:")


class LangChainLists(RedisLists):
    """``PREFIX`` and the session's ID; the newest message first."""

    default_prefix = "message_store:"
    newest_first = True
    format = "langchain"

    def pattern(self) -> str:
        return escaped_pattern(self.prefix) + "*"

    def thread_of(self, name: str) -> str:
        return name.removeprefix(self.prefix)


class AgentsLists(RedisLists):
    """``PREFIX:SESSION:messages`` of the OpenAI Agents SDK."""

    default_prefix = "agents:session"
    format = "openai-responses"

    def pattern(self) -> str:
        return escaped_pattern(self.prefix) + ":*" + _ITEMS

    def thread_of(self, name: str) -> str:
        return name.removesuffix(_ITEMS).removeprefix(f"{self.prefix}:")

    async def changed_ms(self, name: bytes) -> int | None:
        session = name.removesuffix(_ITEMS.encode())
        found = await self.answer(self.client_of(session).hget(session, "updated_at"))
        return int(found) * 1000 if found and found.isdigit() and len(found) < 16 else None


class ScopedLists(RedisLists):
    """``PREFIX|v2|TENANT|APPLICATION|AGENT|SOURCE|SESSION`` of every scope."""

    default_prefix = "chat_messages"

    def pattern(self) -> str:
        return escaped_pattern(_segment(self.prefix)) + "|v2|*"

    def thread_of(self, name: str) -> str:
        return name if _scope_of(name) else ""


class ListsSource(Source):
    """The lists of one kind, as threads to import."""

    def __init__(self, lists: RedisLists) -> None:
        self.lists = lists

    async def open(self) -> None:
        await self.lists.open()

    async def aclose(self) -> None:
        await self.lists.aclose()

    async def threads(self) -> AsyncIterator[SourceThread | Skipped]:
        async for name in self.lists.names():
            try:
                key = self.key_of(name.decode())
            except InvalidIdentifierError as error:
                yield Skipped(f"the key {name[:100]!r}", str(error))
                continue
            if key is not None:
                yield _List(self.lists, name, key)

    def key_of(self, name: str) -> ThreadKey | None:
        """Return the thread of a list, or ``None`` to leave it out."""
        return ThreadKey(self.lists.thread_of(name))


class _List(SourceThread):
    def __init__(self, lists: RedisLists, name: bytes, key: ThreadKey) -> None:
        self._lists = lists
        self._name = name
        self.heading = Heading(key)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        numbered = Numbered(self._lists.format)
        start = 0
        while found := await self._lists.elements(self._name, start):
            yield [numbered.message(payload) for payload in found]
            start += len(found)


class ScopedSource(ListsSource):
    """The sessions of one scope.

    The tenant becomes the thread's tenant. Sessions of two applications or agents may have the same ID, so a source
    reads one scope. Messages of another source than the provider's default become the thread that
    ``EverthreadHistoryProvider(source_id=…)`` reads.
    """

    def __init__(self, lists: ScopedLists, scope: str | None = None) -> None:
        super().__init__(lists)
        self._scope = scope

    async def open(self) -> None:
        await super().open()
        scopes = {_scope_of(name.decode()) async for name in self.lists.names()}
        if self._scope is None and len(scopes) > 1:
            shown = ", ".join(sorted(scopes)[:10])
            raise ConfigurationError(f"There are {len(scopes)} scopes (tenant|application|agent): {shown}. Choose one.")
        if not scopes:
            raise ConfigurationError(f"There are no sessions with scoped keys under the prefix {self.lists.prefix!r}.")
        self._scope = self._scope or next(iter(scopes))
        if self._scope not in scopes:
            raise ConfigurationError(f"There are no sessions of the scope {self._scope!r} under this prefix.")

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


def prefix_of(name: str) -> str:
    """Return the prefix of a scoped key."""
    return decoded_segment(name.partition("|")[0], _PREFIX_MARK)


def _segment(prefix: str) -> str:
    """Return the prefix in the form of scoped keys: encoded unless it is harmless."""
    if re.fullmatch(r"[a-z0-9_-][a-z0-9._-]*(?<!\.)", prefix):
        return prefix
    from base64 import b32encode

    return _PREFIX_MARK + b32encode(prefix.encode()).decode().rstrip("=").lower()


def escaped_pattern(text: str) -> str:
    """Return a text as a pattern that matches itself alone."""
    return _GLOB.sub(r"\\\1", text)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
