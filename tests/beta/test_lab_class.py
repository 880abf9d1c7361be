"""The interface of ``RedisChatMessageStore`` in ``agent-framework-redis``, as its last betas had it."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from everthread import ConfigurationError, UnsupportedError
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore, RedisChatMessageStore
from tests.beta import betas

THEIRS = {
    "add_messages", "aclose", "append", "clear", "count", "deserialize", "extend", "getitem", "index",
    "list_messages", "ping", "redis_key", "remove", "serialize", "setitem", "update_from_state",
}  # fmt: skip
THEIR_ARGUMENTS = {
    "redis_url", "credential_provider", "host", "port", "ssl", "username",
    "thread_id", "key_prefix", "max_messages", "messages",
}  # fmt: skip


def say(text: str) -> Any:
    return betas.message("user", text)


def texts(messages: list[Any]) -> list[str]:
    return [message.text for message in messages]


def test_it_has_all_that_the_frameworks_own_class_has() -> None:
    assert set(dir(RedisChatMessageStore)) >= THEIRS
    parameters = inspect.signature(RedisChatMessageStore).parameters
    assert set(parameters) == THEIR_ARGUMENTS
    assert list(parameters)[:5] == ["redis_url", "thread_id", "key_prefix", "max_messages", "messages"]


async def test_its_client_reads_keys_as_the_lab_does(redis_url: str, fresh_prefix: str) -> None:
    async with RedisChatMessageStore(redis_url, "t", fresh_prefix) as store:
        await store.add_messages([say("one"), say("two")])
        client = store._redis_client
        assert client is store._redis_client
        assert await client.keys(f"{fresh_prefix}:*") == [store.redis_key]
        assert await client.exists(store.redis_key) == 1
        assert await client.llen(store.redis_key) == 2
        assert '"one"' in (await client.lrange(store.redis_key, 0, -1))[0]
    assert not any(connection.is_connected for connection in client.connection_pool._available_connections)


def test_its_client_works_in_one_event_loop_after_another(redis_url: str, fresh_prefix: str) -> None:
    store = RedisChatMessageStore(redis_url, "t", fresh_prefix)

    async def ask() -> int:
        return await store._redis_client.llen(store.redis_key)

    assert [asyncio.run(ask()) for _ in range(2)] == [0, 0]


async def test_messages_of_the_constructor_are_written_once(redis_url: str, fresh_prefix: str) -> None:
    async with RedisChatMessageStore(redis_url, "t", fresh_prefix, messages=[say("a"), say("b")]) as store:
        counts = await asyncio.gather(store.count(), store.count(), store.list_messages())
        assert (counts[:2], texts(counts[2])) == ([2, 2], ["a", "b"])
        await store.add_messages([say("c")])
    async with RedisChatMessageStore(redis_url, "t", fresh_prefix, messages=[say("x")]) as store:
        assert texts(await store.list_messages()) == ["a", "b", "c"]
        await store.clear()
        assert await store.list_messages() == []


async def test_it_can_be_used_like_a_list(redis_url: str, fresh_prefix: str) -> None:
    async with RedisChatMessageStore(redis_url, "t", fresh_prefix) as store:
        await store.append(say("a"))
        await store.extend([say("b"), say("c")])
        assert (bool(store), await store.count(), await store.__len__()) == (True, 3, 3)
        assert texts([await store.getitem(at) for at in (0, 2, -1, -3)]) == ["a", "c", "c", "a"]
        await store.setitem(1, say("B"))
        await store.setitem(-1, say("C"))
        assert texts(await store.list_messages()) == ["a", "B", "C"]
        assert await store.index(say("B")) == 1
        with pytest.raises(UnsupportedError):
            await store.remove(say("B"))
        await store.remove(say("C"))
        await store.remove(say("a"))
        assert texts(await store.list_messages()) == ["B"]
        for missing in (store.getitem(1), store.getitem(-2), store.setitem(1, say("x"))):
            with pytest.raises(IndexError):
                await missing
        for missing in (store.index(say("x")), store.remove(say("x"))):
            with pytest.raises(ValueError, match="not found"):
                await missing


async def test_ping_tells_whether_the_server_answers(redis_url: str) -> None:
    async with RedisChatMessageStore(redis_url) as store:
        assert await store.ping() is True
    async with RedisChatMessageStore("redis://127.0.0.1:1/0?retries=0") as store:
        assert await store.ping() is False


async def test_a_credential_provider_signs_in_at_its_host(redis_url: str, fresh_prefix: str) -> None:
    from redis.credentials import UsernamePasswordCredentialProvider

    class Asked(UsernamePasswordCredentialProvider):
        times = 0

        def get_credentials(self) -> Any:
            self.times += 1
            return "default", "any"

    provider, port = Asked(), int(redis_url.rpartition(":")[2].partition("/")[0])
    server = {"credential_provider": provider, "host": "127.0.0.1", "port": port, "ssl": False}
    async with RedisChatMessageStore(**server, key_prefix=fresh_prefix, thread_id="t") as store:
        await store.add_messages([say("a")])
        assert await store._redis_client.llen(store.redis_key) == 1
        assert provider.times >= 2
        state = await store.serialize()
        assert texts(await store.for_thread("t").list_messages()) == ["a"]
        await store.update_from_state(state)
        assert texts(await store.list_messages()) == ["a"]
    async with await RedisChatMessageStore.deserialize(state, **server) as store:
        assert texts(await store.list_messages()) == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "h"},
        {"credential_provider": object()},
        {"credential_provider": object(), "host": "h", "redis_url": "redis://h"},
        {"credential_provider": object(), "host": "h", "username": "u"},
    ],
)
def test_a_server_is_named_in_one_way(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisChatMessageStore(**wrong)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copying_a_message_store_is_refused_at_once(how: Callable[[object], object]) -> None:
    for store in (RedisChatMessageStore("redis://localhost"), EverthreadChatMessageStore("memory:")):
        with pytest.raises(ConfigurationError, match="serialize"):
            how(store)
