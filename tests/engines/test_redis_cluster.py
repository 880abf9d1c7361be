"""A Redis cluster: where threads and the index of a tenant lie, what an index lacks, and slots that move."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hiredis
import pytest
import redis as redis_py

from everthread import (
    Appended,
    ConfigurationError,
    Store,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.contract import SupportsReconciling
from everthread.engines.redis._keys import ThreadNames, slot_of
from everthread.engines.redis._recency import Recency
from everthread.engines.redis._scripts import Script
from everthread.model import NewMessage
from tests.cli.driving import PROGRAM, piped
from tests.engines.redis_fronts import front, once
from tests.redis_topologies import (
    Cluster,
    ask,
    cluster_of_one,
    eventually,
    is_up,
    keys_on,
    redis_cluster,
    send,
    soon,
    soon_or_late,
)
from tests.servers import Server, free_port

KEY = ThreadKey("conversation")
_prefixes = itertools.count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with redis_cluster("redis") as found:
        yield found


@pytest.fixture
def prefix() -> str:
    return f"cluster{next(_prefixes)}"


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


async def texts(store: Store, key: ThreadKey = KEY) -> list[bytes]:
    return [message.payload for message in await store.read(key)]


async def test_the_threads_of_a_tenant_lie_on_all_servers_and_are_listed_together(
    cluster: Cluster, prefix: str
) -> None:
    keys = [ThreadKey(f"t{i}", "tenant") for i in range(60)]
    async with open_store(cluster.url, prefix=prefix) as store:
        await asyncio.gather(*(store.append(key, [said("a")]) for key in keys))
        page = await store.list_threads("tenant", limit=100)
        assert {thread.key for thread in page} == set(keys)
        updated = [thread.updated_ms for thread in page]
        assert updated == sorted(updated, reverse=True)
    owners = Counter(cluster.owner(ThreadNames(prefix, key, spread=True).slot).port for key in keys)
    assert len(owners) == 3


async def test_an_append_is_one_command_and_the_index_another_that_it_does_not_wait_for(
    cluster: Cluster, prefix: str
) -> None:
    server = cluster.primaries()[0]
    key = keys_on(cluster, prefix, server, 1)[0]
    async with open_store(cluster.url, prefix=prefix) as store:
        await store.append(key, [said("a")])
        await store.list_threads()
        index = cluster.owner(slot_of(ThreadNames(prefix, key).index))
        stats = _calls(server, "evalsha"), _calls(index, "evalsha")
        await store.append(key, [said("b")])
        await store.list_threads()
        more = _calls(server, "evalsha") - stats[0], _calls(index, "evalsha") - stats[1]
    # The append, the listing's look at the thread, the index's note and the listing.
    assert sum(more) == (8 if server is index else 4)


def _calls(server: Server, command: str) -> int:
    with redis_py.Redis(port=server.port) as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_an_index_that_was_lost_is_mended_by_the_threads_next_activity(cluster: Cluster, prefix: str) -> None:
    index = ThreadNames(prefix, KEY).index
    async with open_store(cluster.url, prefix=prefix) as store:
        await store.append(KEY, [said("a")], append_id="a")
        assert len(await store.list_threads()) == 1
        ask(cluster.owner(slot_of(index)).port, "DEL", index.decode())
        assert len(await store.list_threads()) == 0
        assert (await store.append(KEY, [said("a")], append_id="a")).replayed
        assert len(await store.list_threads()) == 1


async def test_what_the_index_lists_and_is_not_there_is_taken_out_by_a_listing(cluster: Cluster, prefix: str) -> None:
    index = ThreadNames(prefix, KEY).index
    server = cluster.owner(slot_of(index))
    async with open_store(cluster.url, prefix=prefix) as store:
        await store.append(KEY, [said("a")])
        await store.list_threads()
        ask(server.port, "ZADD", index.decode(), "5", "never was")
        assert [thread.key for thread in await store.list_threads()] == [KEY]
        await store.list_threads()
        assert ask(server.port, "ZCARD", index.decode()) == 1


DYING = """
import asyncio, sys
from datetime import UTC, datetime
from everthread import ThreadKey, new_message, open_store

async def main(url, thread_id, last_deed):
    async with open_store(url) as store:
        key = ThreadKey(thread_id)
        if last_deed == "append":
            await store.append(key, [new_message({"role": "user", "content": "last words"})])
        elif last_deed == "document":
            await store.put_document(key, "d", b"1")
        elif last_deed == "restore":
            await store.restore_times(key, created_at=datetime(2020, 1, 1), updated_at=datetime(2020, 1, 2))
        else:
            await store.delete_thread(key)
        print("done", flush=True)
        sys.stdin.readline()  # nothing else of this process gets its turn, so no note is sent

asyncio.run(main(*sys.argv[1:]))
"""


def die_before_the_index_is_told(url: str, key: ThreadKey, last_deed: str) -> None:
    """Another process does something to a thread, and is killed when it is done and before the index knows."""
    command = [sys.executable, "-c", DYING, url, key.thread_id, last_deed]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"done\n"
        finally:
            process.kill()


async def drifts(store: Store, *, mend: bool = False) -> list[tuple[str, int, bool]]:
    assert isinstance(store, SupportsReconciling)
    return [(drift.what, drift.count, drift.mended) for drift in await store.reconcile(mend=mend)]


async def listed(store: Store) -> list[tuple[str, int]]:
    return [(thread.key.thread_id, thread.updated_ms) for thread in await store.list_threads()]


@pytest.mark.parametrize("last_deed", ["append", "document"])
async def test_a_thread_whose_process_died_before_the_index_knew_is_found_and_listed(
    cluster: Cluster, prefix: str, last_deed: str
) -> None:
    url = f"{cluster.url}?prefix={prefix}"
    # One of each form of a thread's keys, and on different servers.
    keys = [ThreadKey(name) for name in ("plain", "{tag}ged", "a}b", "*?[x]", "é")]
    async with open_store(url) as store:
        await store.append(ThreadKey("listed"), [said("a")])
        await store.append(ThreadKey("another's", "tenant"), [said("a")])
        before = await listed(store)
        for key in keys:
            await asyncio.to_thread(die_before_the_index_is_told, url, key, last_deed)
        assert await listed(store) == before
        assert await drifts(store) == [("threads that no listing shows", 5, False)]
        assert await listed(store) == before
        assert await drifts(store, mend=True) == [("threads that no listing shows", 5, True)]
        assert await drifts(store) == []
        threads = {thread.key: thread for thread in await store.list_threads()}
        assert set(threads) == {ThreadKey("listed"), *keys}
        for key in keys:
            assert threads[key] == await store.get_thread(key)


@pytest.mark.parametrize("last_deed", ["append", "restore"])
async def test_a_thread_that_is_listed_with_another_time_gets_its_own(
    cluster: Cluster, prefix: str, last_deed: str
) -> None:
    url = f"{cluster.url}?prefix={prefix}"
    other = ThreadKey("other")
    async with open_store(url) as store:
        for key in (KEY, other):
            await store.append(key, [said("a")])
        await store.list_threads()
        await asyncio.to_thread(die_before_the_index_is_told, url, KEY if last_deed == "append" else other, last_deed)
        assert await drifts(store, mend=True) == [("threads that are listed with another time", 1, True)]
        assert [name for name, _ in await listed(store)] == ["conversation", "other"]
        threads = [await store.get_thread(key) for key in (KEY, other)]
        assert await listed(store) == [(thread.key.thread_id, thread.updated_ms) for thread in threads if thread]
        assert await drifts(store) == []


async def test_doctor_repairs_the_index_of_a_cluster(cluster: Cluster, prefix: str, tmp_path: Path) -> None:
    url = f"{cluster.url}?prefix={prefix}"
    index = ThreadNames(prefix, KEY).index
    doctor = (PROGRAM, "doctor", "--store", url, "--repair")
    async with open_store(url) as store:
        await store.append(ThreadKey("gone"), [said("a")])
        await store.list_threads()
        await asyncio.to_thread(die_before_the_index_is_told, url, ThreadKey("gone"), "delete")
        await asyncio.to_thread(die_before_the_index_is_told, url, KEY, "append")
        dry = await asyncio.to_thread(piped, "", "--dry-run", home=tmp_path, program=doctor)
        assert (dry.returncode, dry.stdout) == (1, "found 1 threads that no listing shows\n")
        done = await asyncio.to_thread(piped, "", "--yes", home=tmp_path, program=doctor)
        assert done.returncode == 0, done.stderr
        assert [name for name, _ in await listed(store)] == ["conversation"]
    assert ask(cluster.owner(slot_of(index)).port, "ZCARD", index.decode()) == 1


async def test_a_comparison_whose_server_is_lost_says_so_instead_of_finding_less(prefix: str) -> None:
    with cluster_of_one() as server:
        async with front(server.port, once(b"SCAN")) as lossy:
            url = f"redis://127.0.0.1:{lossy.port}?spread=true&prefix={prefix}"
            async with open_store(url) as store:
                await store.append(KEY, [said("a")])
                with pytest.raises(StoreUnavailableError):
                    await drifts(store)
                assert lossy.lost == 1
                assert await drifts(store) == []


async def test_of_two_restored_times_the_last_takes_the_place_of_what_the_first_was_to() -> None:
    sent: list[list[bytes]] = []

    async def run(_: Script, __: bytes, notes: list[bytes]) -> None:
        sent.append(notes)

    recency = Recency(run)
    recency.was_restored(b"index", b"thread", 5, 10)
    recency.was_restored(b"index", b"thread", 7, 5)
    recency.was_restored(b"index", b"other", 7, 5)
    recency.was_active(b"index", b"other", 8)
    await recency.settled()
    assert sent == [[b"7-10", b"thread", b"8", b"other"]]
    await recency.close()


async def test_another_store_lists_a_thread_soon_after_its_append(cluster: Cluster, prefix: str) -> None:
    async with open_store(cluster.url, prefix=prefix) as store, open_store(cluster.url, prefix=prefix) as other:
        await store.append(KEY, [said("a")])

        async def is_listed() -> bool:
            return len(await other.list_threads()) == 1

        await soon(is_listed)
        await store.delete_thread(KEY)
        await store.append(KEY, [said("b")])
        await store.list_threads()
        assert len(await other.list_threads()) == 1


async def test_while_the_servers_of_the_index_are_gone_appends_elsewhere_do_not_wait(
    cluster: Cluster, prefix: str
) -> None:
    victim = cluster.owner(slot_of(ThreadNames(prefix, KEY).index))
    elsewhere = next(server for server in cluster.primaries() if server is not victim)
    keys = keys_on(cluster, prefix, elsewhere, 20)
    async with open_store(cluster.url, prefix=prefix) as store:
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
    meanwhile: Callable[[], object] = lambda: None,
    at_the_end: Callable[[], object] = lambda: None,
) -> None:
    """Moves a slot and its keys one by one, as resharding does."""
    to, of = str(ask(target.port, "CLUSTER", "MYID")), str(ask(source.port, "CLUSTER", "MYID"))
    ask(target.port, "CLUSTER", "SETSLOT", str(slot), "IMPORTING", of)
    ask(source.port, "CLUSTER", "SETSLOT", str(slot), "MIGRATING", to)
    meanwhile()
    with redis_py.Redis(port=source.port) as client:
        while names := client.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
            client.execute_command("MIGRATE", "127.0.0.1", target.port, names[0], 0, 5000)
    at_the_end()
    for server in (target, source):
        ask(server.port, "CLUSTER", "SETSLOT", str(slot), "NODE", to)


async def test_appends_land_once_and_in_order_while_their_slot_moves_to_and_fro(cluster: Cluster, prefix: str) -> None:
    names = ThreadNames(prefix, KEY, spread=True)
    home = cluster.owner(names.slot)
    away = next(server for server in cluster.primaries() if server is not home)
    sent: list[bytes] = []
    moving = False

    async def write(store: Store) -> None:
        while moving or not sent:
            turn = [said(f"{len(sent) + i}") for i in range(20)]
            sent.extend(message.payload for message in turn)
            await asyncio.gather(*(store.append(KEY, [message]) for message in turn))

    async with open_store(cluster.url, prefix=prefix) as store:
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


async def test_what_is_redirected_does_not_overtake_what_the_old_server_has_yet_to_answer() -> None:
    async with scripted() as old, scripted() as new, open_store(f"redis+cluster://127.0.0.1:{old.port}") as store:
        moved = b"-MOVED %d 127.0.0.1:%d" % (ThreadNames("chat_messages", KEY, spread=True).slot, new.port)
        appends = [asyncio.create_task(store.append(KEY, [said(text)])) for text in ("a", "b")]
        await soon_or_late(lambda: old.names() == [b"EVALSHA"] * 2)
        old.answer(moved)
        # The store asks whether that server has come to all that was sent to it.
        await soon_or_late(lambda: old.names() == [b"EVALSHA", b"EVALSHA", b"PING"])
        appends.append(asyncio.create_task(store.append(KEY, [said("c")])))
        await asyncio.sleep(0)
        assert new.seen == []
        old.answer(moved, b"+PONG")
        await soon_or_late(lambda: len(new.seen) == 3)
        assert [said(text).payload in command for text, command in zip("abc", new.seen, strict=True)] == [True] * 3
        new.answer(*(b"*4\r\n:0\r\n:%d\r\n:%d\r\n:0" % (seq, seq + 1) for seq in range(3)))
        assert [(await append).first_seq for append in appends] == [0, 1, 2]


async def test_a_new_thread_waits_until_its_slot_has_moved(cluster: Cluster, prefix: str) -> None:
    names = ThreadNames(prefix, KEY, spread=True)
    home = cluster.owner(names.slot)
    away = next(server for server in cluster.primaries() if server is not home)
    loop = asyncio.get_running_loop()
    async with open_store(cluster.url, prefix=prefix) as store:
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


async def test_a_thread_whose_keys_have_all_moved_is_served_before_its_slot_has(cluster: Cluster, prefix: str) -> None:
    names = ThreadNames(prefix, KEY, spread=True)
    home = cluster.owner(names.slot)
    away = next(server for server in cluster.primaries() if server is not home)
    loop = asyncio.get_running_loop()
    async with open_store(cluster.url, prefix=prefix) as store:
        await asyncio.gather(*(store.append(KEY, [said("a")]) for _ in range(1001)))  # the second half of the ids
        await store.append(KEY, [NewMessage(b"1", "json", ("c", "open"), ()), NewMessage(b"2", "json", (), ("c",))])
        await store.put_document(KEY, "d", b"1")
        owner = ask(home.port, "EXISTS", *(name.decode() for name in names.names))
        assert owner == 8

        async def go_on() -> None:
            async with asyncio.timeout(2):
                results = await asyncio.gather(*(store.append(KEY, [said("b")]) for _ in range(10)))
                assert [result.first_seq for result in results] == list(range(1003, 1013))
                assert len(await store.read(KEY)) == 1013
                assert len(await store.read(KEY, start=1000, limit=5)) == 5

        move = asyncio.run_coroutine_threadsafe
        await asyncio.to_thread(move_slot, names.slot, home, away, at_the_end=lambda: move(go_on(), loop).result(30))
        assert await store.append(KEY, [said("c")]) == Appended(1013, 1014)
        await asyncio.to_thread(move_slot, names.slot, away, home)


async def test_one_seed_that_answers_is_enough(cluster: Cluster, prefix: str) -> None:
    alive = cluster.primaries()[0].port
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{alive}?prefix={prefix}"
    async with open_store(url) as store:
        await store.append(KEY, [said("a")])
        assert store.location == url


async def test_one_address_that_stands_for_a_cluster_is_used_with_the_index_apart() -> None:
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
