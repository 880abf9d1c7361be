"""Empty places on each of the engines, and programs of their own for them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from everthread import Store, open_store
from everthread.wrappers.encryption.encrypted import Encrypted
from tests.postgres_server import fresh_url
from tests.wrappers.sealed_places import KEYRING

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


def adapted_store(request: pytest.FixtureRequest, engine: str) -> Store:
    """An empty store for the tests of an adapter, which may be ``encrypted``."""
    if engine == "encrypted":
        return Encrypted(open_store("memory:"), KEYRING)
    return open_store(empty_place(request, engine))


def printed_by_python(code: str, *arguments: str) -> str:
    """Run a program in a process of its own; return what it prints, and fail if it complains."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not done.stderr
    return done.stdout
