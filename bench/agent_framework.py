"""Agent Framework 1.x on Redis, with its message objects: a bare driver, a provider written by hand, everthread."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import lru_cache, partial

import redis.asyncio as redis_py
from agent_framework import Message

from bench.redis import bare
from bench.workload import Group, Turn
from everthread import ThreadKey
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.agent_framework.messages import from_stored
from tests.servers import redis_server


@contextlib.contextmanager
def groups() -> Iterator[Sequence[Group]]:
    with redis_server("redis", "--appendonly", "no") as server:
        yield [
            Group(
                "Agent Framework on Redis 8",
                {
                    "redis-py, asyncio, bytes": partial(bare, server.port),
                    "a provider written by hand": partial(by_hand, server.port),
                    "everthread": partial(ours, server.port),
                },
            )
        ]


@lru_cache(maxsize=100_000)
def _messages(payloads: tuple[bytes, ...]) -> list[Message]:
    return [Message.from_dict(json.loads(payload)) for payload in payloads]


class ByHand:
    """Store messages in a list with ``Message.to_dict``, ``from_dict`` and the standard library's JSON."""

    def __init__(self, client: redis_py.Redis) -> None:
        self._client = client

    async def append(self, thread: str, turn: Turn) -> object:
        texts = [json.dumps(message.to_dict()) for message in _messages(turn.payloads)]
        return await self._client.rpush(f"hand:{thread}", *texts)

    async def read_last(self, thread: str, count: int) -> Sequence[Message]:
        texts = await self._client.lrange(f"hand:{thread}", -count, -1)
        return [Message.from_dict(json.loads(text)) for text in texts]


class Ours:
    """Call the provider; read by count, as its ``window`` does."""

    def __init__(self, provider: EverthreadHistoryProvider) -> None:
        self._provider = provider

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._provider.save_messages(thread, _messages(turn.payloads))

    async def read_last(self, thread: str, count: int) -> Sequence[Message]:
        page = await self._provider.store.read_last(ThreadKey(thread), count)
        return [from_stored(message) for message in page]


@contextlib.asynccontextmanager
async def by_hand(port: int) -> AsyncIterator[ByHand]:
    async with redis_py.Redis(port=port) as client:
        yield ByHand(client)


@contextlib.asynccontextmanager
async def ours(port: int) -> AsyncIterator[Ours]:
    async with EverthreadHistoryProvider(f"redis://127.0.0.1:{port}") as provider:
        yield Ours(provider)
