"""Threads in Redis lists of other programs, one JSON message an element.

A repair runs under ``WATCH``, as one transaction: Redis refuses it if another client changed the list since it was
read. Elements are set, inserted and removed one by one, so the key and its time to live stay.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from secrets import token_hex
from typing import Any, cast

from everthread.errors import ConfigurationError, ConflictError
from everthread.messages.rules.rows import Row, row_of_payload
from everthread.model import ThreadKey
from everthread.operations._targets import Change, Target
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore
from everthread.operations.repair import LONGEST
from everthread.transfer.foreign.redis_lists import LangChainLists, PlainLists, RedisLists, escaped_pattern
from everthread.transfer.model import Skipped

_A_PAGE = 1000
_ANYWHERE = 1_000_000
_ITEMS = ":messages"


class _AllScopes(RedisLists):
    """``PREFIX|v2|TENANT|APPLICATION|AGENT|SOURCE|SESSION`` of every scope."""

    def __init__(self, url: str, prefix: str | None = None) -> None:
        super().__init__(url, prefix, "chat_messages")

    def pattern(self) -> str:
        return escaped_pattern(self.prefix) + "|v2|*"

    def key_of(self, name: str) -> ThreadKey | None:
        return ThreadKey("a") if len(name.split("|")) == 7 else None


class _AgentsLists(RedisLists):
    """``PREFIX:SESSION:messages`` of the OpenAI Agents SDK."""

    format = "openai-responses"

    def __init__(self, url: str, prefix: str | None = None) -> None:
        super().__init__(url, prefix, "agents:session")

    def pattern(self) -> str:
        return escaped_pattern(self.prefix) + ":*" + _ITEMS

    def key_of(self, name: str) -> ThreadKey | None:
        return ThreadKey("a") if name.removesuffix(_ITEMS).removeprefix(f"{self.prefix}:") else None


_LISTS: dict[str, Callable[[str, str | None], RedisLists]] = {
    "redis-lists": PlainLists,
    "agent-framework-redis": _AllScopes,
    "openai-agents-redis": _AgentsLists,
    "langchain-redis": LangChainLists,
}


class RedisListStore(ForeignStore):
    """The lists of one program in a database."""

    def __init__(self, kind: str, url: str, prefix: str | None, is_running: Callable[[int | None], bool]) -> None:
        self.kind = kind
        self._lists = _LISTS[kind](url, prefix)
        self._is_running = is_running

    async def open(self) -> None:
        await self._lists.open()

    async def aclose(self) -> None:
        await self._lists.aclose()

    async def targets(self) -> AsyncIterator[Target | Skipped]:
        seen = set[bytes]()
        async for name in self._lists.names():
            # SCAN may return a key twice.
            if name in seen or self._lists.key_of(name.decode()) is None:
                continue
            seen.add(name)
            found = await self._target(name)
            if found is not None:
                yield found

    async def target(self, name: str) -> Target | None:
        found = await self._target(name.encode(), may_be_gone=True)
        if isinstance(found, Skipped):
            raise ConfigurationError(f"{found.place}: {found.reason}")
        return found

    async def _target(self, name: bytes, *, may_be_gone: bool = False) -> ListTarget | Skipped | None:
        elements: list[bytes] = []
        size = 0
        while len(elements) <= LONGEST:
            page = await self.answer(self._lists.client.lrange(name, len(elements), len(elements) + _A_PAGE - 1))
            elements += page
            size += sum(map(len, page))
            if size > MAX_THREAD_BYTES:
                return Skipped(name.decode(), f"it has more than {MAX_THREAD_BYTES:,} bytes")
            if len(page) < _A_PAGE:
                break
        if not elements and not may_be_gone:
            return None
        target = ListTarget(self, name, elements)
        target.is_running = self._is_running(await self._changed_ms(name))
        if self.kind == "langchain-redis":
            target.payloads = elements[::-1]
            target.refusal, target.is_report_only = "histories of LangChain are reported, not repaired", True
        return target

    async def _changed_ms(self, name: bytes) -> int | None:
        if self.kind != "openai-agents-redis":
            return None
        session = name.decode().removesuffix(_ITEMS)
        found = await self.answer(self._lists.client.hget(session, "updated_at"))
        return int(found) * 1000 if found and found.isdigit() and len(found) < 16 else None

    @property
    def client(self) -> Any:
        """The open client."""
        return self._lists.client

    async def answer(self, reply: Awaitable[Any]) -> Any:
        """Return the server's answer, or raise a typed error."""
        return await self._lists.answer(reply)

    @property
    def format(self) -> str | None:
        """The format of the messages, if it is known."""
        return self._lists.format


class ListTarget(Target):
    """A thread in a list."""

    def __init__(self, store: RedisListStore, key: bytes, elements: list[bytes]) -> None:
        self._store = store
        self._key = key
        self.name = key.decode()
        self.payloads = elements

    def rows(self) -> list[Row]:
        return [row_of_payload(payload, self._store.format) for payload in self.payloads]

    def room(self, before: int | None, after: int | None) -> int:
        return _ANYWHERE

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.refusal:
            raise ConfigurationError(self.refusal)
        await self._store.answer(self._transaction(changes))

    async def _transaction(self, changes: Sequence[Change]) -> None:
        from redis import exceptions

        key = self._key
        async with self._store.client.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            state = cast(list[bytes], await pipe.lrange(key, 0, -1))
            if state != self.payloads:
                raise ConflictError(f"Another program changed the list {self.name!r}: try again.", len(state))
            pipe.multi()
            # From the end, so that the earlier indexes stay.
            for change in reversed(changes):
                _change(pipe, key, state, change)
            try:
                await pipe.execute()
            except exceptions.WatchError:
                raise ConflictError(f"Another program changed the list {self.name!r}: try again.", 0) from None


def _change(pipe: Any, key: bytes, state: list[bytes], change: Change) -> None:
    at = change.at
    # Commands that name an element by its value need one that occurs once.
    mark = f"everthread {token_hex(16)}".encode()
    if change.new is None:
        pipe.lset(key, at, mark)
        pipe.lrem(key, 1, mark)
        del state[at]
    elif change.old is not None:
        pipe.lset(key, at, change.new)
        state[at] = change.new
    elif at == len(state):
        pipe.rpush(key, change.new)
        state.append(change.new)
    else:
        pipe.lset(key, at, mark)
        pipe.linsert(key, "BEFORE", mark, change.new)
        pipe.lset(key, at + 1, state[at])
        state.insert(at, change.new)
