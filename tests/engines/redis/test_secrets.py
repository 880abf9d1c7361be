"""Errors of connections to Redis: none shows a password, a token or a URL with credentials, in its whole chain."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import redis.asyncio as redis_py
from redis import exceptions
from redis.credentials import CredentialProvider

from everthread import EverthreadError, Store, open_store
from everthread.engines.redis import EntraCredentials, RedisStore
from tests.engines.redis.turns import KEY, said
from tests.servers import Server, free_port, redis_server

SECRET = "s3cret/päss:w@rd"
QUOTED = quote(SECRET, safe="")
USER = f"someone:{QUOTED}@"


def chain(error: BaseException) -> str:
    """Return everything that a log may show of an error and its causes: texts, attributes and tracebacks."""
    parts: list[str] = traceback.format_exception(error)
    shown: BaseException | None = error
    while shown is not None:
        parts += [str(shown), repr(shown), repr(vars(shown))]
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return "\n".join(parts)


async def assert_discreet(store: Store) -> None:
    with pytest.raises(EverthreadError) as caught:
        await store.append(KEY, [said("a")])
    for text in (chain(caught.value), repr(store), store.location):
        assert "s3cret" not in text
        assert QUOTED not in text


class Failing(CredentialProvider):
    """A provider whose error quotes the credentials."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    async def get_credentials_async(self) -> tuple[str, str]:
        raise self._error(f"the credentials are {SECRET}")


@contextlib.asynccontextmanager
async def replying(reply: bytes) -> AsyncIterator[int]:
    """A server that answers every command with an error."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write((b"-" + reply + b"\r\n") * data.count(b"*"))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1]
    listening.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://{user}127.0.0.1:{port}/2",
        "rediss://{user}127.0.0.1:{port}",
        "unix://{user}/no/such/socket",
        "redis+cluster://{user}127.0.0.1:{port}",
        "redis+sentinel://{user}127.0.0.1:{port}/name?sentinel_password={password}",
    ],
)
async def test_an_unreachable_server_shows_no_secret(url: str) -> None:
    target = url.format(user=USER, password=QUOTED, port=free_port())
    await assert_discreet(open_store(target, retries=0, timeout=0.5))


@pytest.mark.parametrize(
    "url",
    [
        "redis://someone:s3cret/päss:w@rd@localhost:port",
        f"redis://{USER}localhost?unknown=1",
        f"redis://{USER}localhost?timeout=s3cret",
        f"redis://{USER}localhost?socket_timeout=s3cret",
        f"redis://{USER}localhost/s3cret",
        f"redis+sentinel://{USER}localhost",
        f"redis+cluster://{USER}localhost:port",
        f"redis+cluster://{USER}localhost/3",
    ],
)
def test_a_wrong_url_shows_no_secret(url: str) -> None:
    with pytest.raises(EverthreadError) as caught:
        open_store(url)
    shown = chain(caught.value).replace(f'open_store("{url}")', "")
    assert SECRET not in shown
    assert QUOTED not in shown


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "rediss"])
async def test_a_refused_password_shows_no_secret(scheme: str) -> None:
    with redis_server("redis", "--requirepass", "another") as server:
        await assert_discreet(open_store(f"{scheme}://{USER}127.0.0.1:{server.port}", retries=0, timeout=2))


@pytest.mark.parametrize(
    "reply",
    [
        f"ERR unknown command 'AUTH', with args beginning with: 'someone' '{SECRET}'",
        f"ERR this proxy has no user {SECRET}",
        f"ERR this proxy has no user {QUOTED}",
        f"WRONGPASS {SECRET}",
        f"NOPERM {SECRET}",
        f"LOADING {SECRET}",
        f"READONLY {SECRET}",
    ],
)
async def test_a_server_that_quotes_the_password_is_not_quoted(reply: str) -> None:
    async with replying(reply.encode()) as port:
        await assert_discreet(open_store(f"redis://{USER}127.0.0.1:{port}", retries=0, timeout=2))


@pytest.mark.parametrize("kind", [ValueError, KeyError, exceptions.AuthenticationError, exceptions.RedisError, OSError])
async def test_the_error_of_a_credential_provider_is_not_quoted(
    plain_redis_server: Server, kind: type[Exception]
) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}"
    await assert_discreet(open_store(url, credential_provider=Failing(kind), retries=0))


async def test_the_error_of_an_entra_credential_is_not_quoted(plain_redis_server: Server) -> None:
    def get_token(*scopes: str) -> object:
        raise RuntimeError(f"account {SECRET}")

    provider = EntraCredentials(SimpleNamespace(get_token=get_token))
    await assert_discreet(open_store(f"redis://127.0.0.1:{plain_redis_server.port}", credential_provider=provider))


@pytest.mark.parametrize("make", [lambda port: free_port(), lambda port: port], ids=["unreachable", "refused"])
@pytest.mark.slow
async def test_a_callers_client_shows_no_secret(plain_redis_server: Server, make: Callable[[int], int]) -> None:
    client = redis_py.Redis(port=make(plain_redis_server.port), username="someone", password=SECRET)
    await assert_discreet(RedisStore.from_client(client))
    await client.aclose()
