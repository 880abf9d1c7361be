"""Redis in a cluster and with sentinels: the guarantees of all engines, failovers under load, what writes wait for."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import redis as redis_py

from everthread import (
    Appended,
    ConfigurationError,
    OutcomeUnknownError,
    Store,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.engines.redis._keys import ThreadNames, slot_of
from everthread.model import NewMessage
from everthread.testing import (
    CorruptibleHarness,
    CorruptionSuite,
    ImportSuite,
    ProcessSuite,
    StoreContractSuite,
    UrlHarness,
)
from tests.redis_topologies import (
    Cluster,
    Sentinels,
    Topology,
    eventually,
    redis_cluster,
    redis_sentinels,
    send,
    soon,
    soon_or_late,
)
from tests.servers import Server, free_port, redis_server

KEY = ThreadKey("conversation")
_prefixes = itertools.count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with redis_cluster("redis") as found:
        yield found


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    with redis_sentinels("redis") as found:
        yield found


@pytest.fixture
def prefix() -> str:
    return f"topology{next(_prefixes)}"


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


async def texts(store: Store, key: ThreadKey = KEY) -> list[bytes]:
    return [message.payload for message in await store.read(key)]


# The conformance kit


class TopologyHarness(UrlHarness, CorruptibleHarness):
    """A prefix of its own on servers that stand in for one another."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.prefix = f"kit{next(_prefixes)}"
        super().__init__(lambda: f"{topology.url}?prefix={self.prefix}")

    def another(self) -> TopologyHarness:
        return type(self)(self.topology)

    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        name = ThreadNames(self.prefix, key).names[0]
        server = self.topology.primaries()[0]
        if isinstance(self.topology, Cluster):
            server = self.topology.owner(slot_of(name))
        with redis_py.Redis(port=server.port) as client:
            client.lset(name, seq, payload)


class TestCluster(StoreContractSuite, ProcessSuite, CorruptionSuite, ImportSuite):
    @pytest.fixture
    def harness(self, cluster: Cluster) -> TopologyHarness:
        return TopologyHarness(cluster)


@pytest.mark.campaign
class TestSentinels(StoreContractSuite, ProcessSuite, CorruptionSuite, ImportSuite):
    @pytest.fixture
    def harness(self, sentinels: Sentinels) -> TopologyHarness:
        return TopologyHarness(sentinels)


# Primaries that are killed under load


@dataclass
class Load:
    """Writers that append turns to the same threads until they are told to stop, each turn until it is acknowledged."""

    url: str
    keys: list[ThreadKey] = field(default_factory=lambda: [ThreadKey(f"t{i}") for i in range(6)])
    acknowledged: dict[ThreadKey, dict[str, int]] = field(default_factory=dict)
    is_over: bool = False

    async def write(self, writer: int) -> None:
        async with open_store(self.url) as store:
            for number in itertools.count():
                if self.is_over:
                    return
                key = self.keys[(writer + number) % len(self.keys)]
                name = f"{writer}-{number}"
                appended = await self._until_done(store, key, name)
                self.acknowledged.setdefault(key, {})[name] = appended.first_seq

    async def _until_done(self, store: Store, key: ThreadKey, name: str) -> Appended:
        turn = [said(f"{name} {part}") for part in range(3)]
        while True:
            try:
                return await store.append(key, turn, append_id=name)
            except StoreUnavailableError:
                await asyncio.sleep(0.05)

    def count(self) -> int:
        return sum(len(turns) for turns in self.acknowledged.values())

    async def goes_on(self, turns: int = 100) -> None:
        """Returns when so many more turns were acknowledged."""
        wanted = self.count() + turns
        await soon_or_late(lambda: self.count() >= wanted)

    async def check(self) -> None:
        async with open_store(self.url) as store:
            for key in self.keys:
                page = await store.read(key)
                assert [message.seq for message in page] == list(range(len(page))), "positions are not dense"
                kept = {}
                for at in range(0, len(page), 3):
                    name = bytes(page[at].payload).split(b'"content":"')[1].split(b" ")[0].decode()
                    turn = [said(f"{name} {part}").payload for part in range(3)]
                    assert [message.payload for message in page[at : at + 3]] == turn, "a turn is torn"
                    assert name not in kept, "a turn is doubled"
                    kept[name] = at
                lost = {n: at for n, at in self.acknowledged[key].items() if kept.get(n) != at}
                assert not lost, "an acknowledged turn is missing, or is elsewhere"


MADE = {"cluster": redis_cluster, "sentinels": redis_sentinels}


@pytest.mark.parametrize(("kind", "make"), [("redis", "cluster"), ("valkey", "cluster"), ("redis", "sentinels")])
async def test_killed_primaries_lose_tear_and_double_nothing_that_a_replica_confirmed(kind: str, make: str) -> None:
    with MADE[make](kind) as topology:
        load = Load(f"{topology.url}?wait_replicas=1")
        writers = [asyncio.create_task(load.write(writer)) for writer in range(8)]
        await load.goes_on()
        for _ in range(2):
            victim = topology.primaries()[0]
            wanted = len(topology.primaries())
            victim.kill()
            await asyncio.to_thread(eventually, lambda wanted=wanted: len(topology.primaries()) == wanted)
            await asyncio.to_thread(victim.start)
            await asyncio.to_thread(eventually, topology.is_whole)
            await load.goes_on()
        load.is_over = True
        await asyncio.gather(*writers)
        await load.check()


# What a write waits for


@pytest.fixture(params=["cluster", "sentinels"])
def topology(request: pytest.FixtureRequest) -> Topology:
    found: Topology = request.getfixturevalue(request.param)
    return found


async def test_an_append_that_no_replica_confirms_says_so_however_often_it_is_repeated(
    topology: Topology, prefix: str
) -> None:
    url = f"{topology.url}?prefix={prefix}&wait_replicas=1&wait_timeout=200"
    async with open_store(url) as store, open_store(url) as other:
        assert await store.append(KEY, [said("a")], append_id="a") == Appended(0, 1)
        stopped = topology.stop_replicas(send(signal.SIGSTOP))
        try:
            for each in (store, store, other):
                # The other store's connection wrote nothing, so the server must not answer for what it wrote itself.
                with pytest.raises(OutcomeUnknownError, match="0 of 1 replicas"):
                    await each.append(KEY, [said("b")], append_id="b")
            assert len(await texts(store)) == 2
            with pytest.raises(OutcomeUnknownError):
                await store.update_thread(KEY, title="t")
        finally:
            for server in stopped:
                send(signal.SIGCONT)(server)
        await soon(lambda: _is_appended(other, "b"))
        assert len(await texts(store)) == 2


async def _is_appended(store: Store, name: str) -> bool:
    try:
        return (await store.append(KEY, [said(name)], append_id=name)).replayed
    except OutcomeUnknownError:
        return False


async def test_appends_that_wait_for_replicas_land_in_the_order_of_their_calls(topology: Topology, prefix: str) -> None:
    async with open_store(topology.url, prefix=prefix, wait_replicas=1) as store:
        results = await asyncio.gather(*(store.append(KEY, [said(str(i))]) for i in range(200)))
        assert [result.first_seq for result in results] == list(range(200))
        assert await texts(store) == [said(str(i)).payload for i in range(200)]


async def test_more_replicas_than_there_are_is_an_unknown_outcome_on_a_single_server(
    plain_redis_server: Server, prefix: str
) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}?prefix={prefix}&wait_replicas=2&wait_timeout=50"
    async with open_store(url) as store:
        with pytest.raises(OutcomeUnknownError, match="0 of 2 replicas"):
            await store.append(KEY, [said("a")])
        assert len(await texts(store)) == 1


# What is named wrongly


async def test_a_single_server_is_no_cluster_and_says_what_to_use(plain_redis_server: Server) -> None:
    with pytest.raises(ConfigurationError, match="cluster"):
        await open_store(f"redis+cluster://127.0.0.1:{plain_redis_server.port}").open()


async def test_a_server_of_a_cluster_that_is_named_as_a_single_one_says_what_to_use(
    cluster: Cluster, prefix: str
) -> None:
    url = f"redis://127.0.0.1:{cluster.primaries()[0].port}?prefix={prefix}"
    async with open_store(url) as store:
        answers = await asyncio.gather(
            *(store.append(ThreadKey(f"t{i}"), [said("a")]) for i in range(50)), return_exceptions=True
        )
    assert {type(answer) for answer in answers} == {ConfigurationError}
    assert "redis+cluster://" in str(answers[0])


async def test_a_primary_that_no_sentinel_knows_is_a_configuration_error(sentinels: Sentinels) -> None:
    url = sentinels.url.rpartition("/")[0] + "/unknown"
    with pytest.raises(ConfigurationError, match="unknown"):
        await open_store(url).open()


async def test_sentinels_that_are_not_there_are_told_within_the_timeout() -> None:
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await open_store(f"redis+sentinel://127.0.0.1:{free_port()}/name", timeout=0.5).open()
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    "wrong",
    [
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
async def test_a_url_that_is_wrong_is_a_configuration_error(wrong: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(wrong)


async def test_passwords_of_sentinels_and_servers_are_their_own() -> None:
    with redis_server("redis", "--requirepass", "data") as server:
        url = f"redis+sentinel://:data@127.0.0.1:{server.port}/name?sentinel_password=other"
        store = open_store(url)
        with pytest.raises(ConfigurationError, match="refused the user name or password") as caught:
            await store.open()
        for text in (str(caught.value), repr(store), store.location):
            assert "other" not in text
            assert "data" not in text.replace("database", "")
