"""A server with OpenAI's chat completions that says what a test tells it to say, and refuses what OpenAI refuses.

Imports no framework, so that it serves the tests of every release.
"""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Call:
    """A tool call in a script."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    id: str = ""


HOLD = object()
"""Last in a streamed reply: says nothing more until the client hangs up."""

Reply = str | Exception | list[Any]
"""What a model says: text, a failure, or several texts, tool calls and contents in one message."""


class Failure(Exception):
    """A reply with an HTTP status that is none of success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class RefusedError(Exception):
    """What a service would answer with HTTP 400."""


class Script:
    """The replies to come, and when they run out, always the same; and all requests so far."""

    def __init__(self, *replies: Reply, then: Reply = "Done.") -> None:
        self.replies = list(replies)
        self.then = then
        self.calls = 0

    def next(self) -> list[Any]:
        reply = self.replies.pop(0) if self.replies else self.then
        if isinstance(reply, Exception):
            raise reply
        return [self._identified(part) for part in ([reply] if isinstance(reply, str) else reply)]

    def _identified(self, part: Any) -> Any:
        """Return a call with an ID. The call of the script stays as it is: other scripts may contain it."""
        if not isinstance(part, Call) or part.id:
            return part
        self.calls += 1
        return replace(part, id=f"call_{self.calls}")


def refuse_invalid(messages: Sequence[tuple[str, Sequence[str], str | None]]) -> None:
    """Refuses what OpenAI refuses, given role, ids of the calls made and id of the call answered of each message.

    Source: the error texts of https://api.openai.com/v1/chat/completions for such requests.
    """
    waiting: set[str] = set()
    for role, calls, answered in messages:
        if role == "tool":
            if answered not in waiting:
                raise RefusedError("messages with role 'tool' must be a response to a preceding 'tool_calls'")
            waiting.remove(answered)
            continue
        if waiting:
            raise RefusedError("'tool_calls' must be followed by tool messages responding to each 'tool_call_id'")
        waiting = set(calls)
    if waiting:
        raise RefusedError("'tool_calls' must be followed by tool messages responding to each 'tool_call_id'")


@dataclass
class ScriptedOpenAI:
    """A running server: its address, all requests, and what came to pass with a reply on `HOLD`."""

    script: Script
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)


@contextmanager
def scripted_openai(*replies: Reply, then: Reply = "Done.") -> Iterator[ScriptedOpenAI]:
    """A server with OpenAI's chat completions, streaming and not, that follows a script and refuses as OpenAI does."""
    state = ScriptedOpenAI(Script(*replies, then=then))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(body)
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            try:
                refuse_invalid([_wire_shape(message) for message in body["messages"]])
                parts = state.script.next()
            except Exception as error:
                state.refused.append(str(error))
                self._send(
                    getattr(error, "status", 400), {"error": {"message": str(error), "type": "invalid_request_error"}}
                )
                return
            if body.get("stream"):
                self._stream(parts)
            else:
                self._send(200, _completion(len(state.requests), parts))

        def _send(self, status: int, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, parts: list[Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for delta, finish in _deltas(parts):
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                head = {"id": f"chat-{len(state.requests)}", "object": "chat.completion.chunk", "created": 1}
                chunk = head | {"model": "scripted", "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            if HOLD in parts:
                state.holding.set()
                select.select([self.connection], [], [])
                state.hung_up.set()
                return
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler) as address:
        state.url = f"{address}/v1"
        yield state


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A running server with this handler: gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _wire_shape(message: Mapping[str, Any]) -> tuple[str, Sequence[str], str | None]:
    return message["role"], [call["id"] for call in message.get("tool_calls") or []], message.get("tool_call_id")


def _wire_call(index: int, call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"index": index, "id": call.id, "type": "function", "function": function}


def _completion(number: int, parts: list[Any]) -> dict[str, Any]:
    calls = [_wire_call(index, part) for index, part in enumerate(p for p in parts if isinstance(p, Call))]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(p for p in parts if isinstance(p, str)) or None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": f"chat-{number}", "object": "chat.completion", "created": 1, "model": "scripted"}
    return head | {"choices": [choice], "usage": usage}


def _deltas(parts: list[Any]) -> Iterator[tuple[dict[str, Any], str | None]]:
    calls = [part for part in parts if isinstance(part, Call)]
    for part in parts:
        if isinstance(part, str):
            half = len(part) // 2
            yield {"role": "assistant", "content": part[:half]}, None
            yield {"content": part[half:]}, None
    for index, call in enumerate(calls):
        whole = _wire_call(index, call)
        arguments = whole["function"].pop("arguments")
        yield {"role": "assistant", "tool_calls": [whole | {"function": whole["function"] | {"arguments": ""}}]}, None
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}, None
    if HOLD not in parts:
        yield {}, "tool_calls" if calls else "stop"
