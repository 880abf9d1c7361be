"""The connection to a Redis server: shared, broken, encrypted."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import redis.asyncio as redis_py

from everthread import (
    Appended,
    ConfigurationError,
    OutcomeUnknownError,
    Retention,
    Store,
    StoreUnavailableError,
    ThreadKey,
    open_store,
)
from everthread.engines.redis import RedisStore
from everthread.engines.redis.scripts import APPEND
from tests.engines.redis.fronts import front, make_certificate, once
from tests.engines.redis.turns import KEY, said, texts
from tests.servers import Server, answers_ping, free_port, redis_server


class Commands:
    """Records the commands of clients while it is open, without those of scripts."""

    def __init__(self, admin: redis_py.Redis) -> None:
        self._monitor = admin.monitor()
        self._admin = admin

    async def __aenter__(self) -> Commands:
        await self._monitor.__aenter__()
        await self.so_far()  # the connection that asks has been made by then
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._monitor.__aexit__(*error)

    async def so_far(self) -> list[str]:
        await self._admin.echo("end of the list")
        names: list[str] = []
        while True:
            seen = await self._monitor.next_command()
            if seen["client_type"] != "lua":
                names.append(seen["command"].split(" ")[0].upper())
                if names[-1] == "ECHO":
                    return names[:-1]


ROUND_TRIPS: dict[str, tuple[Callable[[Store], Awaitable[object]], list[str]]] = {
    "append": (
        lambda store: store.append(KEY, [said("a")] * 2, append_id="1", retention=Retention(max_messages=2)),
        ["EVALSHA"],
    ),
    "read by position": (lambda store: store.read(KEY, start=1, limit=5), ["EVALSHA"]),
    "read the last": (
        lambda store: store.read_last(KEY, 2),
        ["MULTI", "HMGET", "LLEN", "LRANGE", "LRANGE", "EXEC"],
    ),
    "get a thread": (lambda store: store.get_thread(KEY), ["EVALSHA"]),
    "list threads": (lambda store: store.list_threads(limit=10), ["EVALSHA", "EVALSHA"]),
}


@pytest.mark.parametrize("operation", ROUND_TRIPS)
async def test_each_operation_sends_exactly_these_commands(store: Store, admin: redis_py.Redis, operation: str) -> None:
    run, wanted = ROUND_TRIPS[operation]
    await store.append(KEY, [said("first")])
    await run(store)  # makes the server remember the scripts
    async with Commands(admin) as commands:
        await run(store)
        assert await commands.so_far() == wanted


async def test_flushed_scripts_are_sent_again_in_order(store: Store, admin: redis_py.Redis) -> None:
    await store.append(KEY, [said("first")])
    for round_number in range(5):
        await admin.script_flush()
        results = await asyncio.gather(*(store.append(KEY, [said(f"{round_number} {i}")]) for i in range(20)))
        assert [result.first_seq for result in results] == list(range(1 + 20 * round_number, 21 + 20 * round_number))
    wanted = [said(f"{round_number} {i}").payload for round_number in range(5) for i in range(20)]
    assert (await texts(store))[1:] == wanted


@pytest.mark.parametrize("with_own_client", [False, True])
async def test_appends_keep_their_order_while_scripts_are_flushed(
    server: Server, store: Store, admin: redis_py.Redis, fresh_prefix: str, with_own_client: bool
) -> None:
    async def repeat(command: Callable[[], Awaitable[object]]) -> None:
        for _ in range(100):
            await command()

    appends: list[asyncio.Task[Appended]] = []
    async with redis_py.Redis(port=server.port) as client, redis_py.Redis(port=server.port) as other:
        own = RedisStore.from_client(client, prefix=fresh_prefix)
        writer = own if with_own_client else store
        # Another client loads the script again, so that the server knows it by the time later appends come.
        commands = (admin.script_flush, partial(other.script_load, APPEND.source.decode()))
        disturbing = [asyncio.create_task(repeat(command)) for command in commands]
        for i in range(600):
            appends.append(asyncio.create_task(writer.append(KEY, [said(str(i))])))
            if i % 5 == 0:
                await asyncio.sleep(0)
        results = await asyncio.gather(*appends)
        await asyncio.gather(*disturbing)
        await own.aclose()
    assert [result.first_seq for result in results] == list(range(600))
    assert await texts(store) == [said(str(i)).payload for i in range(600)]


async def test_appends_land_once_and_in_order_over_cut_connections(store: Store, admin: redis_py.Redis) -> None:
    cuts, writes_go_on = 0, asyncio.Event()

    async def cut() -> None:
        nonlocal cuts
        me = await admin.client_id()
        while await writes_go_on.wait():
            writes_go_on.clear()
            for client in await admin.client_list():
                if int(client["id"]) != me:
                    cuts += await admin.client_kill_filter(_id=client["id"])

    cutting = asyncio.create_task(cut())
    for i in range(40):
        await asyncio.gather(*(store.append(KEY, [said(f"{i} {j}")]) for j in range(25)))
        writes_go_on.set()
    cutting.cancel()
    assert cuts > 1
    assert await texts(store) == [said(f"{i} {j}").payload for i in range(40) for j in range(25)]


async def test_an_append_with_a_lost_answer_lands_once(server: Server, fresh_prefix: str) -> None:
    async with front(server.port, once(b"lost-turn")) as lossy:  # noqa: SIM117
        async with open_store(f"redis://127.0.0.1:{lossy.port}?prefix={fresh_prefix}") as store:
            assert await store.append(KEY, [said("before")]) == Appended(0, 1)
            again = await store.append(KEY, [said("lost-turn")])
            assert (again.first_seq, again.replayed) == (1, True)
            assert lossy.lost == 1
            assert lossy.connections == 2
            assert await texts(store) == [said("before").payload, said("lost-turn").payload]


async def test_other_writes_with_a_lost_answer_are_not_repeated(server: Server, fresh_prefix: str) -> None:
    async with front(server.port, once(b"lost-title")) as lossy:  # noqa: SIM117
        async with open_store(f"redis://127.0.0.1:{lossy.port}?prefix={fresh_prefix}") as store:
            await store.append(KEY, [said("a")])
            await store.update_thread(KEY, title="before")
            with pytest.raises(OutcomeUnknownError):
                await store.update_thread(KEY, title="lost-title")
            thread = await store.get_thread(KEY)
            assert thread is not None
            assert (thread.title, thread.revision) == ("lost-title", 2)


async def test_an_append_without_an_answer_has_an_unknown_outcome(server: Server, fresh_prefix: str) -> None:
    async with front(server.port, lambda data: b"lost-turn" in data) as lossy:
        url = f"redis://127.0.0.1:{lossy.port}?prefix={fresh_prefix}&retries=2"
        async with open_store(url) as store:
            with pytest.raises(OutcomeUnknownError):
                await store.append(KEY, [said("lost-turn")], append_id="x")
            assert lossy.lost == 3
            assert await texts(store) == [said("lost-turn").payload]


async def test_a_killed_server_keeps_each_acknowledged_append_once(server: Server, url: str) -> None:
    acknowledged: list[bytes] = []

    async def write(store: Store, writer: int) -> None:
        for i in range(60):
            message = said(f"{writer} {i}")
            try:
                await store.append(KEY, [message], append_id=f"{writer} {i}")
            except StoreUnavailableError:
                continue
            acknowledged.append(message.payload)

    async with open_store(url) as store:
        await store.append(KEY, [said("first")])
        writing = asyncio.gather(*(write(store, writer) for writer in range(8)))
        while len(acknowledged) < 30:
            await asyncio.sleep(0.001)
        server.kill()
        await asyncio.to_thread(server.start)
        await writing
        kept = await texts(store)
    assert len(set(kept)) == len(kept)
    assert set(acknowledged) <= set(kept)


async def test_a_store_survives_restarts_between_calls(server: Server, url: str) -> None:
    async with open_store(url) as store:
        for i in range(3):
            assert await store.append(KEY, [said(str(i))]) == Appended(i, i + 1)
            server.restart()
        assert len(await texts(store)) == 3


async def test_cancelling_callers_leaves_the_others_their_own_answers(store: Store) -> None:
    keys = [ThreadKey(str(i)) for i in range(40)]
    for _ in range(10):
        calls = [asyncio.create_task(store.append(key, [said(key.thread_id)])) for key in keys]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        pages = await asyncio.gather(*(store.read(key) for key in keys))
        for key, page in zip(keys, pages, strict=True):
            assert {message.payload for message in page} <= {said(key.thread_id).payload}
    assert len(await store.read(keys[1])) == 10


# URLs


async def test_databases_are_separate(server: Server, fresh_prefix: str) -> None:
    urls = [f"redis://127.0.0.1:{server.port}/{n}?prefix={fresh_prefix}" for n in (0, 5)]
    async with open_store(urls[0]) as here, open_store(urls[1]) as there:
        await here.append(KEY, [said("a")])
        assert await there.get_thread(KEY) is None
        assert urls[1].split("?")[0] in there.location


async def test_a_unix_socket_works(tmp_path: Path) -> None:
    path = tmp_path / "redis socket"
    with redis_server("redis", "--unixsocket", str(path)):
        async with open_store(f"unix://{quote(str(path))}?db=2") as store:
            assert await store.append(KEY, [said("a")]) == Appended(0, 1)
            assert str(path) in store.location


@pytest.fixture(params=["front", "server"])
async def tls_port(
    request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server
) -> AsyncIterator[tuple[int, Path]]:
    """Something that speaks TLS: in front of a server from a wheel, and Debian's server, which has it built in."""
    certificate, key = make_certificate(tmp_path)
    if request.param == "front":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        async with front(plain_redis_server.port, tls=context) as encrypting:
            yield encrypting.port, certificate
        return
    binary = shutil.which("redis-server")
    if binary is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no redis-server with TLS: apt-get install redis-server")
    port = free_port()
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    command = [binary, "--bind", "127.0.0.1", "--save", "", "--tls-auth-clients", "no", *map(str, files)]
    plain = free_port()
    running = Server([*command, "--port", str(plain), "--tls-port", str(port)], plain, tmp_path, answers_ping)
    running.start()
    try:
        yield port, certificate
    finally:
        running.stop()


async def test_tls_works_and_checks_certificates(tls_port: tuple[int, Path], fresh_prefix: str) -> None:
    port, certificate = tls_port
    trusting = f"rediss://127.0.0.1:{port}?ssl_ca_certs={quote(str(certificate))}&prefix={fresh_prefix}"
    big = said("x" * 300_000)
    async with open_store(trusting) as store:
        assert store.location.startswith("rediss://")
        await asyncio.gather(*(store.append(KEY, [big]) for _ in range(20)))
        assert await texts(store) == [big.payload] * 20
    async with open_store(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none&prefix={fresh_prefix}") as unchecking:
        assert len(await unchecking.read(KEY)) == 20
    with pytest.raises(StoreUnavailableError):
        await open_store(f"rediss://127.0.0.1:{port}").open()
    with pytest.raises(StoreUnavailableError, match="rediss://"):
        await open_store(f"redis://127.0.0.1:{port}", timeout=1).open()


# A caller's own client


@pytest.mark.parametrize("decode_responses", [False, True])
async def test_a_callers_client_stays_open(server: Server, fresh_prefix: str, decode_responses: bool) -> None:
    client = redis_py.Redis(port=server.port, decode_responses=decode_responses)
    async with RedisStore.from_client(client, prefix=fresh_prefix) as store:
        await client.script_flush()
        results = await asyncio.gather(*(store.append(KEY, [said(f"é{i}")]) for i in range(30)))
        assert [result.first_seq for result in results] == list(range(30))
        assert await texts(store) == [said(f"é{i}").payload for i in range(30)]
        assert [m.seq for m in await store.read(KEY, start=28)] == [28, 29]
        await store.put_document(KEY, "d", b'{"a":"\xc3\xa9"}')
        document = await store.get_document(KEY, "d")
        assert document is not None
        assert document.value == b'{"a":"\xc3\xa9"}'
        assert len(await store.list_threads()) == 1
        assert await store.delete_thread(KEY)
    assert await client.ping()
    await client.aclose()


async def test_from_client_refuses_another_object() -> None:
    with pytest.raises(ConfigurationError):
        RedisStore.from_client("redis://localhost")
