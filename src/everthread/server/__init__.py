"""Threads over HTTP, for applications on Starlette and FastAPI.

    from everthread.server import Access, thread_api

    app.mount("/threads", thread_api(store, authorize=authorize))

Needs the extra ``server``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names
from everthread.server.access import Access as Access
from everthread.server.access import Authorize as Authorize

if TYPE_CHECKING:
    from everthread.server.api.app import ThreadApi as ThreadApi
    from everthread.server.api.app import thread_api as thread_api

__all__ = ["Access", "Authorize", "ThreadApi", "thread_api"]

__getattr__ = lazy_names(
    __name__,
    {"ThreadApi": "api.app", "thread_api": "api.app"},
    "server",
    # An application on FastAPI has the first one without the extra.
    imported=("starlette", "sse_starlette", "anyio"),
)
