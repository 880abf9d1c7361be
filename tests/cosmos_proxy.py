"""A proxy before the emulator of Cosmos DB that makes requests fail as the service and the network do."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from email.message import Message
from enum import Enum
from typing import NamedTuple

from tests.proxies import Answer, Proxy, ProxyHandler


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


class FaultyProxy(Proxy):
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
        self._lock = threading.Lock()
        self._ending = threading.Event()
        super().__init__(self._handler(upstream))

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        super().__exit__()

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

    def _handler(self, port: int) -> type[ProxyHandler]:
        proxy = self

        class Handler(ProxyHandler):
            upstream = port

            def respond(self, body: bytes) -> None:
                if len(body) > proxy.most_bytes:
                    return self.answer(413, proxy.told)
                if proxy.forbidden and "/docs" not in self.path:
                    return self.answer(403, proxy.told)
                if self.path in proxy.answers:
                    return self.answer(*self._told_otherwise(body))
                fault = proxy.fate(Request(_verb(self.command, self.headers), self.path, body))
                if fault is None:
                    return self.answer(*self.forwarded(body))
                if fault in LANDED:
                    self.forwarded(body)
                if fault is Fault.SILENT_AFTERWARDS:
                    proxy._ending.wait(60)
                if abs(fault.value) >= 400:
                    return self.answer(proxy.status or abs(fault.value), proxy.told)
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return None

            def _told_otherwise(self, body: bytes) -> Answer:
                status, headers, data = self.forwarded(body)
                said = {**json.loads(data), **proxy.answers[self.path]} if status == 200 else proxy.answers[self.path]
                return 200, headers, json.dumps(said).encode()

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
