"""Empty places on each of the engines."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.postgres_server import fresh_url

_names = itertools.count()


def empty_place(request: pytest.FixtureRequest, engine: str, options: str = "") -> str:
    """The URL of an empty store."""
    if engine == "memory":
        return "memory:" + (f"?{options}" if options else "")
    if engine == "postgres":
        return fresh_url(request.getfixturevalue("postgres"))
    if engine == "redis":
        port = request.getfixturevalue("plain_redis_server").port
        return f"redis://127.0.0.1:{port}?prefix=transfer{next(_names)}&{options}".rstrip("&")
    folder: Path = request.getfixturevalue("tmp_path")
    if engine == "objects":
        return f"file://{folder}/objects{next(_names)}"
    return f"sqlite:///{folder}/{next(_names)}.db?{options}".rstrip("?")
