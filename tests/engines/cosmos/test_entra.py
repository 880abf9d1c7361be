"""Cosmos DB opened with Entra ID: tokens come from a managed identity's endpoint. The emulator takes any token."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.identity.aio import ManagedIdentityCredential

from everthread import open_store
from everthread.engines.cosmos import CosmosStore
from everthread.errors import ConfigurationError
from everthread.model import NewMessage, ThreadKey
from everthread.testing.guarantees.discreet import shown_of
from tests.object_servers import cosmos_url
from tests.servers import Server

KEY = ThreadKey("a")
TURN = [NewMessage(b'"hello"')]
TOKEN = "header.secret-claims.signature"


class Identity(ThreadingHTTPServer):
    """The endpoint that App Service gives its programs.

    Attributes:
        asked: For which resources tokens were wanted.
        refuses: Whether it gives none.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tokens)
        self.asked: list[str] = []
        self.refuses = False


class _Tokens(BaseHTTPRequestHandler):
    server: Identity

    def do_GET(self) -> None:
        self.server.asked += parse_qs(urlsplit(self.path).query)["resource"]
        given = {"access_token": TOKEN, "expires_on": int(time.time()) + 3600, "resource": "x", "token_type": "Bearer"}
        self.send_response(400 if self.server.refuses else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"error": TOKEN} if self.server.refuses else given).encode())

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[Identity]:
    for name in ("AZURE_COSMOS_KEY", "AZURE_COSMOS_CONNECTIONSTRING"):
        monkeypatch.delenv(name, raising=False)
    with Identity() as endpoint:
        threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{endpoint.server_port}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "a secret header")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        yield endpoint
        endpoint.shutdown()


async def test_without_a_key_the_default_credential_is_taken(
    cosmos_emulator: Server, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with open_store(cosmos_url(cosmos_emulator)) as store:
            await store.append(KEY, TURN)
            assert len(await store.read(KEY)) == 1
            assert isinstance(store, CosmosStore)
            facts = {fact.name: fact.value for fact in await store.diagnose()}
    assert identity.asked
    assert facts["credential"] == "Entra ID, DefaultAzureCredential"
    assert TOKEN not in repr(store) + repr(facts) + caplog.text


async def test_a_callers_credential_is_used_and_stays_open(cosmos_emulator: Server, identity: Identity) -> None:
    async with ManagedIdentityCredential() as credential:
        async with open_store(cosmos_url(cosmos_emulator), credential=credential) as store:
            await store.append(KEY, TURN)
            assert isinstance(store, CosmosStore)
            assert store.storage.credential_name == "Entra ID, ManagedIdentityCredential"
        asked = len(identity.asked)
        # Of a resource that it has no token for, so that it must ask.
        assert (await credential.get_token("https://elsewhere.example/.default")).token == TOKEN
        assert len(identity.asked) == asked + 1


async def test_errors_of_missing_tokens_do_not_quote_answers(cosmos_emulator: Server, identity: Identity) -> None:
    identity.refuses = True
    with pytest.raises(ConfigurationError, match="Entra") as caught:
        await open_store(cosmos_url(cosmos_emulator)).open()
    assert "secret" not in shown_of(caught.value)
