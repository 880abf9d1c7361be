"""PostgreSQL with durable commits: a prepared insert on asyncpg, and everthread."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

import asyncpg

from bench.workload import Group, Turn
from everthread import Message, NewMessage, Store, ThreadKey, new_message, open_store
from tests.postgres_server import postgres_server


@contextlib.contextmanager
def groups() -> Iterator[Sequence[Group]]:
    with postgres_server(fsync=True) as server:
        url = server.url()
        contenders = {
            "asyncpg, a prepared insert": partial(bare, url),
            "everthread": partial(ours, url),
            "everthread, bytes": partial(ours_with_bytes, url),
        }
        yield [Group("PostgreSQL 18", contenders)]


class Bare:
    """Insert one row for each encoded message: the minimum of any store on asyncpg."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def append(self, thread: str, turn: Turn) -> object:
        payloads = [payload.decode() for payload in turn.payloads]
        return await self._pool.execute(
            "INSERT INTO bare (thread, payload) SELECT $1, unnest($2::text[])", thread, payloads
        )

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        query = "SELECT payload FROM bare WHERE thread = $1 ORDER BY id DESC LIMIT $2"
        return (await self._pool.fetch(query, thread, count))[::-1]


class Ours:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), [new_message(value) for value in turn.values])

    async def read_last(self, thread: str, count: int) -> Sequence[Message]:
        return (await self._store.read_last(ThreadKey(thread), count)).messages


class OursWithBytes(Ours):
    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), [NewMessage(payload) for payload in turn.payloads])


async def _nothing(_connection: object) -> None:
    """Do nothing: resetting a connection after each statement would be a second round trip."""


@contextlib.asynccontextmanager
async def bare(url: str) -> AsyncIterator[Bare]:
    async with asyncpg.create_pool(url, min_size=1, max_size=10, reset=_nothing) as pool:
        await pool.execute("CREATE TABLE bare (id bigserial, thread text, payload text, PRIMARY KEY (thread, id))")
        yield Bare(pool)


@contextlib.asynccontextmanager
async def ours(url: str) -> AsyncIterator[Ours]:
    async with open_store(url) as store:
        yield Ours(store)


@contextlib.asynccontextmanager
async def ours_with_bytes(url: str) -> AsyncIterator[Ours]:
    async with open_store(url, schema="with_bytes") as store:
        yield OursWithBytes(store)
