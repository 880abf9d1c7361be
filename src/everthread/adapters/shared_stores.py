"""Stores that adapters open by URL: one for each event loop and place.

The betas make a message store for each conversation, without a running loop, and never close it. A connection each
would be expensive, so the message stores of one loop that name the same place share one `Store`. It is closed when the
last of them is closed or collected, or when the loop ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from everthread.contract import Store
from everthread.opening import open_store
from everthread.urls import as_url, parts_of, scheme_of
from everthread.wrappers.loop_bound import LoopBound

Options = tuple[tuple[str, Any], ...]

_in_use: WeakValueDictionary[Hashable, LoopBound[Any]] = WeakValueDictionary()
_changing = threading.Lock()


def opener(url: str, options: Mapping[str, Any] | None = None) -> Callable[[], Store]:
    """Return a function that makes stores of the same threads, not yet opened.

    They share threads in memory, and a relative path stays relative to the current folder.
    """
    url = as_url(url)
    scheme, shared = scheme_of(url), dict[str, Any]()
    if scheme == "memory":
        shared["threads"] = {}
    elif scheme == "sqlite":
        url = open_store(url).location + parts_of(url).query
    return partial(open_store, url, **shared, **(options or {}))


def shared_stores(url: str, options: Options) -> LoopBound[Store]:
    """Return the stores of a place, one for each loop. They live as long as a reference to the result."""
    return _shared((Store, url, *options), opener(url, dict(options)))


def shared_clients(url: str, options: Options) -> LoopBound[Any]:
    """Return redis-py clients of a server, one for each loop. They live as long as a reference to the result."""
    from everthread.engines.redis import client_of

    return _shared((client_of, url, *options), partial(client_of, url, **dict(options)))


def _shared(place: Hashable, make: Callable[[], Any]) -> LoopBound[Any]:
    with _changing:
        found = _in_use.get(place)
        if found is None:
            found = _in_use[place] = LoopBound(make)
        return found
