"""Clients of ``everthread mcp``: the protocol's own, over standard input and output of a real process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult

from everthread import Store, open_store
from tests.cli.driving import PROGRAM, environment

PATIENCE = 120.0


def over_stdio(home: Path, *arguments: str, **settings: str) -> Client:
    """Return a client that starts ``everthread mcp`` with these arguments."""
    server = StdioServerParameters(command=PROGRAM, args=["mcp", *arguments], env=environment(home, **settings))
    return Client(stdio_client(server), read_timeout_seconds=PATIENCE)


async def fill(url: str, work: Callable[[Store], Awaitable[Any]]) -> None:
    """Open a store, do the work with it, and close it."""
    async with open_store(url) as store:
        await work(store)


async def value(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool, and return the value of its result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    return result.structured_content


async def failure(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that fails, and return its text."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, text_of(result)
    return text_of(result)


def text_of(result: CallToolResult) -> str:
    [content] = result.content
    assert content.type == "text"
    return content.text
