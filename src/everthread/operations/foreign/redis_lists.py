"""Threads in Redis lists of other programs, one JSON message an element.

A repair runs under ``WATCH``, as one transaction: Redis refuses it if another client changed the list since it was
read. Elements are set, inserted and removed one by one, so the key and its time to live stay.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from secrets import token_hex
from typing import Any, cast

from everthread.errors import ConfigurationError, ConflictError
from everthread.messages.rules.rows import Row, row_of_payload
from everthread.operations._targets import Change, Target, applied
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore
from everthread.operations.repair import LONGEST
from everthread.transfer.foreign.redis_lists import AgentsLists, LangChainLists, PlainLists, RedisLists, ScopedLists
from everthread.transfer.model import Skipped

_A_PAGE = 1000
_ANYWHERE = 1_000_000
_FEW = 64
"""The most changes that are made element by element."""

LISTS: dict[str, type[RedisLists]] = {
    "redis-lists": PlainLists,
    "agent-framework-redis": ScopedLists,
    "openai-agents-redis": AgentsLists,
    "langchain-redis": LangChainLists,
}
"""The lists of each kind."""


class RedisListStore(ForeignStore):
    """The lists of one program in a database or cluster."""

    def __init__(self, kind: str, url: str, prefix: str | None, is_running: Callable[[int | None], bool]) -> None:
        self.kind = kind
        self.lists = LISTS[kind](url, prefix)
        self._is_running = is_running

    async def open(self) -> None:
        await self.lists.open()

    async def aclose(self) -> None:
        await self.lists.aclose()

    async def targets(self) -> AsyncIterator[Target | Skipped]:
        seen = set[bytes]()
        async for name in self.lists.names():
            # SCAN may return a key twice.
            if name in seen:
                continue
            seen.add(name)
            try:
                found = await self._target(name)
            except ConfigurationError as error:
                found = Skipped(name.decode(), str(error))
            if found is not None:
                yield found

    async def target(self, name: str) -> Target | None:
        return await self._target(name.encode(), may_be_gone=True)

    async def _target(self, name: bytes, *, may_be_gone: bool = False) -> ListTarget | None:
        # Its elements may be too large to load even one page.
        if await self.lists.size_of(name) > 2 * MAX_THREAD_BYTES:
            raise _too_large()
        elements: list[bytes] = []
        size = 0
        while len(elements) <= LONGEST:
            page = await self.lists.elements(name, len(elements), _A_PAGE)
            elements += page
            size += sum(map(len, page))
            if size > MAX_THREAD_BYTES:
                raise _too_large()
            if len(page) < _A_PAGE:
                break
        if not elements and not may_be_gone:
            return None
        target = ListTarget(self.lists, name, elements)
        target.is_running = self._is_running(await self.lists.changed_ms(name))
        if self.lists.newest_first:
            target.refusal, target.is_report_only = "histories of LangChain are reported, not repaired", True
        return target


def _too_large() -> ConfigurationError:
    return ConfigurationError(f"it has more than {MAX_THREAD_BYTES:,} bytes")


class ListTarget(Target):
    """A thread in a list."""

    def __init__(self, lists: RedisLists, key: bytes, elements: list[bytes]) -> None:
        self._lists = lists
        self._key = key
        self.name = key.decode()
        self.payloads = elements

    def rows(self) -> list[Row]:
        return [row_of_payload(payload, self._lists.format) for payload in self.payloads]

    def room(self, before: int | None, after: int | None) -> int:
        return _ANYWHERE

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.refusal:
            raise ConfigurationError(self.refusal)
        await self._lists.answer(self._transaction(changes))

    async def _transaction(self, changes: Sequence[Change]) -> None:
        from redis import exceptions

        key = self._key
        async with self._lists.client_of(key).pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            state = cast(list[bytes], await pipe.lrange(key, 0, -1))
            if state != self.payloads:
                raise ConflictError(f"Another program changed the list {self.name!r}: try again.", len(state))
            pipe.multi()
            if len(changes) > _FEW:
                _rewrite_end(pipe, key, state, changes)
            else:
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


def _rewrite_end(pipe: Any, key: bytes, state: list[bytes], changes: Sequence[Change]) -> None:
    """Write the list again from the first change on: one command for each change would search the list each time."""
    first = changes[0].at
    rest = applied(state, changes)[first:]
    # One element stays until the end, because an empty list would lose its time to live.
    pipe.ltrim(key, 0, max(first - 1, 0))
    for at in range(0, len(rest), _A_PAGE):
        pipe.rpush(key, *rest[at : at + _A_PAGE])
    if not first:
        pipe.lpop(key)
