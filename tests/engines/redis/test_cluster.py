"""A Redis cluster: threads on several servers, redirections, and slots that move."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import hiredis
import pytest
import redis as redis_py

from everthread import (
    Appended,
    ConfigurationError,
    Store,
    ThreadKey,
    open_store,
)
from everthread.engines.redis.keys import ThreadNames, slot_of
from everthread.model import NewMessage
from tests.engines.redis.turns import KEY, said, texts
from tests.redis_topologies import (
    Cluster,
    ask,
    cluster_of_one,
    eventually,
    is_up,
    keys_on,
    send,
    soon,
    soon_or_late,
)
from tests.servers import Server, free_port

pytestmark = pytest.mark.slow


async def test_a_tenants_threads_on_all_servers_are_listed_together(cluster: Cluster, fresh_prefix: str) -> None:
    keys = [ThreadKey(f"t{i}", "tenant") for i in range(60)]
    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        await asyncio.gather(*(store.append(key, [said("a")]) for key in keys))
        page = await store.list_threads("tenant", limit=100)
        assert {thread.key for thread in page} == set(keys)
        updated = [thread.updated_ms for thread in page]
        assert updated == sorted(updated, reverse=True)
    owners = Counter(cluster.owner(ThreadNames(fresh_prefix, key, spread=True).slot).port for key in keys)
    assert len(owners) == 3


async def test_an_append_does_not_wait_for_the_index(cluster: Cluster, fresh_prefix: str) -> None:
    server = cluster.primaries()[0]
    key = keys_on(cluster, fresh_prefix, server, 1)[0]
    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        await store.append(key, [said("a")])
        await store.list_threads()
        index = cluster.owner(slot_of(ThreadNames(fresh_prefix, key).index))
        stats = _calls(server, "evalsha"), _calls(index, "evalsha")
        await store.append(key, [said("b")])
        await store.list_threads()
        more = _calls(server, "evalsha") - stats[0], _calls(index, "evalsha") - stats[1]
    # The append, the listing's look at the thread, the index's note and the listing.
    assert sum(more) == (8 if server is index else 4)


def _calls(server: Server, command: str) -> int:
    with redis_py.Redis(port=server.port) as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_another_store_lists_a_thread_soon_after_its_append(cluster: Cluster, fresh_prefix: str) -> None:
    async with (
        open_store(cluster.url, prefix=fresh_prefix) as store,
        open_store(cluster.url, prefix=fresh_prefix) as other,
    ):
        await store.append(KEY, [said("a")])

        async def is_listed() -> bool:
            return len(await other.list_threads()) == 1

        await soon(is_listed)
        await store.delete_thread(KEY)
        await store.append(KEY, [said("b")])
        await store.list_threads()
        assert len(await other.list_threads()) == 1


async def test_appends_do_not_wait_for_an_unreachable_index(cluster: Cluster, fresh_prefix: str) -> None:
    victim = cluster.owner(slot_of(ThreadNames(fresh_prefix, KEY).index))
    elsewhere = next(server for server in cluster.primaries() if server is not victim)
    keys = keys_on(cluster, fresh_prefix, elsewhere, 5)
    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        await store.append(keys[0], [said("a")])
        send(signal.SIGSTOP)(victim)
        begun = time.monotonic()
        try:
            for key in keys:
                await store.append(key, [said("b")])
            assert time.monotonic() - begun < 1.5, "the index was waited for"
        finally:
            send(signal.SIGCONT)(victim)
        assert {thread.key for thread in await store.list_threads()} == set(keys)
    await asyncio.to_thread(eventually, cluster.is_whole)


def move_slot(
    slot: int,
    source: Server,
    target: Server,
    during: Callable[[], object] = lambda: None,
    at_the_end: Callable[[], object] = lambda: None,
) -> None:
    """Moves a slot and its keys one by one, as resharding does."""
    to, of = str(ask(target.port, "CLUSTER", "MYID")), str(ask(source.port, "CLUSTER", "MYID"))
    ask(target.port, "CLUSTER", "SETSLOT", str(slot), "IMPORTING", of)
    ask(source.port, "CLUSTER", "SETSLOT", str(slot), "MIGRATING", to)
    during()
    with redis_py.Redis(port=source.port) as client:
        while names := client.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
            client.execute_command("MIGRATE", "127.0.0.1", target.port, names[0], 0, 5000)
    at_the_end()
    for server in (target, source):
        ask(server.port, "CLUSTER", "SETSLOT", str(slot), "NODE", to)


async def test_appends_land_once_and_in_order_while_their_slot_moves(cluster: Cluster, fresh_prefix: str) -> None:
    names = ThreadNames(fresh_prefix, KEY, spread=True)
    home = cluster.owner(names.slot)
    away = next(server for server in cluster.primaries() if server is not home)
    sent: list[bytes] = []
    moving = False

    async def write(store: Store) -> None:
        while moving or not sent:
            turn = [said(f"{len(sent) + i}") for i in range(20)]
            sent.extend(message.payload for message in turn)
            await asyncio.gather(*(store.append(KEY, [message]) for message in turn))

    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        for source, target in ((home, away), (away, home)) * 3:
            moving = True
            writing = asyncio.create_task(write(store))
            await asyncio.to_thread(move_slot, names.slot, source, target)
            moving = False
            await writing
            assert len(sent) == len(await texts(store))
        assert await texts(store) == sent


@dataclass
class Scripted:
    """A server of a cluster that answers as the test says; signing in and the slots it answers by itself."""

    port: int = 0
    seen: list[list[bytes]] = field(default_factory=list)
    writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = hiredis.Reader()
        own = {
            b"HELLO": b"*2\r\n$7\r\nversion\r\n$3\r\n7.2\r\n",
            b"PING": b"+PONG\r\n",
            b"CLIENT": b"+OK\r\n",
            b"CLUSTER": b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % self.port,
        }
        while data := await reader.read(1 << 16):
            requests.feed(data)
            while (command := requests.gets()) is not False:
                if command[0] in own:
                    writer.write(own[command[0]])
                else:
                    self.writer = writer
                    self.seen.append(command)
        writer.close()

    def answer(self, *replies: bytes) -> None:
        assert self.writer is not None
        self.writer.write(b"".join(reply + b"\r\n" for reply in replies))

    def names(self) -> list[bytes]:
        return [command[0] for command in self.seen]


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    server = Scripted()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


async def test_redirected_appends_keep_their_order() -> None:
    async with scripted() as old, scripted() as new, open_store(f"redis+cluster://127.0.0.1:{old.port}") as store:
        moved = b"-MOVED %d 127.0.0.1:%d" % (ThreadNames("chat_messages", KEY, spread=True).slot, new.port)
        appends = [asyncio.create_task(store.append(KEY, [said(text)])) for text in ("a", "b", "c")]
        await soon_or_late(lambda: old.names() == [b"EVALSHA"])
        old.answer(moved)
        await soon_or_late(lambda: new.names() == [b"EVALSHA"])
        appends.append(asyncio.create_task(store.append(KEY, [said("d")])))
        new.answer(b"*4\r\n:0\r\n:0\r\n:1\r\n:0")
        # What waited goes together, so that no other client's command comes in between.
        await soon_or_late(lambda: new.names() == [b"EVALSHA", b"MULTI", *[b"EVALSHA"] * 3, b"EXEC"])
        assert old.names() == [b"EVALSHA"]
        sent = [command for command in new.seen if command[0] == b"EVALSHA"]
        assert [said(text).payload in command for text, command in zip("abcd", sent, strict=True)] == [True] * 4
        rest = b"".join(b"*4\r\n:0\r\n:%d\r\n:%d\r\n:0\r\n" % (seq, seq + 1) for seq in (1, 2, 3))
        new.answer(b"+OK", *[b"+QUEUED"] * 3, b"*3\r\n" + rest.rstrip())
        assert [(await append).first_seq for append in appends] == [0, 1, 2, 3]


async def test_a_new_thread_waits_until_its_slot_has_moved(cluster: Cluster, fresh_prefix: str) -> None:
    names = ThreadNames(fresh_prefix, KEY, spread=True)
    home = cluster.owner(names.slot)
    away = next(server for server in cluster.primaries() if server is not home)
    loop = asyncio.get_running_loop()
    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        waiting: list[asyncio.Future[object]] = []

        async def begin() -> None:
            # Neither server takes a script on several keys that are not there while their slot is moving.
            waiting.append(asyncio.ensure_future(store.append(KEY, [said("a")])))
            waiting.append(asyncio.ensure_future(store.read(KEY)))
            done, _ = await asyncio.wait(waiting, timeout=0.5)
            assert not done

        move = asyncio.run_coroutine_threadsafe
        await asyncio.to_thread(move_slot, names.slot, home, away, lambda: move(begin(), loop).result(30))
        assert await waiting[0] == Appended(0, 1)
        await waiting[1]
        await asyncio.to_thread(move_slot, names.slot, away, home)
        assert await store.append(KEY, [said("b")]) == Appended(1, 2)


async def test_a_moved_thread_is_served_before_its_slot_has_moved(cluster: Cluster, fresh_prefix: str) -> None:
    names = ThreadNames(fresh_prefix, KEY, spread=True)
    home = cluster.owner(names.slot)
    away = next(server for server in cluster.primaries() if server is not home)
    loop = asyncio.get_running_loop()
    async with open_store(cluster.url, prefix=fresh_prefix) as store:
        for _ in range(50):  # so many holes that they lie in a key of their own
            undone = await store.append(KEY, [said("a"), said("undone")])
            await store.truncate(KEY, stop=undone.first_seq + 1)
        await asyncio.gather(*(store.append(KEY, [said("a")]) for _ in range(1001)))  # the second half of the ids
        await store.append(KEY, [NewMessage(b"1", "json", ("c", "open"), ()), NewMessage(b"2", "json", (), ("c",))])
        await store.put_document(KEY, "d", b"1")
        owner = ask(home.port, "EXISTS", *(name.decode() for name in names.names))
        assert owner == 9

        async def go_on() -> None:
            async with asyncio.timeout(20):
                results = await asyncio.gather(*(store.append(KEY, [said("b")]) for _ in range(10)))
                assert [result.first_seq for result in results] == list(range(1103, 1113))
                assert len(await store.read(KEY)) == 1063
                assert len(await store.read(KEY, start=1000, limit=5)) == 5

        move = asyncio.run_coroutine_threadsafe
        await asyncio.to_thread(move_slot, names.slot, home, away, at_the_end=lambda: move(go_on(), loop).result(30))
        assert await store.append(KEY, [said("c")]) == Appended(1113, 1114)
        await asyncio.to_thread(move_slot, names.slot, away, home)


async def test_one_seed_that_answers_is_enough(cluster: Cluster, fresh_prefix: str) -> None:
    alive = cluster.primaries()[0].port
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{alive}?prefix={fresh_prefix}"
    async with open_store(url) as store:
        await store.append(KEY, [said("a")])
        assert store.location == url


async def test_one_address_of_a_cluster_needs_spread() -> None:
    with cluster_of_one() as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        with pytest.raises(ConfigurationError, match="spread=true"):
            await open_store(url).append(KEY, [said("a")])
        async with open_store(f"{url}?spread=true") as store:
            assert store.location == f"{url}?spread=true"
            keys = [ThreadKey(f"t{i}") for i in range(20)]
            await asyncio.gather(*(store.append(key, [said(str(i))]) for i in range(5) for key in keys))
            assert [await texts(store, key) for key in keys] == [[said(str(i)).payload for i in range(5)]] * 20
            assert {thread.key for thread in await store.list_threads()} == set(keys)
            server.restart()
            await asyncio.to_thread(eventually, lambda: is_up(server))
            assert await store.append(keys[0], [said("b")]) == Appended(5, 6)
            assert await store.delete_tenant("") == 20
