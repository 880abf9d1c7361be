"""Redis: a blocking socket, redis-py, a store as users of Agent Framework write it by hand, and everthread."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

import hiredis
import redis.asyncio as redis_py

from bench.workload import Group, Turn
from everthread import Message, NewMessage, Store, ThreadKey, new_message, open_store
from tests.servers import redis_server


@contextlib.contextmanager
def groups() -> Iterator[Sequence[Group]]:
    with redis_server("redis", "--appendonly", "no") as server:
        port = server.port
        yield [
            Group(
                "Redis 8",
                {
                    "redis-py, asyncio, bytes": partial(bare, port),
                    "a blocking socket": partial(blocking, port),
                    "a class written by hand": partial(by_hand, port),
                    "everthread": partial(ours, port),
                    "everthread, bytes": partial(ours_with_bytes, port),
                },
            )
        ]


class Bare:
    """Use redis-py with hiredis and encoded payloads: the minimum of any store on redis-py."""

    def __init__(self, client: redis_py.Redis) -> None:
        self._client = client

    async def append(self, thread: str, turn: Turn) -> object:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.rpush(f"bare:{thread}", *turn.payloads)
        return await pipeline.execute()

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        return await self._client.lrange(f"bare:{thread}", -count, -1)


class Blocking:
    """Send commands packed by hand, one at a time, without an event loop: the lower bound."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = hiredis.Reader()

    async def append(self, thread: str, turn: Turn) -> object:
        return self._run(b"RPUSH", f"floor:{thread}".encode(), *turn.payloads)

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        return self._run(b"LRANGE", f"floor:{thread}".encode(), b"%d" % -count, b"-1")

    def _run(self, *arguments: bytes) -> list[object]:
        packed = [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
        self._connection.sendall(b"*%d\r\n%b" % (len(arguments), b"".join(packed)))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._connection.recv(1 << 20))
        return reply


class ByHand:
    """Do what tutorials show: dictionaries to JSON text, RPUSH, LLEN, and LTRIM above the limit.

    The long thread is left untrimmed, so that it is as long as everybody's.
    """

    MOST = 200

    def __init__(self, client: redis_py.Redis) -> None:
        self._client = client

    async def append(self, thread: str, turn: Turn) -> object:
        key = f"hand:{thread}"
        await self._client.rpush(key, *[json.dumps(value) for value in turn.values])
        if await self._client.llen(key) > (10**9 if thread == "long" else self.MOST):
            await self._client.ltrim(key, -self.MOST, -1)
        return None

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        return [json.loads(text) for text in await self._client.lrange(f"hand:{thread}", -count, -1)]


class Ours:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), [new_message(value) for value in turn.values])

    async def read_last(self, thread: str, count: int) -> Sequence[Message]:
        return (await self._store.read_last(ThreadKey(thread), count)).messages


class OursWithBytes(Ours):
    """Append encoded payloads, as the bare driver does."""

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), [NewMessage(payload) for payload in turn.payloads])


@contextlib.asynccontextmanager
async def bare(port: int) -> AsyncIterator[Bare]:
    async with redis_py.Redis(port=port) as client:
        yield Bare(client)


@contextlib.asynccontextmanager
async def blocking(port: int) -> AsyncIterator[Blocking]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Blocking(connection)


@contextlib.asynccontextmanager
async def by_hand(port: int) -> AsyncIterator[ByHand]:
    async with redis_py.Redis(port=port, decode_responses=True) as client:
        yield ByHand(client)


@contextlib.asynccontextmanager
async def ours(port: int) -> AsyncIterator[Ours]:
    async with open_store(f"redis://127.0.0.1:{port}") as store:
        yield Ours(store)


@contextlib.asynccontextmanager
async def ours_with_bytes(port: int) -> AsyncIterator[OursWithBytes]:
    async with open_store(f"redis://127.0.0.1:{port}?prefix=bytes") as store:
        yield OursWithBytes(store)
