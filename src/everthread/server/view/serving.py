"""Serving the viewer on loopback, until it is interrupted."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from everthread.errors import ConfigurationError
from everthread.server.view.app import Shown, viewer
from everthread.server.view.gate import PARAMETER, Gate

HOST = "127.0.0.1"


async def serve(shown: Shown, port: int, *, on_ready: Callable[[str], None], on_used: Callable[[str], None]) -> None:
    """Serve the viewer on a port of loopback; 0: a free port. An interrupt ends it.

    Args:
        shown: The store to show.
        port: The port.
        on_ready: Receives the address with its token.
        on_used: Receives the next address, after a browser has used one.

    Raises:
        ConfigurationError: The port is in use.
    """
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on port {port} of {HOST}: {error.strerror}. Choose another.") from None
    with listening:
        base = f"http://{HOST}:{listening.getsockname()[1]}/?{PARAMETER}="
        gate = Gate(viewer(shown), lambda token: on_used(base + token))
        config = uvicorn.Config(
            gate,
            log_level="error",
            access_log=False,
            lifespan="off",
            server_header=False,
            # Followers and open connections do not keep it alive.
            timeout_graceful_shutdown=0,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        on_ready(base + gate.token)
        await server.serve(sockets=[listening])
