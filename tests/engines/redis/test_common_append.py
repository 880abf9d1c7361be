"""The script of the common append: equal to the general script, and undone as a whole if a command in it fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import redis as redis_py

from everthread import ConfigurationError, CorruptRecordError, EverthreadError, Retention, ThreadKey, open_store
from everthread.engines.base import AppendRequest
from everthread.engines.redis.keys import ThreadNames
from everthread.engines.redis.records import append_arguments
from everthread.engines.redis.scripts import APPEND, DELETE, TRUNCATE, UPDATE, Script
from everthread.messages.tool_links import turn_links
from everthread.model import NewMessage
from tests.engines.redis.test_scripts import Database
from tests.engines.redis.turns import KEY, said
from tests.servers import Server

GENERAL = Script("thread", "append", writes=True)
COMMON = Script("common_append")
LINKED = (NewMessage(b"1", "json", ("c",), ()), NewMessage(b"22", "json", (), ("c",)))
CHANGES = ["undo", "cut", "cut", "limit", "delete", "push", "trim", *["push and trim"] * 3, "evict", "lose the index"]
_prefixes = itertools.count()


def some_append(choose: Random) -> AppendRequest:
    """Return an append; three of four are common ones."""
    ids = [tuple(choose.sample("abc", choose.randrange(2))) for _ in range(4)]
    mixed = (NewMessage(b"1", "json", ids[0], ids[1]), NewMessage(b'"two"', "json", ids[2], ids[3]))
    turn = choose.choice([LINKED, LINKED, (said("a"),), mixed])
    expected = choose.randrange(40) if choose.random() < 0.1 else None
    retention = Retention(choose.choice([1, 5]) if choose.random() < 0.05 else None)
    if choose.random() < 0.05:
        retention = Retention(expire_after=timedelta(days=1))
    append_id, title = f"{choose.randrange(60)}", choose.choice([None, "title"])
    return AppendRequest(KEY, turn, turn_links(turn), append_id, expected, retention, title, 0)


class Thread:
    """A thread that one of the append scripts writes."""

    def __init__(self, client: redis_py.Redis, script: Script) -> None:
        self._client = client
        self.script = script
        self._prefix = f"common{next(_prefixes)}"
        self._names = ThreadNames(self._prefix, KEY)

    def append(self, request: AppendRequest, now: int) -> object:
        return self._eval(self.script, now, append_arguments(request))

    def change(self, what: str, at: int, now: int) -> object:
        """Change the thread in another way than by an append, mostly as another program."""
        names = self._names.names
        changes: dict[str, Callable[[], object]] = {
            "undo": lambda: self._eval(TRUNCATE, now, [b"0", b"%d" % at, b""]),
            "cut": lambda: self._eval(TRUNCATE, now, [b"%d" % at, b"", b""]),
            "limit": lambda: self._eval(UPDATE, now, [b"", b"", b"", b"=", b"6", b""]),
            "delete": lambda: self._eval(DELETE, now, [b""]),
            "push": lambda: self._client.rpush(names[0], b"3"),
            "trim": lambda: self._client.ltrim(names[0], 1, -1),
            "push and trim": lambda: (self._client.rpush(names[0], b"4"), self._client.ltrim(names[0], 1, -1)),
            "evict": lambda: self._client.delete(names[2]),
            "lose the index": lambda: self._client.delete(names[9]),
        }
        return changes[what]()

    def _eval(self, script: Script, now: int, arguments: list[bytes]) -> object:
        names = self._names
        keys_and_arguments: list[Any] = [*names.names, names.owner, b"%d" % now, names.member, *arguments]
        return self._client.eval(script.source.decode(), len(names.names), *keys_and_arguments)

    def content(self) -> str:
        return repr(Database(self._client, self._prefix).content()).replace(self._prefix, "")


@pytest.mark.parametrize("seed", range(8))
def test_it_does_what_the_general_script_does(any_redis_server: Server, seed: int) -> None:
    choose = Random(seed)
    with redis_py.Redis(port=any_redis_server.port) as client:
        one, other = Thread(client, APPEND), Thread(client, GENERAL)
        for step in range(60):
            now = 1_700_000_000_000 + step - choose.choice([0, 0, 40])
            if choose.random() < 0.8:
                request = some_append(choose)
                assert one.append(request, now) == other.append(request, now)
            else:
                change = choose.choice(CHANGES), choose.randrange(2 * step + 1), now
                assert one.change(*change) == other.change(*change)
            assert one.content() == other.content()


def test_it_leaves_a_trimmed_thread_to_the_general_script(any_redis_server: Server) -> None:
    turn = (said("a"), said("b"))
    with redis_py.Redis(port=any_redis_server.port) as client:
        threads = [Thread(client, script) for script in (APPEND, GENERAL)]
        for thread in threads:
            thread.append(AppendRequest(KEY, turn, turn_links(turn), "1", None, Retention(), None, 0), 5)
            thread.change("cut", 1, 6)
            # Only a comparison of the newest message shows this.
            thread.change("push and trim", 0, 7)
            thread.append(AppendRequest(KEY, turn, turn_links(turn), "2", None, Retention(), None, 0), 8)
        assert threads[0].content() == threads[1].content()


def test_it_serves_an_append_to_a_plain_thread(any_redis_server: Server) -> None:
    request = AppendRequest(KEY, LINKED, turn_links(LINKED), "x", None, Retention(), "title", 0)
    another = AppendRequest(KEY, LINKED, request.links, "y", 2, Retention(), None, 0)
    with redis_py.Redis(port=any_redis_server.port) as client:
        thread = Thread(client, COMMON)
        assert thread.append(request, 5) is None
        thread.script = GENERAL
        thread.append(request, 5)
        thread.script = COMMON
        assert thread.append(request, 5) is None
        assert thread.append(another, 6) == [0, 2, 4, 0]


@pytest.fixture
def url(any_redis_server: Server, fresh_prefix: str) -> str:
    return f"redis://127.0.0.1:{any_redis_server.port}?prefix={fresh_prefix}"


async def assert_undone(url: str, database: Database, refused: type[EverthreadError]) -> None:
    content = database.content()
    async with open_store(url) as store:
        with pytest.raises(refused):
            await store.append(KEY, LINKED)
    assert database.content() == content


@pytest.mark.parametrize("at", [2, 3, 5, 9], ids=["facts", "spans", "append ids", "index"])
async def test_a_key_of_another_type_leaves_it_undone(
    url: str, any_redis_server: Server, fresh_prefix: str, at: int
) -> None:
    async with open_store(url) as store:
        await store.append(KEY, LINKED)
    with redis_py.Redis(port=any_redis_server.port) as client:
        planted = ThreadNames(fresh_prefix, KEY).names[at]
        client.delete(planted)
        client.set(planted, "planted")
        await assert_undone(url, Database(client, fresh_prefix), CorruptRecordError)


@pytest.mark.parametrize("right", ["rpush", "zadd", "hset", "hget", "llen", "time"])
async def test_a_missing_right_leaves_it_undone(
    url: str, any_redis_server: Server, fresh_prefix: str, right: str
) -> None:
    async with open_store(url) as store:
        await store.append(KEY, [said("a")])
        await store.append(ThreadKey("another"), LINKED)
    with redis_py.Redis(port=any_redis_server.port) as client:
        client.execute_command("ACL", "SETUSER", "common", "on", ">pw", "resetkeys", "~*", "+@all", f"-{right}")
        await assert_undone(url.replace("//", "//common:pw@"), Database(client, fresh_prefix), ConfigurationError)
