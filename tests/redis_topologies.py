"""Redis as it is run in production: a cluster of three primaries and three replicas, and a primary with sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from everthread import ThreadKey
from everthread.engines.redis._keys import ThreadNames
from tests.servers import REDIS_LIKE, Server, answers_ping, free_port, scratch_folder

PRIMARY_NAME = "conversations"


def eventually(is_so: Callable[[], bool], seconds: float = 40) -> None:
    """Returns when something has become so.

    Raises:
        TimeoutError: It has not.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if is_so():
                return
        if time.monotonic() > deadline:
            raise TimeoutError("the servers did not come to it")
        time.sleep(0.05)


async def soon(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Returns when something has become so: for what is to be true a round trip later."""
    async with asyncio.timeout(20):
        while not await is_so():
            await asyncio.sleep(0.01)


async def soon_or_late(is_so: Callable[[], bool]) -> None:
    """Returns when something has become so: for what may take as long as a failover."""
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.02)


def ask(port: int, *command: str) -> object:
    """A server's reply to one command."""
    with redis.Redis(port=port, socket_timeout=5, decode_responses=True) as client:
        return client.execute_command(*command)


def replication(port: int) -> dict[str, str]:
    """What a server says of its role and its replicas."""
    with redis.Redis(port=port, socket_timeout=5) as client:
        return {name: str(value) for name, value in client.info("replication").items()}


@dataclass
class Topology:
    """Servers that stand in for one another.

    Attributes:
        url: Where a store finds them.
        servers: Those that keep data.
    """

    url: str
    servers: list[Server]

    def primaries(self) -> list[Server]:
        """Those that take writes now."""
        running = [server for server in self.servers if server.process is not None]
        return [server for server in running if replication(server.port)["role"] == "master"]

    def is_whole(self) -> bool:
        """Whether each primary has all its replicas, and they are up to date."""
        primaries = self.primaries()
        each = (len(self.servers) - len(primaries)) // len(primaries)
        infos = [replication(server.port) for server in self.servers]
        links = [info["master_link_status"] == "up" for info in infos if info["role"] == "slave"]
        counts = [int(info["connected_slaves"]) for info in infos if info["role"] == "master"]
        return all(links) and all(count >= each for count in counts)

    def stop_replicas(self, how: Callable[[Server], None]) -> list[Server]:
        """Does something to all servers that are replicas, and returns them."""
        primaries = self.primaries()
        replicas = [server for server in self.servers if server not in primaries]
        for server in replicas:
            how(server)
        return replicas


class Cluster(Topology):
    """Three primaries with a third of the slots each, and a replica of each."""

    def is_whole(self) -> bool:
        return super().is_whole() and all(is_up(server) for server in self.servers)

    def owner(self, slot: int) -> Server:
        """The primary that has a slot."""
        for server in self.primaries():
            rows = ask(server.port, "CLUSTER", "SLOTS")
            assert isinstance(rows, list)
            for first, last, primary, *_ in rows:
                if first <= slot <= last:
                    return next(each for each in self.servers if each.port == primary[1])
        raise LookupError(slot)


class Sentinels(Topology):
    """A primary and two replicas, with three sentinels that make another one the primary when it is gone."""


def send(how: signal.Signals) -> Callable[[Server], None]:
    """What sends a signal to a server."""

    def sending(server: Server) -> None:
        assert server.process is not None
        os.kill(server.process.pid, how)

    return sending


def keys_on(cluster: Cluster, prefix: str, server: Server, count: int) -> list[ThreadKey]:
    """Threads that a server keeps."""
    slots = {first + i for first, last in _slots_of(server) for i in range(last - first + 1)}
    names = (ThreadKey(f"k{i}") for i in itertools.count())
    mine = (key for key in names if ThreadNames(prefix, key, spread=True).slot in slots)
    return list(itertools.islice(mine, count))


def _slots_of(server: Server) -> list[tuple[int, int]]:
    rows = ask(server.port, "CLUSTER", "SLOTS")
    assert isinstance(rows, list)
    return [(first, last) for first, last, primary, *_ in rows if primary[1] == server.port]


@contextlib.contextmanager
def redis_cluster(kind: str = "redis", *options: str) -> Iterator[Cluster]:
    """A cluster of 3 + 3 servers that tolerates a silence of two seconds."""
    with _servers() as start:
        fixed = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0"]
        servers = [start(kind, _cluster_port(), *fixed, *options) for _ in range(6)]
        _join(servers)
        cluster = Cluster(_url("redis+cluster", servers[:3]), servers)
        eventually(cluster.is_whole)
        yield cluster


@contextlib.contextmanager
def cluster_of_one(kind: str = "redis") -> Iterator[Server]:
    """A server that is a whole cluster: it has all slots, and refuses scripts on keys of several."""
    with _servers() as start:
        server = start(kind, _cluster_port(), "--cluster-enabled", "yes")
        ask(server.port, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        eventually(lambda: is_up(server))
        yield server


def is_up(server: Server) -> bool:
    """Whether a server of a cluster finds the cluster whole."""
    return "cluster_state:ok" in str(ask(server.port, "CLUSTER", "INFO"))


@contextlib.contextmanager
def redis_sentinels(kind: str = "redis", *options: str) -> Iterator[Sentinels]:
    """A primary, two replicas and three sentinels that give the primary up after a second of silence."""
    with _servers() as start:
        primary = start(kind, free_port(), *options)
        follow = ["--replicaof", "127.0.0.1", str(primary.port)]
        servers = [primary, *(start(kind, free_port(), *follow, *options) for _ in range(2))]
        sentinels = [start(kind, free_port(), sentinel_of=primary) for _ in range(3)]
        found = Sentinels(f"{_url('redis+sentinel', sentinels)}/{PRIMARY_NAME}", servers)
        eventually(found.is_whole)
        eventually(lambda: all(_knows_all(sentinel) for sentinel in sentinels))
        yield found


def _knows_all(sentinel: Server) -> bool:
    with redis.Redis(port=sentinel.port, socket_timeout=5) as client:
        state = client.sentinel_master(PRIMARY_NAME)
    return state["num-slaves"] == 2 and state["num-other-sentinels"] == 2


def _url(scheme: str, servers: list[Server]) -> str:
    return f"{scheme}://{','.join(f'127.0.0.1:{server.port}' for server in servers)}"


def _cluster_port() -> int:
    # A cluster's servers speak to one another on a port that is 10,000 higher.
    while (port := free_port()) > 55_000:
        pass
    return port


@contextlib.contextmanager
def _servers() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(kind: str, port: int, *options: str, sentinel_of: Server | None = None) -> Server:
            folder = stack.enter_context(scratch_folder())
            common = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
            own = [str(_sentinel_file(folder, sentinel_of)), "--sentinel"] if sentinel_of else []
            durable = [] if sentinel_of else ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
            server = Server([REDIS_LIKE[kind](), *own, *common, *durable, *options], port, folder, answers_ping)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


def _sentinel_file(folder: Path, primary: Server) -> Path:
    path = folder / "sentinel.conf"
    path.write_text("\n".join(sentinel_settings(primary.port)) + "\n")
    return path


def sentinel_settings(primary_port: int) -> list[str]:
    """How sentinels watch a primary: after a second of silence two of them may give it up."""
    settings = {"down-after-milliseconds": 1000, "failover-timeout": 4000, "parallel-syncs": 2}
    watched = [f"sentinel {name} {PRIMARY_NAME} {value}" for name, value in settings.items()]
    return [f"sentinel monitor {PRIMARY_NAME} 127.0.0.1 {primary_port} 2", *watched]


def _join(servers: list[Server]) -> None:
    primaries, replicas = servers[:3], servers[3:]
    thirds = [(0, 5460), (5461, 10922), (10923, 16383)]
    for number, (primary, (first, last)) in enumerate(zip(primaries, thirds, strict=True), start=1):
        ask(primary.port, "CLUSTER", "SET-CONFIG-EPOCH", str(number))
        ask(primary.port, "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
    for server in servers[1:]:
        ask(server.port, "CLUSTER", "MEET", "127.0.0.1", str(servers[0].port))
    eventually(lambda: all("cluster_known_nodes:6" in str(ask(server.port, "CLUSTER", "INFO")) for server in servers))
    for primary, replica in zip(primaries, replicas, strict=True):
        name = str(ask(primary.port, "CLUSTER", "MYID"))
        # The replica may not have heard of the primary's slots yet.
        eventually(lambda name=name, replica=replica: ask(replica.port, "CLUSTER", "REPLICATE", name) in ("OK", True))
