"""Sentinels and servers that speak TLS only, each with users of its own, as a careful administrator sets them up."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from everthread import Appended, ConfigurationError, StoreUnavailableError, ThreadKey, open_store
from tests.engines.redis.fronts import make_certificate
from tests.engines.redis.turns import KEY, said
from tests.redis_topologies import PRIMARY_NAME, eventually, sentinel_settings
from tests.servers import Server, free_port, scratch_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ADMIN, APP, WATCHER = "admins-secret", "apps-secret", "watchers-secret"


@dataclass
class Secured:
    """A primary, a replica and three sentinels without any port that is not encrypted.

    The servers' certificate is for the number by which sentinels tell of them, the sentinels' for a name.
    """

    folder: Path
    binary: str
    stack: ExitStack
    servers: list[Server] = field(default_factory=list)
    sentinels: list[Server] = field(default_factory=list)

    def start(self) -> None:
        trusted = b""
        for name, host in (("server", "127.0.0.1"), ("sentinel", "localhost")):
            (self.folder / name).mkdir()
            certificate, _ = make_certificate(self.folder / name, host)
            trusted += certificate.read_bytes()
        (self.folder / "trusted.pem").write_bytes(trusted)
        primary = self._server()
        self._server("--replicaof", "127.0.0.1", str(primary.port))
        for _ in range(3):
            self._sentinel(primary)
        eventually(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels))

    def url(self, *, user: str = "app", password: str = APP, certified: bool = True) -> str:
        places = ",".join(f"localhost:{sentinel.port}" for sentinel in self.sentinels)
        own = f"&ssl_certfile={self._path('server/cert.pem')}&ssl_keyfile={self._path('server/key.pem')}"
        options = f"ssl_ca_certs={self._path('trusted.pem')}{own if certified else ''}"
        return f"rediss+sentinel://{user}:{password}@{places}/{PRIMARY_NAME}?{options}"

    def ask(self, server: Server, *command: str, user: str | None = None, password: str = ADMIN) -> object:
        certificate, key = self.folder / "server/cert.pem", self.folder / "server/key.pem"
        with redis.Redis(
            port=server.port, username=user, password=password, ssl=True, ssl_ca_certs=str(self.folder / "trusted.pem"),
            ssl_certfile=str(certificate), ssl_keyfile=str(key), ssl_check_hostname=False, decode_responses=True,
        ) as client:  # fmt: skip
            return client.execute_command(*command)

    def primary(self) -> Server:
        return next(server for server in self.servers if server.process and self._role(server) == "master")

    def _role(self, server: Server) -> object:
        role = self.ask(server, "ROLE")
        assert isinstance(role, list)
        return role[0]

    def _path(self, name: str) -> str:
        return quote(str(self.folder / name), safe="")

    def _server(self, *options: str) -> Server:
        app = f"user app on >{APP} ~chat_messages:* ~chat_messages@* ~{{* +@all -@dangerous +role"
        lines = [f"requirepass {ADMIN}", f"masterauth {ADMIN}", app]
        return self._start("server", self.servers, lines, *options, "--save", "", "--appendonly", "no")

    def _sentinel(self, primary: Server) -> None:
        watcher = f"user watcher on >{WATCHER} -@all +sentinel|get-master-addr-by-name"
        own = [f"requirepass {ADMIN}", f"sentinel sentinel-pass {ADMIN}", watcher]
        own += [*sentinel_settings(primary.port), f"sentinel auth-pass {PRIMARY_NAME} {ADMIN}"]
        self._start("sentinel", self.sentinels, own, "--sentinel")

    def _start(self, kind: str, into: list[Server], lines: list[str], *options: str) -> Server:
        port, folder = free_port(), self.stack.enter_context(scratch_folder())
        of_tls = {
            "port": "0", "tls-port": port, "tls-replication": "yes", "tls-auth-clients": "yes",
            "tls-cert-file": self.folder / kind / "cert.pem", "tls-key-file": self.folder / kind / "key.pem",
            "tls-ca-cert-file": self.folder / "trusted.pem", "bind": "127.0.0.1", "dir": folder,
        }  # fmt: skip
        path = folder / f"{kind}.conf"
        path.write_text("\n".join([f"{name} {value}" for name, value in of_tls.items()] + lines) + "\n")
        server = Server([self.binary, str(path), *options], port, folder, self._answers)
        self.stack.callback(server.stop)
        server.start()
        into.append(server)
        return server

    def _answers(self, server: Server) -> bool:
        try:
            return bool(self.ask(server, "PING"))
        except (redis.RedisError, OSError):
            return False

    def _knows_all(self, sentinel: Server) -> bool:
        told = self.ask(sentinel, "SENTINEL", "MASTER", PRIMARY_NAME)
        state = dict(zip(told[::2], told[1::2], strict=True)) if isinstance(told, list) else told
        assert isinstance(state, dict)
        return (int(state["num-slaves"]), int(state["num-other-sentinels"])) == (1, 2)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    binary = shutil.which("redis-server")
    if binary is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no redis-server with TLS: apt-get install redis-server")
    with ExitStack() as stack:
        found = Secured(tmp_path_factory.mktemp("secured"), binary, stack)
        found.start()
        yield found


SIGNED_IN = {"sentinel_username": "watcher", "sentinel_password": WATCHER}


async def test_servers_and_sentinels_have_separate_users_and_certificates(secured: Secured) -> None:
    async with open_store(secured.url(), **SIGNED_IN) as store:
        assert (await store.append(KEY, [said("a")])).next_seq
        assert store.location.startswith("rediss+sentinel://localhost:")
        for secret in (APP, WATCHER):
            assert secret not in f"{store!r} {store.location}"


@pytest.mark.parametrize(
    ("url", "sentinels", "who"),
    [({}, {}, "sentinel"), ({}, {**SIGNED_IN, "sentinel_password": "wrong"}, "sentinel"),
     ({"password": "wrong"}, SIGNED_IN, "server"), ({"user": "watcher"}, SIGNED_IN, "server")],
)  # fmt: skip
async def test_an_error_names_the_server_that_refuses_the_user(
    secured: Secured, url: dict[str, str], sentinels: dict[str, str], who: str
) -> None:
    with pytest.raises(ConfigurationError, match="password") as caught:
        await open_store(secured.url(**url), **sentinels).open()
    refusing = secured.sentinels if who == "sentinel" else secured.servers
    assert any(f":{server.port} " in str(caught.value) for server in refusing)
    assert not any(secret in str(caught.value) for secret in (APP, WATCHER, ADMIN, "wrong"))


async def test_a_missing_client_certificate_is_refused(secured: Secured) -> None:
    with pytest.raises(StoreUnavailableError):
        await open_store(secured.url(certified=False), retries=0, timeout=2, **SIGNED_IN).open()


@pytest.mark.parametrize(
    ("what", "instead"),
    [("localhost", "127.0.0.1"), ("trusted.pem", "sentinel%2Fcert.pem"), ("trusted.pem", "server%2Fcert.pem")],
    ids=["sentinels by another name", "servers that nobody vouches for", "sentinels that nobody vouches for"],
)
async def test_certificates_of_servers_and_of_sentinels_are_checked(secured: Secured, what: str, instead: str) -> None:
    with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await open_store(secured.url().replace(what, instead), retries=0, **SIGNED_IN).open()


async def test_a_failover_over_tls_is_survived(secured: Secured) -> None:
    # A busy machine takes its time for the election.
    async with open_store(secured.url(), failover_timeout=120, **SIGNED_IN) as store:
        key = ThreadKey("failover")
        assert await store.append(key, [said("a")]) == Appended(0, 1)
        await asyncio.to_thread(eventually, lambda: secured.ask(secured.primary(), "WAIT", "1", "100") == 1)
        victim = secured.primary()
        victim.kill()
        assert await store.append(key, [said("b")]) == Appended(1, 2)
        assert secured.primary() is not victim
