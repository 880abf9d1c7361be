"""A server of the Model Context Protocol that lists, searches and reads threads.

    from everthread.mcp import thread_server

    server = thread_server(store, tenant="acme")

`everthread mcp` serves it over standard input and output. Needs the extra ``mcp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.mcp.server import thread_server as thread_server
    from everthread.mcp.stdio import serve_stdio as serve_stdio

__all__ = ["serve_stdio", "thread_server"]

__getattr__ = lazy_names(__name__, {"thread_server": "server", "serve_stdio": "stdio"}, "mcp")
