"""Proxies in front of a server, for tests that need answers of a server in trouble."""

from __future__ import annotations

import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self

Answer = tuple[int, dict[str, str], bytes]
"""A status, headers and a body."""


class ProxyHandler(BaseHTTPRequestHandler):
    """Forwards requests to a server. A subclass overrides `respond`."""

    upstream: ClassVar[int]

    def respond(self, body: bytes) -> None:
        self.answer(*self.forwarded(body))

    def _handle(self) -> None:
        self.respond(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def forwarded(self, body: bytes) -> Answer:
        """Return the server's answer."""
        connection = HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), data

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # Many connections at the same moment are not refused.
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client that gave up is no error here."""


class Proxy:
    """Listens on a port of its own while it is entered."""

    def __init__(self, handler: type[ProxyHandler]) -> None:
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
