"""Serving a client over standard input and output."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    jsonrpc_message_adapter,
)

from everthread.mcp.outline import Outline

MAX_REQUEST_BYTES = 1024 * 1024
"""The longest request. A longer one gets an error as its answer."""
_STDIN = 0
_TOO_LONG = f"A request has at most {MAX_REQUEST_BYTES:,} bytes. Ask for less in one call."
_NO_MESSAGE = "This is no message of JSON-RPC: one JSON object in UTF-8, without lone surrogates."


class _Write(Protocol):
    async def send(self, item: SessionMessage, /) -> None: ...


class _Refused(NamedTuple):
    """A line that is no message of the protocol."""

    outline: Outline
    code: int
    reason: str


class _Lines:
    """The lines of a stream. ``refuse`` answers one that is no message or too long; an empty line takes its place.

    The protocol's library gives such a line no answer, and clients would wait for it.

    A daemon thread waits for each: it ends with the process, also if no line comes. A pool's thread would delay the end
    after Ctrl-C until the client closes the stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._has_ended = False
        self._answer: asyncio.Future[bytes | _Refused] | None = None
        self.refuse: Callable[[_Refused], Awaitable[None]] | None = None

    def end(self) -> None:
        """End as if the client had closed the stream."""
        self._has_ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(b"")

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> str:
        if self._has_ended:
            raise StopAsyncIteration
        loop = asyncio.get_running_loop()
        self._answer = answer = loop.create_future()

        def read() -> None:
            try:
                line = self._next()
            except OSError:
                line = b""
            # The loop may have been closed since.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: None if answer.done() else answer.set_result(line))

        threading.Thread(target=read, name="everthread-mcp-input", daemon=True).start()
        line = await answer
        if isinstance(line, _Refused):
            if self.refuse is not None:
                await self.refuse(line)
            # An empty line is no message: the protocol's library passes over it.
            return "\n"
        if not line:
            raise StopAsyncIteration
        return line.decode(errors="replace")

    def _next(self) -> bytes | _Refused:
        parts = self._parts()
        line = next(parts, b"")
        second = next(parts, None)
        if second is not None:
            return _Refused(Outline.of(chain((line, second), parts)), INVALID_REQUEST, _TOO_LONG)
        return line if not line.strip() or _is_message(line) else _Refused(Outline.of([line]), PARSE_ERROR, _NO_MESSAGE)

    def _parts(self) -> Iterator[bytes]:
        """Yield one line in parts of at most `MAX_REQUEST_BYTES`."""
        while part := self._stream.readline(MAX_REQUEST_BYTES):
            yield part
            if part.endswith(b"\n"):
                return


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over standard input and output, until it closes the input.

    The protocol's library writes no log: its records may quote requests.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the input.
    """
    log = logging.getLogger("mcp")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    # Not sys.stdin: at its end, the interpreter aborts if a thread waits for that.
    lines = _Lines(open(_STDIN, "rb", closefd=False))  # noqa: SIM115, ASYNC230 - never closed, opens no file
    with _interrupting(lines) as interrupted:
        async with stdio_server(stdin=cast(anyio.AsyncFile[str], lines)) as (read, write):
            lines.refuse = partial(_refuse, write)
            await server.run(read, write, server.create_initialization_options())
    if interrupted.is_set():
        raise KeyboardInterrupt


def _is_message(line: bytes) -> bool:
    try:
        message = jsonrpc_message_adapter.validate_json(line.decode(errors="replace"), by_name=False)
    except (ValueError, RecursionError):
        return False
    # The library takes a request with an ID of another type for a notification.
    return not isinstance(message, JSONRPCNotification) or "id" not in (Outline.of([line]).value() or {})


async def _refuse(write: _Write, refused: _Refused) -> None:
    """Answer a request that is no message or too long. Notifications and responses get no answer."""
    request = refused.outline.value()
    if request is not None and ("id" not in request or "method" not in request):
        return
    # JSON-RPC answers with null if the ID cannot be determined.
    given = None if request is None else request["id"]
    known = given if isinstance(given, (str, int)) and not isinstance(given, bool) else None
    if isinstance(known, str) and not known.isprintable():
        known = None
    error = ErrorData(code=refused.code, message=refused.reason)
    await write.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=known, error=error)))


@contextmanager
def _interrupting(lines: _Lines) -> Generator[asyncio.Event]:
    """End the lines at Ctrl-C. A second Ctrl-C ends the process.

    Without this, the event loop cancels the server's task, and the protocol's library sometimes continues to wait.
    """
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        interrupted.set()
        lines.end()

    # Windows has no such handlers, and other threads than the main one may set none.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
