"""A Redis server that is not there, says nothing, or refuses: which error comes, and what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import pytest
import redis.asyncio as redis_py

from everthread import (
    Appended,
    ConfigurationError,
    OutcomeUnknownError,
    Store,
    StoreUnavailableError,
    ThreadKey,
    UnsupportedError,
    new_message,
    open_store,
)
from everthread.engines.redis import RedisStore
from everthread.model import NewMessage
from tests.servers import REDIS_LIKE, Server, free_port, redis_server

KEY = ThreadKey("conversation")
PASSWORD = "s3cret/päss:w@rd"


@pytest.fixture(scope="module", params=sorted(REDIS_LIKE))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with redis_server(request.param, "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def url(server: Server, fresh_prefix: str) -> str:
    return f"redis://127.0.0.1:{server.port}?prefix={fresh_prefix}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        yield store


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[redis_py.Redis]:
    async with redis_py.Redis(port=server.port) as client:
        yield client


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


async def texts(store: Store, key: ThreadKey = KEY) -> list[bytes]:
    return [message.payload for message in await store.read(key)]


def shown(error: BaseException) -> str:
    return f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"


async def test_a_server_that_is_not_there_is_told_with_its_address_and_what_to_check() -> None:
    port = free_port()
    store = open_store(f"redis://someone:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/2")
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError) as caught:
        await store.open()
    assert time.monotonic() - begun < 3
    for part in (f"127.0.0.1:{port}", "database 2", "firewall", "6380", "rediss://"):
        assert part in str(caught.value)
    assert PASSWORD not in shown(caught.value)
    assert quote(PASSWORD, safe="") not in shown(caught.value)
    for text in (repr(store), store.location):
        assert "someone" not in text
        assert PASSWORD not in text


async def test_a_callers_client_that_cannot_connect_is_a_typed_error() -> None:
    client = redis_py.Redis(port=free_port(), password=PASSWORD)
    with pytest.raises(StoreUnavailableError) as caught:
        await RedisStore.from_client(client).append(KEY, [said("a")])
    assert PASSWORD not in shown(caught.value)
    await client.aclose()


async def test_a_server_that_says_nothing_is_given_up_after_the_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="no answer in time"):
        await open_store(f"redis://127.0.0.1:{port}", timeout=0.3).open()
    assert time.monotonic() - begun < 3
    listening.close()


async def test_a_server_that_falls_silent_under_a_call_is_given_up_after_the_timeout(
    server: Server, admin: redis_py.Redis, fresh_prefix: str
) -> None:
    async with open_store(f"redis://127.0.0.1:{server.port}?prefix={fresh_prefix}", timeout=1, retries=0) as store:
        await store.append(KEY, [said("a")])
        await admin.client_pause(2500)
        with pytest.raises(OutcomeUnknownError, match="no answer in"):
            await store.append(KEY, [said("b")], append_id="b")
        await admin.ping()  # answered when the pause is over
        assert (await store.append(KEY, [said("b")], append_id="b")).first_seq == 1
        assert len(await texts(store)) == 2


async def test_a_wrong_or_missing_password_is_a_configuration_error_that_does_not_show_it() -> None:
    with redis_server("redis", "--requirepass", PASSWORD) as locked:
        wrong = f"redis://:{quote(PASSWORD + 'x', safe='')}@127.0.0.1:{locked.port}"
        for url, why in ((wrong, "refused the user name"), (f"redis://127.0.0.1:{locked.port}", "wants a password")):
            with pytest.raises(ConfigurationError, match=why) as caught:
                await open_store(url).open()
            assert PASSWORD not in shown(caught.value)
        async with open_store(f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{locked.port}") as store:
            await store.append(KEY, [said("a")])


async def test_a_user_without_the_rights_is_told_so(server: Server, admin: redis_py.Redis) -> None:
    await admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "-@all", "+get", "+hello", "+evalsha")
    with pytest.raises(ConfigurationError, match="does not allow this user"):
        await open_store(f"redis://reader:pw@127.0.0.1:{server.port}").append(KEY, [said("a")])


async def test_a_server_without_memory_writes_nothing_and_is_told_so(store: Store, admin: redis_py.Redis) -> None:
    await store.append(KEY, [said("a")])
    await admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailableError, match="memory") as caught:
            await store.append(KEY, [said("b")])
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert await texts(store) == [said("a").payload]
    finally:
        await admin.config_set("maxmemory", 0)
    assert await store.append(KEY, [said("b")]) == Appended(1, 2)


async def test_a_replica_takes_no_writes_until_it_is_made_the_primary(store: Store, admin: redis_py.Redis) -> None:
    await store.append(KEY, [said("a")])
    await admin.replicaof("127.0.0.1", free_port())
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.append(KEY, [said("b")])
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert "replica" in str(caught.value)
        waiting = asyncio.create_task(store.append(KEY, [said("b")]))
        await asyncio.sleep(0)
    finally:
        await admin.replicaof("NO", "ONE")
    assert await waiting == Appended(1, 2)


async def test_a_server_that_is_too_old_is_refused() -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            for _ in range(data.count(b"SETINFO")):
                writer.write(b"-ERR unknown subcommand\r\n")
            if b"HELLO" in data:
                writer.write(b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n")
                break
        writer.close()

    listening = await asyncio.start_server(old, "127.0.0.1", 0)
    with pytest.raises(UnsupportedError, match=r"6\.0\.16"):
        await open_store(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}").open()
    listening.close()


@pytest.mark.parametrize(
    "wrong",
    [
        "redis://localhost:notaport",
        "redis://localhost?unknown_option=1",
        "redis://localhost?prefix=a{b",
        "redis://localhost?prefix=a@b",
        "redis://localhost?prefix=",
        "redis://localhost?timeout=0",
        "redis://localhost?timeout=x",
        "redis://localhost?retries=-1",
        "redis://localhost?db=x",
    ],
)
async def test_a_url_that_is_wrong_is_a_configuration_error(wrong: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(wrong)


async def test_a_malformed_url_does_not_show_its_password() -> None:
    for url in (f"redis://user:{PASSWORD}@localhost:port", f"redis://user:{PASSWORD}@localhost?unknown=1"):
        with pytest.raises(ConfigurationError) as caught:
            open_store(url)
        assert "s3cret" not in shown(caught.value)
