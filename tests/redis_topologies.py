"""Redis with replicas: a cluster of three primaries and three replicas, and a primary with sentinels."""

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
from everthread.engines.redis.keys import ThreadNames
from tests.servers import REDIS_LIKE, Server, answers_ping, free_port, scratch_folder

PRIMARY_NAME = "conversations"


def eventually(is_so: Callable[[], bool], seconds: float = 120) -> None:
    """Return when a condition holds.

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
    """Return when a condition holds that needs a round trip."""
    async with asyncio.timeout(60):
        while not await is_so():
            await asyncio.sleep(0.01)


async def soon_or_late(is_so: Callable[[], bool]) -> None:
    """Return when a condition holds that may need a failover."""
    async with asyncio.timeout(120):
        while not is_so():
            await asyncio.sleep(0.02)


def ask(port: int, *command: str) -> object:
    """Return a server's reply to one command."""
    with redis.Redis(port=port, socket_timeout=30, decode_responses=True) as client:
        return client.execute_command(*command)


def replication(port: int) -> dict[str, str]:
    """Return a server's INFO on its role and its replicas."""
    with redis.Redis(port=port, socket_timeout=30) as client:
        return {name: str(value) for name, value in client.info("replication").items()}


@dataclass
class Topology:
    """Servers that can replace one another.

    Attributes:
        url: Where a store finds them.
        servers: Those that keep data.
    """

    url: str
    servers: list[Server]

    def primaries(self) -> list[Server]:
        """Return the servers that accept writes now."""
        running = [server for server in self.servers if server.process is not None]
        return [server for server in running if replication(server.port)["role"] == "master"]

    def is_whole(self) -> bool:
        """Return whether each primary has all its replicas, and they are up to date."""
        primaries = self.primaries()
        each = (len(self.servers) - len(primaries)) // len(primaries)
        infos = [replication(server.port) for server in self.servers]
        links = [info["master_link_status"] == "up" for info in infos if info["role"] == "slave"]
        counts = [int(info["connected_slaves"]) for info in infos if info["role"] == "master"]
        return all(links) and all(count >= each for count in counts)

    def stop_replicas(self, how: Callable[[Server], None]) -> list[Server]:
        """Call a function with each replica and return the replicas."""
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
        """Return the primary of a slot."""
        for server in self.primaries():
            rows = ask(server.port, "CLUSTER", "SLOTS")
            assert isinstance(rows, list)
            for first, last, primary, *_ in rows:
                if first <= slot <= last:
                    return next(each for each in self.servers if each.port == primary[1])
        raise LookupError(slot)


class Sentinels(Topology):
    """A primary and two replicas, with three sentinels that replace the primary if it fails."""

    @property
    def sentinel_port(self) -> int:
        """The port of a sentinel."""
        return int(self.url.split("/")[2].split(",")[0].rpartition(":")[2])

    def named(self) -> int:
        """Return the port of the primary that this sentinel names."""
        address = ask(self.sentinel_port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY_NAME)
        assert isinstance(address, list)
        return int(address[1])


def send(how: signal.Signals) -> Callable[[Server], None]:
    """Return a function that sends a signal to a server."""

    def sending(server: Server) -> None:
        assert server.process is not None
        os.kill(server.process.pid, how)

    return sending


def keys_on(cluster: Cluster, prefix: str, server: Server, count: int) -> list[ThreadKey]:
    """Return threads whose keys are on a server."""
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
        servers = [start(kind, free_port(), *fixed, *options) for _ in range(6)]
        _join(servers)
        cluster = Cluster(_url("redis+cluster", servers[:3]), servers)
        eventually(cluster.is_whole)
        yield cluster


@contextlib.contextmanager
def cluster_of_one(kind: str = "redis") -> Iterator[Server]:
    """A cluster of one server, which refuses scripts on keys of several slots."""
    with _servers() as start:
        server = start(kind, free_port(), "--cluster-enabled", "yes")
        ask(server.port, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        eventually(lambda: is_up(server))
        yield server


def is_up(server: Server) -> bool:
    """Return whether a server of a cluster considers it complete."""
    return "cluster_state:ok" in str(ask(server.port, "CLUSTER", "INFO"))


@contextlib.contextmanager
def redis_sentinels(kind: str = "redis", *options: str) -> Iterator[Sentinels]:
    """A primary, two replicas and three sentinels that replace the primary after a second of silence."""
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
    # Some releases of redis-py give a dictionary, and sentinel_master() fails on others.
    reply = ask(sentinel.port, "SENTINEL", "MASTER", PRIMARY_NAME)
    state = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    return str(state["num-slaves"]) == str(state["num-other-sentinels"]) == "2"


def _url(scheme: str, servers: list[Server]) -> str:
    return f"{scheme}://{','.join(f'127.0.0.1:{server.port}' for server in servers)}"


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
    """Return the settings of sentinels: after a second of silence, two of them may replace the primary."""
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
