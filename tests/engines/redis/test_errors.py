"""Errors of wrong URLs, and of Redis servers that are unreachable, silent or refuse."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
import redis.asyncio as redis_py

from everthread import (
    Appended,
    ConfigurationError,
    CorruptRecordError,
    EverthreadError,
    OutcomeUnknownError,
    Store,
    StoreUnavailableError,
    UnsupportedError,
    open_store,
)
from everthread.engines.redis.errors import ServerError, refused
from tests.engines.redis.turns import KEY, said, texts
from tests.servers import Server, free_port, redis_server

PASSWORD = "s3cret/päss:w@rd"


def shown(error: BaseException) -> str:
    return f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"


async def test_an_unreachable_server_is_named_with_advice() -> None:
    port = free_port()
    store = open_store(f"redis://someone:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/2")
    with pytest.raises(StoreUnavailableError) as caught:
        await store.open()
    for part in (f"127.0.0.1:{port}", "database 2", "firewall", "6380", "rediss://"):
        assert part in str(caught.value)
    assert PASSWORD not in shown(caught.value)
    assert quote(PASSWORD, safe="") not in shown(caught.value)
    for text in (repr(store), store.location):
        assert "someone" not in text
        assert PASSWORD not in text


async def test_a_silent_server_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with pytest.raises(StoreUnavailableError, match="no answer in time"):
        await open_store(f"redis://127.0.0.1:{port}", timeout=0.3).open()
    listening.close()


async def test_a_server_that_becomes_silent_times_out(server: Server, admin: redis_py.Redis, fresh_prefix: str) -> None:
    async with open_store(f"redis://127.0.0.1:{server.port}?prefix={fresh_prefix}", timeout=1, retries=0) as store:
        await store.append(KEY, [said("a")])
        await admin.client_pause(2500)
        with pytest.raises(OutcomeUnknownError, match="no answer in"):
            await store.append(KEY, [said("b")], append_id="b")
        await admin.ping()  # answered when the pause is over
        assert (await store.append(KEY, [said("b")], append_id="b")).first_seq == 1
        assert len(await texts(store)) == 2


async def test_a_wrong_or_missing_password_is_a_configuration_error() -> None:
    with redis_server("redis", "--requirepass", PASSWORD) as locked:
        wrong = f"redis://:{quote(PASSWORD + 'x', safe='')}@127.0.0.1:{locked.port}"
        for url, why in ((wrong, "refused the user name"), (f"redis://127.0.0.1:{locked.port}", "wants a password")):
            with pytest.raises(ConfigurationError, match=why) as caught:
                await open_store(url).open()
            assert PASSWORD not in shown(caught.value)
        async with open_store(f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{locked.port}") as store:
            await store.append(KEY, [said("a")])


async def test_missing_rights_are_a_configuration_error(server: Server, admin: redis_py.Redis) -> None:
    await admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "-@all", "+get", "+hello", "+evalsha")
    with pytest.raises(ConfigurationError, match="does not allow this user"):
        await open_store(f"redis://reader:pw@127.0.0.1:{server.port}").append(KEY, [said("a")])


async def test_a_server_without_memory_writes_nothing(store: Store, admin: redis_py.Redis) -> None:
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


async def test_writes_wait_until_a_replica_is_promoted(store: Store, admin: redis_py.Redis) -> None:
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


async def test_a_server_without_enough_replicas_is_a_transient_error(store: Store, admin: redis_py.Redis) -> None:
    await admin.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(StoreUnavailableError, match="too few replicas") as caught:
            await store.append(KEY, [said("a")])
        assert not isinstance(caught.value, OutcomeUnknownError)
    finally:
        await admin.config_set("min-replicas-to-write", 0)
    assert await store.append(KEY, [said("a")]) == Appended(0, 1)


async def test_a_server_busy_with_a_script_is_a_transient_error(url: str, admin: redis_py.Redis) -> None:
    await admin.config_set("busy-reply-threshold", 1)
    async with redis_py.Redis.from_url(url.partition("?")[0]) as hog, open_store(url, retries=0) as store:
        running = asyncio.ensure_future(hog.eval("while true do end", 0))

        async def until_refused() -> None:
            while True:
                await store.append(KEY, [said("a")])

        with pytest.raises(StoreUnavailableError, match="busy") as caught:
            await until_refused()
        assert not isinstance(caught.value, OutcomeUnknownError)
        await admin.script_kill()
        with pytest.raises(redis_py.ResponseError):
            await running
        await store.append(KEY, [said("a")])


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreUnavailableError),
        ("MISCONF Errors writing to the AOF file: No space left on device", StoreUnavailableError),
        ("NOREPLICAS Not enough good replicas to write.", StoreUnavailableError),
        ("READONLY You can't write against a read only replica.", StoreUnavailableError),
        ("LOADING Redis is loading the dataset in memory", StoreUnavailableError),
        ("MASTERDOWN Link with MASTER is down", StoreUnavailableError),
        ("CLUSTERDOWN The cluster is down", StoreUnavailableError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", StoreUnavailableError),
        ("BUSY Redis is busy running a script.", StoreUnavailableError),
        ("UNBLOCKED force unblock from blocking operation", StoreUnavailableError),
        ("NOPERM User acme has no permissions to run the 'evalsha' command", ConfigurationError),
        ("NOAUTH Authentication required.", ConfigurationError),
        ("WRONGPASS invalid username-password pair or user is disabled.", ConfigurationError),
        ("CROSSSLOT Keys in request don't hash to the same slot", ConfigurationError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", CorruptRecordError),
        ("ERR unknown command 'EVALSHA', with args beginning with:", UnsupportedError),
    ],
)
def test_each_error_reply_has_its_class(reply: str, kind: type[EverthreadError]) -> None:
    assert type(refused("Redis", ServerError(reply))) is kind


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
        "redis+sentinel://localhost",
        "redis+sentinel:///name",
        "redis+cluster://localhost/3",
        "redis+cluster://localhost:notaport",
        "redis+cluster://a,,b",
        "redis+cluster://localhost?failover_timeout=0",
        "redis://localhost?wait_replicas=-1",
        "redis://localhost?wait_replicas=1&wait_timeout=0",
        "redis://localhost?wait_replicas=1&wait_timeout=6000",
        "redis://localhost?auth=kerberos",
    ],
)
async def test_a_wrong_url_is_a_configuration_error(wrong: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(wrong)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ("redis://localhost/abc", "database"),
        ("redis://localhost/-1", "database"),
        ("redis://localhost/1/2", "database"),
        ("redis://localhost?db=-1", "database"),
        ("redis://localhost?db=", "database"),
        ("redis://localhost/1?db=1", "path and as db"),
        ("redis+sentinel://localhost/name/abc", "database"),
        ("redis+cluster://localhost/abc", "database"),
        ("unix:///run/redis.sock?db=a", "database"),
        ("redis://localhost:99999", "port"),
        ("redis://localhost?timeout_ms=1", "timeout_ms"),
        ("redis://localhost?socket_timeout=abc", "socket_timeout"),
        ("redis://localhost?db=1&db=2", "db is given twice"),
        ("redis://localhost?credential_provider=x", "credential_provider takes a Python object"),
        ("rediss+cluster://localhost?retry=x", "retry takes a Python object"),
        ("redis://localhost/0#1", "#"),
    ],
)
async def test_an_error_names_the_wrong_part_of_a_url(wrong: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        open_store(wrong)
