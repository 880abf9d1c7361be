"""Who may speak to Redis: certificates on both sides, users with few rights, and tokens of Entra ID that run out."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import redis as redis_sync
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.credentials import StreamingCredentialProvider

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
from everthread.engines.redis import EntraCredentials, RedisStore
from everthread.engines.redis.keys import ThreadNames
from everthread.model import NewMessage
from tests.engines.redis.fronts import front, make_certificate
from tests.engines.redis.turns import KEY, said
from tests.redis_topologies import ask, cluster_of_one, redis_cluster, redis_sentinels
from tests.servers import Server, redis_server

pytestmark = pytest.mark.slow

USER = "0a1b2c3d-user-of-entra"


# TLS


async def test_a_client_certificate_is_sent(plain_redis_server: Server, fresh_prefix: str, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    async with front(plain_redis_server.port, tls=context) as strict:
        url = f"rediss://127.0.0.1:{strict.port}?prefix={fresh_prefix}&ssl_ca_certs={quote(str(certificate))}"
        own = f"&ssl_certfile={quote(str(certificate))}&ssl_keyfile={quote(str(key))}"
        async with open_store(url + own) as store:
            assert await store.append(KEY, [said("a")]) == Appended(0, 1)
        with pytest.raises(StoreUnavailableError):
            await open_store(url, retries=0).open()


async def test_cluster_certificates_are_checked_for_the_urls_name(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with cluster_of_one() as server:
        async with front(server.port, tls=context) as encrypting:
            # The server tells of itself by its number, as those of Azure do.
            await asyncio.to_thread(ask, server.port, "CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
            await asyncio.to_thread(ask, server.port, "CONFIG", "SET", "cluster-announce-port", str(encrypting.port))
            url = f"rediss+cluster://localhost:{encrypting.port}?ssl_ca_certs={quote(str(certificate))}"
            async with open_store(url) as store:
                await asyncio.gather(*(store.append(ThreadKey(f"t{i}"), [said("a")]) for i in range(20)))
                assert len(await store.list_threads()) == 20
            wrong = url.replace("localhost", "127.0.0.1")
            with pytest.raises(StoreUnavailableError):
                await open_store(wrong, retries=0).open()


# Rights

RIGHTS = (
    "+evalsha +eval +multi +exec +hello +ping +select "
    "+time +hmget +hget +hset +hdel +hkeys +llen +lrange +lindex +rpush +lpush +ltrim +lpop +rpop "
    "+zadd +zrem +zscore +zcount +zrevrange +zrangebyscore +zremrangebyscore +zremrangebyrank "
    "+pexpire +pttl +persist +unlink"
)
MORE_RIGHTS = {"cluster": "+asking +cluster|slots", "sentinel": "+role", "wait_replicas": "+wait", "--repair": "+scan"}
"""As docs/engines/redis.md lists them."""
KEYS = ("~chat_messages:*", "~chat_messages@*", "~{*")


async def use_everything(store: Store) -> None:
    for key in (KEY, ThreadKey("a}b{c}", "tenant"), *(ThreadKey(f"t{i}", "tenant") for i in range(10))):
        await store.append(key, [said("a")] * 3, append_id="a", retention=Retention(max_messages=2))
        assert (await store.append(key, [said("a")] * 3, append_id="a")).replayed
        await store.append(
            key, [NewMessage(b"1", "json", ("c", "open"), ()), NewMessage(b"2", "json", (), ("c", "unknown"))]
        )
        await store.truncate(key, start=2, stop=4)
        await store.update_thread(key, title="t", metadata={"a": 1})
        await store.put_document(key, "d", b"1")
        assert await store.get_document(key, "d") is not None
        assert await store.list_documents(key) == ("d",)
        assert await store.delete_document(key, "d")
        await store.read(key)
        await store.read(key, start=1, stop=9)
    assert len(await store.list_threads("tenant", limit=20)) == 11
    assert await store.delete_tenant("tenant") == 11
    assert await store.delete_thread(KEY)


@pytest.mark.parametrize(("kind", "make"), [("cluster", redis_cluster), ("sentinel", redis_sentinels)])
async def test_the_documented_rights_suffice_with_replicas(kind: str, make: Callable[[], Any]) -> None:
    manual = " ".join(Path("docs/engines/redis.md").read_text().split())
    rights = [*RIGHTS.split(), *MORE_RIGHTS[kind].split(), *MORE_RIGHTS["wait_replicas"].split()]
    assert RIGHTS in manual
    assert all(f"`{more}`" in manual for more in MORE_RIGHTS.values())
    with make() as topology:
        for server in topology.servers:
            ask(server.port, "ACL", "SETUSER", "app", "on", ">pw", *KEYS, "-@all", *rights)
        async with open_store(f"{topology.url}?wait_replicas=1".replace("://", "://app:pw@")) as store:
            await use_everything(store)
            with pytest.raises(ConfigurationError, match="does not allow this user"):
                await store.reconcile()
            for server in topology.servers:
                ask(server.port, "ACL", "SETUSER", "app", MORE_RIGHTS["--repair"])
            assert await store.reconcile(repair=True) == ()


async def test_the_documented_rights_suffice_on_a_single_server(server: Server) -> None:
    ask(server.port, "ACL", "SETUSER", "app", "on", ">pw", *KEYS, "-@all", *RIGHTS.split())
    async with open_store(f"redis://app:pw@127.0.0.1:{server.port}/1") as store:
        await use_everything(store)


@pytest.mark.parametrize("right", RIGHTS.split()[8:])
async def test_an_append_that_lacks_a_right_leaves_nothing(server: Server, fresh_prefix: str, right: str) -> None:
    ask(server.port, "ACL", "SETUSER", "app", "on", ">pw", "~*", "-@all", *RIGHTS.split(), f"-{right[1:]}")
    url = f"redis://127.0.0.1:{server.port}?prefix={fresh_prefix}"
    turn = [NewMessage(b"1", "json", ("c", "open"), ()), NewMessage(b"2", "json", (), ("c", "unknown")), said("a")]
    async with open_store(url) as admin, open_store(url.replace("//", "//app:pw@")) as poor:
        await admin.append(KEY, [said("first")])
        before = await admin.read(KEY)
        try:
            await poor.append(KEY, turn, append_id="a", retention=Retention(max_messages=9), default_title="t")
        except ConfigurationError:
            assert await admin.read(KEY) == before
            assert not (await admin.append(KEY, turn, append_id="a")).replayed
        assert [message.turn for message in await admin.read(KEY)] == [0, 1, 1, 1]


# Rights of one tenant

PIECES = (
    "chat_messages",
    "@",
    "acme",
    ":",
    "{",
    "}",
    "{chat_messages@acme:x}",
    "meta",
    "docs",
    "recent",
    "%",
    "*",
    "é",
)


def rights_of_acme() -> list[str]:
    """The command in the manual that makes the user, without its first words."""
    manual = Path("docs/how-to/tenants.md").read_text().partition("ACL SETUSER acme ")[2].partition("\n\n")[0]
    return manual.replace(">PASSWORD", ">pw").split()


@pytest.fixture(scope="module")
def with_acme() -> Iterator[redis_sync.Redis]:
    with redis_server("redis") as server, redis_sync.Redis(port=server.port, decode_responses=True) as admin:
        admin.execute_command("ACL", "SETUSER", "acme", *rights_of_acme())
        yield admin


def reaches(admin: redis_sync.Redis, names: Sequence[bytes]) -> list[bool]:
    return [admin.execute_command("ACL", "DRYRUN", "acme", "PTTL", name) in (True, "OK") for name in names]


@settings(deadline=None, max_examples=200)
@given(
    prefix=st.sampled_from(["chat_messages", "chat", "a:b", "chat_messages%40acme"]),
    tenant=st.sampled_from(["", "acm", "acme2", "acme:x", "@acme", "a*", "ACME", "{acme}"]),
    pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6),
)
def test_no_thread_id_reaches_another_tenants_rights(
    with_acme: redis_sync.Redis, prefix: str, tenant: str, pieces: list[str]
) -> None:
    names = ThreadNames(prefix, ThreadKey("".join(pieces), tenant))
    assert not any(reaches(with_acme, names.names))
    own = ThreadNames("chat_messages", ThreadKey("".join(pieces).translate({123: None, 125: None}) or "x", "acme"))
    assert all(reaches(with_acme, own.names))


async def test_a_tenants_user_works_on_its_threads_alone(with_acme: redis_sync.Redis) -> None:
    port = with_acme.connection_pool.connection_kwargs["port"]
    victim = ThreadKey("{chat_messages@acme:x}")
    async with (
        open_store(f"redis://127.0.0.1:{port}") as admin,
        open_store(f"redis://acme:pw@127.0.0.1:{port}") as acme,
    ):
        await admin.append(victim, [said("a")])
        await admin.put_document(victim, "d", b"1")
        await acme.append(ThreadKey("x", "acme"), [said("a")])
        assert len(await acme.list_threads("acme")) == 1
        with pytest.raises(ConfigurationError):
            await acme.get_document(victim, "d")
    mine = set(ThreadNames("chat_messages", ThreadKey("x", "acme")).names)
    for name in with_acme.keys("*"):
        assert reaches(with_acme, [name]) == [name.encode() in mine], name


@pytest.mark.parametrize("rights", [RIGHTS, f"{RIGHTS} {MORE_RIGHTS['wait_replicas']}"])
async def test_a_callers_client_reports_missing_replicas_and_rights(rights: str, fresh_prefix: str) -> None:
    with redis_server("redis") as server:
        ask(server.port, "ACL", "SETUSER", "app", "on", ">pw", "~*", "-@all", *rights.split())
        client = redis.asyncio.Redis(port=server.port, username="app", password="pw")
        async with RedisStore.from_client(client, prefix=fresh_prefix, wait_replicas=1, wait_timeout=50) as store:
            error = OutcomeUnknownError if "+wait" in rights else ConfigurationError
            with pytest.raises(error):
                await store.append(KEY, [said("a")])
            assert len(await store.read(KEY)) == 1
        await client.aclose()


async def test_a_missing_right_to_wait_is_reported(fresh_prefix: str) -> None:
    with redis_server("redis") as server:
        ask(server.port, "ACL", "SETUSER", "app", "on", ">pw", "~*", "-@all", *RIGHTS.split())
        url = f"redis://app:pw@127.0.0.1:{server.port}?prefix={fresh_prefix}&wait_replicas=1"
        async with open_store(url) as store:
            with pytest.raises(ConfigurationError, match="does not allow this user"):
                await store.append(KEY, [said("a")])


# Entra ID


def make_token(number: int) -> str:
    """A token in the form of Entra's, signed by nobody."""
    claims = json.dumps({"oid": USER, "n": number, "exp": int(time.time()) + 3600}).encode()
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", claims, b"signed"))


class ManagedIdentity(ThreadingHTTPServer):
    """The endpoint that App Service gives its programs, with a Redis that takes the newest token only."""

    def __init__(self, redis_port: int, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _TokenRequests)
        self.redis_port = redis_port
        self.seconds = seconds
        self.given = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/msi/token"

    def new_token(self) -> str:
        self.given += 1
        token = make_token(self.given)
        ask(self.redis_port, "ACL", "SETUSER", USER, "on", "resetpass", f">{token}", "~*", "+@all")
        return token


class _TokenRequests(BaseHTTPRequestHandler):
    server: ManagedIdentity

    def do_GET(self) -> None:
        assert "redis.azure.com" in self.path
        token = self.server.new_token()
        expires = int(time.time() + self.server.seconds)
        answer = {"access_token": token, "expires_on": expires, "resource": "redis", "token_type": "Bearer"}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with redis_server("redis") as server:
        ask(server.port, "ACL", "SETUSER", "default", "nopass", "on", "+@all")
        yield server


@pytest.fixture
def identity(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagedIdentity]:
    with ManagedIdentity(server.port, seconds=3) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url)
        monkeypatch.setenv("IDENTITY_HEADER", "a secret header")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        yield endpoint
        endpoint.shutdown()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.05)


def stats(server: Server) -> SimpleNamespace:
    with redis.Redis(port=server.port) as client:
        commands = client.info("commandstats").get("cmdstat_auth", {"calls": 0, "failed_calls": 0})
        return SimpleNamespace(**commands, clients=[each for each in client.client_list() if each["user"] == USER])


async def test_a_managed_identitys_token_is_renewed_on_the_open_connection(
    server: Server, identity: ManagedIdentity, fresh_prefix: str
) -> None:
    async with open_store(f"redis://127.0.0.1:{server.port}?auth=entra&prefix={fresh_prefix}") as store:
        await store.append(KEY, [said("a")])
        before = stats(server)
        assert len(before.clients) == 1
        await until(lambda: stats(server).calls >= before.calls + 2)
        after = stats(server)
        assert [client["id"] for client in after.clients] == [client["id"] for client in before.clients]
        assert after.failed_calls == 0
        assert identity.given >= 3
        assert await store.append(KEY, [said("b")]) == Appended(1, 2)
    given = identity.given
    await asyncio.sleep(0)
    assert stats(server).clients == []
    assert identity.given == given


async def test_a_connection_that_ends_for_its_token_is_made_again(
    server: Server, identity: ManagedIdentity, fresh_prefix: str
) -> None:
    async with open_store(f"redis://127.0.0.1:{server.port}?auth=entra&prefix={fresh_prefix}") as store:
        await store.append(KEY, [said("a")])
        ask(server.port, "CLIENT", "KILL", "USER", USER)
        assert await store.append(KEY, [said("b")]) == Appended(1, 2)
    assert identity.given >= 2


async def test_a_refused_token_is_a_configuration_error(server: Server) -> None:
    class Refusing:
        def get_token(self, *scopes: str) -> object:
            raise RuntimeError("account someone@example.org, secret hunter2")

    store = open_store(f"redis://127.0.0.1:{server.port}", credential_provider=EntraCredentials(Refusing()))
    with pytest.raises(ConfigurationError, match="Entra ID gave no token") as caught:
        await store.open()
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


async def test_an_unreachable_entra_id_is_an_unavailable_store(server: Server) -> None:
    def get_token(*scopes: str) -> object:
        raise ConnectionResetError("to an address that is nobody's business")

    credentials = EntraCredentials(SimpleNamespace(get_token=get_token))
    store = open_store(f"redis://127.0.0.1:{server.port}", credential_provider=credentials, retries=1)
    with pytest.raises(StoreUnavailableError, match="Entra ID cannot be reached") as caught:
        await store.open()
    assert "business" not in str(caught.value)


@pytest.mark.parametrize("token", ["no token", "a.b.c", "e30.e30.e30"])
async def test_a_token_without_a_user_is_a_configuration_error(server: Server, token: str) -> None:
    credential = SimpleNamespace(get_token=lambda *_: SimpleNamespace(token=token, expires_on=time.time() + 60))
    store = open_store(f"redis://127.0.0.1:{server.port}", credential_provider=EntraCredentials(credential))
    with pytest.raises(ConfigurationError, match="object ID") as caught:
        await store.open()
    assert token not in str(caught.value)


async def test_a_streaming_providers_token_renews_the_connection(server: Server, fresh_prefix: str) -> None:
    identity = ManagedIdentity(server.port, 60)
    identity.server_close()

    class Streaming(StreamingCredentialProvider):
        tell: Any = None

        async def get_credentials_async(self) -> tuple[str, str]:
            assert self.tell is not None, "it is asked before anybody listens"
            return USER, identity.new_token()

        def get_credentials(self) -> tuple[str, str]:
            raise AssertionError

        def on_next(self, callback: Callable[[Any], Any]) -> None:
            self.tell = callback

        def on_error(self, callback: Callable[[Exception], Any]) -> None:
            pass

        def is_streaming(self) -> bool:
            return True

    provider = Streaming()
    url = f"redis://127.0.0.1:{server.port}?prefix={fresh_prefix}"
    async with open_store(url, credential_provider=provider) as store:
        await store.append(KEY, [said("a")])
        before = stats(server)
        token = identity.new_token()
        await provider.tell(SimpleNamespace(get_value=lambda: token, try_get={"oid": USER}.get))
        await until(lambda: stats(server).calls == before.calls + 1)
        assert stats(server).failed_calls == 0
        await store.append(KEY, [said("b")])
