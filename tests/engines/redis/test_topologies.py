"""Redis with replicas, in a cluster and with sentinels: the guarantees, failovers under load, and confirmed writes."""

from __future__ import annotations

import asyncio
import itertools
import signal
from dataclasses import dataclass, field

import pytest
import redis as redis_py
from redis.asyncio import Sentinel

from everthread import (
    Appended,
    ConfigurationError,
    OutcomeUnknownError,
    Store,
    StoreUnavailableError,
    ThreadKey,
    open_store,
)
from everthread.engines.redis import RedisStore
from everthread.engines.redis.keys import ThreadNames, slot_of
from everthread.testing import (
    CorruptibleHarness,
    CorruptionSuite,
    ImportSuite,
    ProcessSuite,
    StoreContractSuite,
    UrlHarness,
)
from tests.engines.redis.turns import KEY, said, texts
from tests.redis_topologies import (
    PRIMARY_NAME,
    Cluster,
    Sentinels,
    Topology,
    ask,
    eventually,
    redis_cluster,
    redis_sentinels,
    send,
    soon,
    soon_or_late,
)
from tests.servers import Server, free_port, redis_server

pytestmark = pytest.mark.slow

_prefixes = itertools.count()


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
        with self._client(name) as client:
            client.lset(name, seq, payload)

    async def corrupt_metadata(self, key: ThreadKey) -> None:
        name = ThreadNames(self.prefix, key).names[1]
        with self._client(name) as client:
            client.hset(name, "metadata", "{not JSON")

    def _client(self, name: str) -> redis_py.Redis:
        server = self.topology.primaries()[0]
        if isinstance(self.topology, Cluster):
            server = self.topology.owner(slot_of(name))
        return redis_py.Redis(port=server.port)


class ClusterHarness(TopologyHarness):
    """An append is in the index of another server one round trip later; a listing waits for its own store's alone."""

    lists_late = True


@pytest.mark.front
class TestCluster(StoreContractSuite, ProcessSuite, CorruptionSuite, ImportSuite):
    @pytest.fixture
    def harness(self, cluster: Cluster) -> ClusterHarness:
        return ClusterHarness(cluster)


@pytest.mark.front
class TestSentinels(StoreContractSuite, ProcessSuite, CorruptionSuite, ImportSuite):
    @pytest.fixture
    def harness(self, sentinels: Sentinels) -> TopologyHarness:
        return TopologyHarness(sentinels)


# Primaries that are killed under load


@dataclass
class Load:
    """Writers that append turns to the same threads until `is_over`, each turn until it is acknowledged."""

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
        """Return after this number of further acknowledged turns."""
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
async def test_killed_primaries_lose_no_confirmed_turn(kind: str, make: str) -> None:
    with MADE[make](kind) as topology:
        load = Load(f"{topology.url}?wait_replicas=1")
        writers = [asyncio.create_task(load.write(writer)) for writer in range(8)]
        await load.goes_on()
        wanted = len(topology.primaries())
        for _ in range(2):
            # One that was killed is a primary for some seconds when it is back.
            await asyncio.to_thread(eventually, lambda: len(topology.primaries()) == wanted and topology.is_whole())
            victim = topology.primaries()[0]
            victim.kill()
            await asyncio.to_thread(eventually, lambda: len(topology.primaries()) == wanted)
            await asyncio.to_thread(victim.start)
            await load.goes_on()
        load.is_over = True
        await asyncio.gather(*writers)
        await load.check()


@pytest.mark.parametrize("how", ["planned", "frozen"])
async def test_a_switch_from_a_live_primary_loses_nothing_acknowledged(sentinels: Sentinels, how: str) -> None:
    load = Load(f"{sentinels.url}?prefix=switch-{how}")
    old = sentinels.primaries()[0]
    before = [asyncio.create_task(load.write(writer)) for writer in range(4)]
    await load.goes_on()
    if how == "planned":
        ask(sentinels.sentinel_port, "SENTINEL", "FAILOVER", PRIMARY_NAME)
        await load.goes_on()
    load.is_over = True
    await asyncio.gather(*before)
    if how == "frozen":
        send(signal.SIGSTOP)(old)
    load.is_over = False
    after = [asyncio.create_task(load.write(writer)) for writer in range(4, 8)]
    try:
        await asyncio.to_thread(eventually, lambda: sentinels.named() != old.port)
    finally:
        send(signal.SIGCONT)(old)
    await load.goes_on()
    load.is_over = True
    await asyncio.gather(*after)
    await load.check()
    # The sentinels would do so ten seconds later.
    ask(old.port, "REPLICAOF", "127.0.0.1", str(sentinels.named()))
    await asyncio.to_thread(eventually, lambda: len(sentinels.primaries()) == 1 and sentinels.is_whole())


# Confirmed writes


@pytest.fixture(params=["cluster", "sentinels"])
def topology(request: pytest.FixtureRequest) -> Topology:
    found: Topology = request.getfixturevalue(request.param)
    return found


async def test_an_unconfirmed_append_has_an_unknown_outcome_each_time(topology: Topology, fresh_prefix: str) -> None:
    url = f"{topology.url}?prefix={fresh_prefix}&wait_replicas=1&wait_timeout=200"
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


async def test_appends_that_wait_for_replicas_keep_their_order(topology: Topology, fresh_prefix: str) -> None:
    async with open_store(topology.url, prefix=fresh_prefix, wait_replicas=1) as store:
        results = await asyncio.gather(*(store.append(KEY, [said(str(i))]) for i in range(200)))
        assert [result.first_seq for result in results] == list(range(200))
        assert await texts(store) == [said(str(i)).payload for i in range(200)]


async def test_missing_replicas_are_an_unknown_outcome(plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}?prefix={fresh_prefix}&wait_replicas=2&wait_timeout=50"
    async with open_store(url) as store:
        with pytest.raises(OutcomeUnknownError, match="0 of 2 replicas"):
            await store.append(KEY, [said("a")])
        assert len(await texts(store)) == 1


# A caller's client


async def test_a_callers_sentinel_client_finds_the_primary(sentinels: Sentinels, fresh_prefix: str) -> None:
    client = Sentinel([("127.0.0.1", sentinels.sentinel_port)]).master_for(PRIMARY_NAME)
    async with RedisStore.from_client(client, prefix=fresh_prefix) as store:
        assert await store.append(KEY, [said("a")]) == Appended(0, 1)
        assert store.location.startswith(f"redis+sentinel://127.0.0.1:{sentinels.sentinel_port}/{PRIMARY_NAME}/0")
    assert await client.ping()
    await client.aclose()


# Wrong addresses


async def test_a_single_server_in_a_cluster_url_is_an_error(plain_redis_server: Server) -> None:
    with pytest.raises(ConfigurationError, match="cluster"):
        await open_store(f"redis+cluster://127.0.0.1:{plain_redis_server.port}").open()


async def test_a_cluster_server_in_a_single_server_url_is_an_error(cluster: Cluster, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{cluster.primaries()[0].port}?prefix={fresh_prefix}"
    async with open_store(url) as store:
        answers = await asyncio.gather(
            *(store.append(ThreadKey(f"t{i}"), [said("a")]) for i in range(50)), return_exceptions=True
        )
    assert {type(answer) for answer in answers} == {ConfigurationError}
    assert "redis+cluster://" in str(answers[0])


async def test_an_unknown_primary_is_a_configuration_error(sentinels: Sentinels) -> None:
    url = sentinels.url.rpartition("/")[0] + "/unknown"
    with pytest.raises(ConfigurationError, match="unknown"):
        await open_store(url).open()


async def test_unreachable_sentinels_are_an_error() -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await open_store(f"redis+sentinel://127.0.0.1:{free_port()}/name", timeout=0.5).open()


async def test_sentinels_and_servers_have_separate_passwords() -> None:
    with redis_server("redis", "--requirepass", "data") as server:
        url = f"redis+sentinel://:data@127.0.0.1:{server.port}/name?sentinel_password=other"
        store = open_store(url)
        with pytest.raises(ConfigurationError, match="refused the user name or password") as caught:
            await store.open()
        for text in (str(caught.value), repr(store), store.location):
            assert "other" not in text
            assert "data" not in text.replace("database", "")
