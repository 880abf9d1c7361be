"""A server with the streaming chat completions interface of OpenAI that says what a test tells it to say."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOLD = object()
"""In a script: says nothing more until the client hangs up."""


class ScriptedModel:
    """Answers each request with the next reply of ``script``: a list of pieces of text, or a status for a refusal."""

    def __init__(self, script: list[list[Any] | int]) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.asked = threading.Event()
        self.hung_up = threading.Event()
        self.url = ""

    def texts(self, request: int = -1) -> list[tuple[str, str]]:
        """Role and text of each message of a request."""
        return [(message["role"], _text(message["content"])) for message in self.requests[request]["messages"]]


@contextmanager
def scripted_model(*script: list[Any] | int) -> Iterator[ScriptedModel]:
    model = ScriptedModel(list(script))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            model.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            reply = model.script.pop(0)
            model.asked.set()
            if isinstance(reply, int):
                self._refuse(reply)
            else:
                self._stream(reply)

        def _refuse(self, status: int) -> None:
            body = json.dumps({"error": {"message": f"no: {self.headers['Authorization']}"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, reply: list[Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for piece in reply:
                if piece is HOLD:
                    select.select([self.connection], [], [])
                    model.hung_up.set()
                    return
                self._event({"role": "assistant", "content": piece}, None)
            self._event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, delta: dict[str, str], finish: str | None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
            self.wfile.write(b"data: " + json.dumps(head | {"choices": [choice]}).encode() + b"\n\n")
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])
