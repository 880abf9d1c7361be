"""Threads over HTTP, for applications on Starlette and FastAPI.

    from everthread.server import Access, thread_api

    app.mount("/threads", thread_api(store, authorize=authorize))

Needs the extra ``server``.
"""

from __future__ import annotations

from everthread._extras import lazy_names
from everthread.server.access import Access as Access

__all__ = ["Access"]

__getattr__ = lazy_names(__name__, {}, "server", imported="starlette")
