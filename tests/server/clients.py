"""Clients of the thread API: in the process, over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import ASGIApp

from everthread import Store
from everthread.server import Access, thread_api

PATIENCE = 60.0


async def authorize(request: Request) -> Access:
    """Take the rights from headers, as a test sets them."""
    user = request.headers.get("x-user")
    if user is None:
        raise HTTPException(401, "Log in.", {"WWW-Authenticate": "Bearer"})
    return Access(user, may_write="x-reader" not in request.headers)


def mounted(store: Store, **options: Any) -> Starlette:
    """Return an application with the API at /threads."""
    return Starlette(routes=[Mount("/threads", thread_api(store, authorize=authorize, **options))])


def client(store: Store, user: str = "ana", **headers: str) -> httpx.AsyncClient:
    """Return a client of an application with the API at /threads."""
    transport = httpx.ASGITransport(mounted(store))
    return httpx.AsyncClient(transport=transport, base_url="http://x/threads", headers={"x-user": user, **headers})


class Event(NamedTuple):
    """An event of a stream."""

    name: str
    id: str
    data: str


class Stream:
    """A response that arrives in parts. httpx collects a whole response of an ASGI application."""

    def __init__(self, parts: asyncio.Queue[dict[str, Any]]) -> None:
        self._parts = parts
        self._text = ""
        self.status = 0

    async def start(self) -> None:
        self.status = (await self._next())["status"]

    async def body(self) -> bytes:
        """Return the rest of a response that ends."""
        body = self._text.encode()
        while True:
            part = await self._next()
            body += part.get("body", b"")
            if not part.get("more_body"):
                return body

    async def event(self) -> Event:
        """Return the next event."""
        while True:
            text, separator, rest = self._text.partition("\r\n\r\n")
            if separator:
                self._text = rest
                fields = dict(line.split(": ", 1) for line in text.split("\r\n"))
                return Event(fields.get("event", "message"), fields["id"], fields.get("data", ""))
            part = await self._next()
            assert part.get("more_body"), "the stream has ended"
            self._text += part["body"].decode()

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return await self._parts.get()


@asynccontextmanager
async def stream(app: ASGIApp, path: str, user: str = "ana", **headers: str) -> AsyncIterator[Stream]:
    """Send a GET request to an application, and disconnect at the end of the block."""
    raw, _, query = path.encode().partition(b"?")
    fields = {"x-user": user} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": raw.decode(),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "client": ("127.0.0.1", 1),
        "server": ("x", 80),
    }
    parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    gone = asyncio.Event()
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    task = asyncio.create_task(app(scope, receive, parts.put))
    try:
        opened = Stream(parts)
        await opened.start()
        yield opened
    finally:
        gone.set()
        await asyncio.wait_for(task, PATIENCE)
