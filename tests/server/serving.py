"""A real server for applications: uvicorn, in a thread with an event loop of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from tests.server.clients import PATIENCE
from tests.servers import free_port


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on loopback, and return its address."""
    listening = socket.create_server(("127.0.0.1", free_port()))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        end = time.monotonic() + PATIENCE
        while not server.started:
            assert thread.is_alive(), "the server has stopped"
            assert time.monotonic() < end, "the server has not started"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
