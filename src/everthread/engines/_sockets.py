"""Disconnect after the event loop of a connection was closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket


def disconnect(transport: asyncio.BaseTransport) -> None:
    """Close a transport's connection without its event loop, which ``transport.abort()`` needs.

    The server sees the end immediately. Python frees the file descriptor with the transport, under a `ResourceWarning`.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # uvloop disconnects when it closes the loop; its sockets have no `shutdown`.
        with contextlib.suppress(OSError, TypeError):
            connection.shutdown(socket.SHUT_RDWR)
