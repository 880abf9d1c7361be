"""A proxy before the emulator of Cosmos DB that makes requests fail as the service and the network do."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from email.message import Message
from enum import Enum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self


class Request(NamedTuple):
    """A request on its way to the server.

    Attributes:
        verb: ``create``, ``upsert``, ``replace``, ``read``, ``query``, ``delete``, or what it is in HTTP.
    """

    verb: str
    path: str
    body: bytes

    @property
    def item_id(self) -> str:
        """The id of the item that it writes."""
        return str(json.loads(self.body)["id"])


class Fault(Enum):
    """What happens to a request: a status, or a broken connection, before or after the server has carried it out."""

    THROTTLED = 429
    RETRY_WITH = 449
    UNAVAILABLE = 503
    UNAVAILABLE_AFTERWARDS = -503
    TIMEOUT_AFTERWARDS = -408
    CUT = 0
    CUT_AFTERWARDS = -1
    SILENT_AFTERWARDS = -2


LANDED = [fault for fault in Fault if fault.value < 0]
"""Where the request was carried out, and its sender does not know."""

Plan = Callable[[Request], Fault | None]
"""Called with each request to an item, in a thread of the request's own; says what happens to it."""


def nothing(_: Request) -> None:
    """Hands everything on."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # many connections at the same moment are not refused

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a client that gave up is no error here."""


class FaultyProxy:
    """Stands on a port of its own; its items are those of the server behind it.

    Args:
        upstream: The server's port.

    Attributes:
        plan: What happens to each request.
        requests: What came, in order.
        struck: How many of them something happened to.
        most_bytes: Larger bodies are refused (413), as the service does and the emulator does not.
        status: Takes the place of a fault's own, if it is not 0.
        sub_status: Goes with every status.
        pause_ms: For so long it asks to wait, with every status.
        forbidden: Whether it refuses (403) everything that is not about items.
        answers: What the server says of itself at a path, in place of what it does say.
    """

    def __init__(self, upstream: int) -> None:
        self.plan: Plan = nothing
        self.requests: list[Request] = []
        self.struck = 0
        self.most_bytes = 2_000_000
        self.status = 0
        self.sub_status = 0
        self.pause_ms = 0
        self.forbidden = False
        self.answers: dict[str, dict[str, object]] = {}
        self._upstream = upstream
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._ending = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def told(self) -> dict[str, str]:
        """The headers of what the proxy answers itself."""
        return {"x-ms-substatus": str(self.sub_status), "x-ms-retry-after-ms": str(self.pause_ms)}

    def fate(self, request: Request) -> Fault | None:
        """What happens to a request."""
        if "/docs" not in request.path:
            return None
        with self._lock:
            self.requests.append(request)
        fault = self.plan(request)
        with self._lock:
            self.struck += fault is not None
        return fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if len(body) > proxy.most_bytes:
                    return self._answer(413)
                if proxy.forbidden and "/docs" not in self.path:
                    return self._answer(403)
                if self.path in proxy.answers:
                    return self._answer(*self._told_otherwise(body))
                fault = proxy.fate(Request(_verb(self.command, self.headers), self.path, body))
                if fault is None:
                    return self._answer(*self._handed_on(body))
                if fault in LANDED:
                    self._handed_on(body)
                if fault is Fault.SILENT_AFTERWARDS:
                    proxy._ending.wait(60)
                if abs(fault.value) >= 400:
                    return self._answer(proxy.status or abs(fault.value))
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return None

            do_GET = do_PUT = do_POST = do_DELETE = handle_one

            def _handed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                connection = HTTPConnection("127.0.0.1", proxy._upstream, timeout=30)
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                data = response.read()
                connection.close()
                return response.status, dict(response.getheaders()), data

            def _told_otherwise(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                status, headers, data = self._handed_on(body)
                said = {**json.loads(data), **proxy.answers[self.path]} if status == 200 else proxy.answers[self.path]
                return 200, headers, json.dumps(said).encode()

            def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
                self.send_response_only(status)
                for name, value in (headers or proxy.told).items():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        return Handler


def _verb(method: str, headers: Message) -> str:
    if method == "POST":
        if headers.get("x-ms-documentdb-isquery") or "query" in headers.get("Content-Type", ""):
            return "query"
        return "upsert" if headers.get("x-ms-documentdb-is-upsert") else "create"
    return {"GET": "read", "PUT": "replace", "DELETE": "delete"}.get(method, method)


def each_once(fault: Fault, *verbs: str) -> Plan:
    """The first time that a request of these kinds comes (or of any), something happens to it; then it passes."""
    seen: set[Request] = set()

    def plan(request: Request) -> Fault | None:
        if (verbs and request.verb not in verbs) or request in seen:
            return None
        seen.add(request)
        return fault

    return plan


def always(fault: Fault, *verbs: str) -> Plan:
    """No request of these kinds (or of any) passes."""
    return lambda request: fault if not verbs or request.verb in verbs else None


def now_and_then(every: int) -> Plan:
    """Of every so many requests one meets a fault, each kind of fault in turn but the slow one."""
    faults = [fault for fault in Fault if fault is not Fault.SILENT_AFTERWARDS]
    count = 0

    def plan(_: Request) -> Fault | None:
        nonlocal count
        count += 1
        return faults[count // every % len(faults)] if count % every == 0 else None

    return plan
