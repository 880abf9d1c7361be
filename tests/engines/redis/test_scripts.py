"""The Lua scripts: each writes everything or nothing, also when a command in it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as redis_py

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    EverthreadError,
    Retention,
    ThreadKey,
    open_store,
)
from everthread.engines.redis import RedisStore
from everthread.engines.redis.keys import ThreadNames
from everthread.model import NewMessage, Rewrite
from tests.engines.redis.turns import KEY, said
from tests.servers import Server

TIME = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = said("a")
CALL = NewMessage(b"1", "json", ("open", "closed"), ())
RESULT = NewMessage(b"2", "json", (), ("closed",))

WRITES: dict[str, Callable[[RedisStore], Awaitable[object]]] = {
    "append": lambda store: store.append(KEY, [TEXT], default_title="t"),
    "append to a new thread": lambda store: store.append(ThreadKey("new"), [TEXT], default_title="t"),
    "append calls": lambda store: store.append(KEY, [CALL, RESULT]),
    "append results": lambda store: store.append(KEY, [NewMessage(b"3", "json", (), ("open",))]),
    "append and trim": lambda store: store.append(KEY, [TEXT], retention=Retention(max_messages=3)),
    "append and expire": lambda store: store.append(KEY, [TEXT], retention=Retention(expire_after=timedelta(days=1))),
    "truncate the head": lambda store: store.truncate(KEY, start=60),
    "truncate the tail": lambda store: store.truncate(KEY, stop=60),
    "rewrite": lambda store: store.rewrite(KEY, [Rewrite(0, TEXT.payload, b'"b"')]),
    "set a title": lambda store: store.update_thread(KEY, title="t"),
    "set a retention": lambda store: store.update_thread(KEY, retention=Retention(expire_after=timedelta(days=1))),
    "restore a position": lambda store: store.restore_position(KEY, 500, expected_seq=105),
    "restore times": lambda store: store.restore_times(KEY, created_at=TIME, updated_at=TIME),
    "put a document": lambda store: store.put_document(KEY, "d", b"2"),
    "delete a document": lambda store: store.delete_document(KEY, "d"),
    "delete the thread": lambda store: store.delete_thread(KEY),
}


class Database:
    """The keys of one prefix, as another program sees them."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def content(self) -> dict[bytes, Any]:
        return {name: self._value(name) for name in self._names()}

    def dump(self) -> dict[bytes, bytes]:
        return {name: self._client.dump(name) for name in self._names()}

    def restore(self, dump: dict[bytes, bytes]) -> None:
        self._client.delete(*self._names(), b"unused")
        for name, value in dump.items():
            self._client.restore(name, 0, value)

    def _names(self) -> list[bytes]:
        return sorted(self._client.keys(f"*{self._prefix}*"))

    def _value(self, name: bytes) -> Any:
        read: dict[bytes, Callable[[], Any]] = {
            b"list": lambda: self._client.lrange(name, 0, -1),
            b"hash": lambda: self._client.hgetall(name),
            b"zset": lambda: self._client.zrange(name, 0, -1, withscores=True),
            b"string": lambda: self._client.get(name),
        }
        return self._client.ttl(name) >= 0, read[self._client.type(name)]()


@pytest.fixture
def client(any_redis_server: Server) -> redis_py.Redis:
    return redis_py.Redis(port=any_redis_server.port)


@pytest.fixture
def url(any_redis_server: Server, fresh_prefix: str) -> str:
    return f"redis://127.0.0.1:{any_redis_server.port}?prefix={fresh_prefix}"


@pytest.fixture
async def database(url: str, client: redis_py.Redis, fresh_prefix: str) -> Database:
    """A thread that has all its keys, but for the second half of the append IDs."""
    async with open_store(url) as store:
        await store.append(KEY, [TEXT, CALL, RESULT])
        for _ in range(50):
            undone = await store.append(KEY, [TEXT, TEXT])
            await store.truncate(KEY, stop=undone.first_seq + 1)
        await store.append(KEY, [CALL, RESULT])
        await store.put_document(KEY, "d", b"1")
    names = ThreadNames(fresh_prefix, KEY).names
    assert client.exists(*names) == len(names) - 1
    return Database(client, fresh_prefix)


async def refusal(write: Awaitable[object], kind: type[EverthreadError]) -> str:
    try:
        await write
    except kind as error:
        return str(error)
    return ""


@pytest.mark.parametrize("at", range(10))
async def test_a_key_of_another_type_leaves_each_write_undone(
    url: str, database: Database, client: redis_py.Redis, fresh_prefix: str, at: int
) -> None:
    planted = ThreadNames(fresh_prefix, KEY).names[at]
    client.delete(planted)
    client.set(planted, "planted")
    content, dump = database.content(), database.dump()
    refused = set()
    async with open_store(url) as store:
        assert isinstance(store, RedisStore)
        for name, write in WRITES.items():
            if await refusal(write(store), CorruptRecordError):
                refused.add(name)
                assert database.content() == content, name
            database.restore(dump)
    assert len(refused) > 5


RIGHTS = (
    "hset hdel rpush lpush ltrim lpop rpop zadd zrem zremrangebyscore zremrangebyrank pexpire persist unlink lset "
    "hget lrange lindex zscore zcount zrevrange zrangebyscore pttl"
)


@pytest.mark.parametrize("right", RIGHTS.split())
async def test_a_missing_right_leaves_each_write_undone(
    url: str, database: Database, client: redis_py.Redis, right: str
) -> None:
    client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "resetkeys", "~*", "+@all", f"-{right}")
    content, dump = database.content(), database.dump()
    refused = set()
    async with open_store(url.replace("//", "//limited:pw@")) as store:
        assert isinstance(store, RedisStore)
        for name, write in WRITES.items():
            if text := await refusal(write(store), ConfigurationError):
                assert right.upper() in text
                refused.add(name)
                assert database.content() == content, name
            database.restore(dump)
    assert refused


async def test_a_delete_removes_a_thread_with_a_damaged_key(
    url: str, database: Database, client: redis_py.Redis, fresh_prefix: str
) -> None:
    client.delete(ThreadNames(fresh_prefix, KEY).names[2])
    client.set(ThreadNames(fresh_prefix, KEY).names[2], "planted")
    async with open_store(url) as store:
        with pytest.raises(EverthreadError):
            await store.append(KEY, [TEXT])
        assert await store.delete_thread(KEY)
    assert database.content() == {}
