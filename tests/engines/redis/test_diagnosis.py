"""Health checks of Redis servers."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
import redis.asyncio as redis_py

from everthread import ConfigurationError, StoreUnavailableError, ThreadKey, new_message, open_store
from everthread.capabilities import SupportsDiagnosis, capability
from everthread.contract import Store
from everthread.engines.redis import RedisStore
from everthread.engines.redis.health import checks
from everthread.model import HealthCheck
from tests.engines.redis.fronts import front, make_certificate
from tests.redis_topologies import ask, cluster_of_one, eventually, is_up, redis_cluster, replication
from tests.servers import Server, redis_server

pytestmark = pytest.mark.slow

NOW = datetime(2026, 12, 1, tzinfo=UTC)


async def checks_of(store: Store) -> dict[str, HealthCheck]:
    assert capability(store, SupportsDiagnosis)
    return {check.name: check for check in await store.diagnose()}


def info(**others: object) -> str:
    """The lines of INFO that matter, of a server in order."""
    known = {"redis_version": "8.2.3", "redis_mode": "cluster", "role": "master", "connected_slaves": 1, **others}
    known = {"maxmemory_policy": "noeviction", "aof_enabled": 1, **known}
    return "# Section\r\n" + "".join(f"{name}:{value}\r\n" for name, value in known.items())


def found(*infos: str, address: str = "redis+cluster://127.0.0.1:1") -> dict[str, HealthCheck]:
    by_server = {f"host{number}": text for number, text in enumerate(infos)}
    return {check.name: check for check in checks(by_server, address, (), NOW)}


# Several servers


async def test_the_checks_name_a_primary_without_a_replica() -> None:
    with redis_cluster() as cluster:
        async with open_store(cluster.url) as store:
            told = await checks_of(store)
            assert {check.status for check in told.values()} == {"ok"}
            assert told["cluster"].value == "3 primaries have all keys"
            assert told["role"].value == "primary, cluster, 1 replica"
            left = cluster.primaries()[0]
            replica = next(s for s in cluster.servers if replication(s.port).get("master_port") == str(left.port))
            replica.stop()
            await asyncio.to_thread(eventually, lambda: replication(left.port)["connected_slaves"] == "0")
            role = (await checks_of(store))["role"]
    assert (role.status, role.value) == ("warning", f"primary, cluster, 0 replicas at 127.0.0.1:{left.port}; 2 more")
    assert role.advice


async def test_slots_without_a_server_are_an_error() -> None:
    with cluster_of_one() as server:
        async with open_store(f"redis+cluster://127.0.0.1:{server.port}") as store:
            assert (await checks_of(store))["role"].status == "warning"
            ask(server.port, "CLUSTER", "DELSLOTSRANGE", "0", "100")
            await asyncio.to_thread(eventually, lambda: not is_up(server))
            with pytest.raises(StoreUnavailableError, match="no server now"):
                await checks_of(store)


def test_the_checks_name_the_worst_servers() -> None:
    full = info(maxmemory=100, used_memory=99)
    memory = found(info(), full, full, full, full)["memory"]
    assert memory.status == "warning"
    assert memory.value == "; ".join([*(f"99 bytes of 100 at host{n}" for n in (1, 2, 3)), "2 more"])
    version = found(info(), info(redis_version="6.0.9"))["server"]
    assert (version.status, version.value) == ("error", "Redis 6.0.9 at host1; 1 more")
    versions = found(info(), info(redis_version="8.0.1"))["server"]
    assert (versions.status, versions.value) == ("ok", "Redis 8.2.3 at host0; 1 more")


@pytest.mark.parametrize(
    ("address", "mode", "status"),
    [
        ("redis://127.0.0.1:1", "standalone", "ok"),
        ("redis://127.0.0.1:1?spread=true", "cluster", "warning"),
        ("redis+sentinel://127.0.0.1:1/name", "standalone", "warning"),
        ("rediss+sentinel://127.0.0.1:1/name", "standalone", "warning"),
    ],
)
def test_a_primary_without_a_needed_replica_is_a_warning(address: str, mode: str, status: str) -> None:
    assert found(info(redis_mode=mode, connected_slaves=0), address=address)["role"].status == status


# Encryption


@pytest.mark.parametrize(("hours", "status"), [(24, "warning"), (24 * 90, "ok")])
async def test_a_certificate_that_expires_soon_is_a_warning(
    plain_redis_server: Server, tmp_path: Path, hours: int, status: str
) -> None:
    certificate, key = make_certificate(tmp_path, hours=hours)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with front(plain_redis_server.port, tls=context) as encrypting:
        url = f"rediss://127.0.0.1:{encrypting.port}?ssl_ca_certs={quote(str(certificate))}"
        async with open_store(url) as store:
            encryption = (await checks_of(store))["encryption"]
        client = redis_py.Redis(host="127.0.0.1", port=encrypting.port, ssl=True, ssl_ca_certs=str(certificate))
        async with RedisStore.from_client(client) as store:
            assert (await checks_of(store))["encryption"] == encryption
        await client.aclose()
    assert encryption.status == status
    assert encryption.value.startswith("TLS, certificate until 20")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ("", "ssl_ca_certs="),
        ("ssl_ca_certs=/no/such/file", "does not exist"),
        ("ssl_ca_certs={0}&ssl_certfile={0}&ssl_keyfile={1}", "another name"),
    ],
    ids=["nobody vouches", "no file", "another name"],
)
async def test_a_tls_failure_has_advice(plain_redis_server: Server, tmp_path: Path, options: str, advice: str) -> None:
    host = "localhost" if "another" in advice else "127.0.0.1"
    certificate, key = make_certificate(tmp_path, host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    async with front(plain_redis_server.port, tls=context) as strict:
        url = f"rediss://127.0.0.1:{strict.port}?" + options.format(quote(str(certificate)), quote(str(key)))
        with pytest.raises(StoreUnavailableError, match=advice):
            await open_store(url, retries=0).open()


# Rights


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_an_error_names_the_missing_right(kind: str) -> None:
    with redis_server(kind) as server:
        ask(server.port, "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-rpush", "-info")
        ask(server.port, "ACL", "SETUSER", "elsewhere", "on", ">pw", "~other:*", "+@all")
        where = f"pw@127.0.0.1:{server.port}"
        async with open_store(f"redis://app:{where}") as store:
            with pytest.raises(ConfigurationError, match="does not allow this user RPUSH;"):
                await store.append(ThreadKey("t"), [new_message({"role": "user", "content": "a"})])
            assert (await checks_of(store))["server"].status == "warning"
        async with open_store(f"redis://elsewhere:{where}") as store:
            with pytest.raises(ConfigurationError, match="does not allow this user these keys;"):
                await store.get_thread(ThreadKey("t"))
            assert (await checks_of(store))["server"].status == "warning"


async def test_a_read_only_user_can_read() -> None:
    with redis_server() as server:
        reading = ["+@read", "+@connection", "+evalsha", "+eval", "+multi", "+exec", "+time"]
        ask(server.port, "ACL", "SETUSER", "reader", "on", ">pw", "~*", "-@all", *reading)
        key = ThreadKey("t")
        async with open_store(f"redis://127.0.0.1:{server.port}") as store:
            await store.append(key, [new_message({"role": "user", "content": "a"})])
        async with open_store(f"redis://reader:pw@127.0.0.1:{server.port}") as store:
            assert len(await store.read(key)) == len(await store.read(key, start=0, limit=1)) == 1
            assert len(await store.list_threads()) == 1
            assert await store.get_thread(ThreadKey("unknown")) is None
