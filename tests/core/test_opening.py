"""`open_store` finds engines, says what is wrong, and loads nothing that is not asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import everthread.opening as opening
from everthread import ConfigurationError, NewMessage, ThreadKey, open_store
from everthread.engines.memory import MemoryStore
from everthread.opening import schemes


async def test_a_url_opens_a_store() -> None:
    async with open_store("memory:?max_messages=2") as store:
        assert isinstance(store, MemoryStore)
        await store.append(ThreadKey("a"), [NewMessage(b"1")] * 3)
        assert len(await store.read(ThreadKey("a"))) == 2


async def test_each_memory_store_is_another() -> None:
    async with open_store("memory:") as one, open_store("memory:") as other:
        await one.append(ThreadKey("a"), [NewMessage(b"1")])
        assert await other.get_thread(ThreadKey("a")) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "threads.db",
        "nosuchscheme://x",
        "memory:elsewhere",
        "memory://host/x",
        "memory:?max_mesages=3",
        "memory:?max_messages=-1",
        "memory:?max_message_bytes=0",
        None,
        5,
    ],
)
def test_a_url_that_is_wrong_is_refused(url: object) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


def test_an_option_that_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="colour"):
        open_store("memory:", colour="red")


def test_an_unknown_scheme_names_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        open_store("nosuchscheme://x")
    assert {"memory", "redis", "sqlite"} <= set(schemes())


@pytest.mark.parametrize("value", ["no_such_module:Store", "everthread.engines.memory:NoSuchStore"])
def test_an_engine_that_cannot_be_loaded_is_a_typed_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(opening, "_entry_point", lambda scheme: EntryPoint(scheme, value, opening.GROUP))
    with pytest.raises(ConfigurationError, match="memory"):
        open_store("memory:")


def test_no_error_shows_the_password() -> None:
    for url in ("nosuchscheme://u:s3cret@h", "s3cret", "redis://u:s3cret@h?max_messages=x", "redis://u:s3cret@h:port"):
        with pytest.raises(ConfigurationError) as caught:
            open_store(url)
        assert "s3cret" not in str(caught.value)


def test_importing_everthread_loads_no_driver_framework_or_test_library() -> None:
    code = "import sys, everthread; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"redis", "sqlite3", "hypothesis", "pytest", "agent_framework", "openai", "click", "rich", "asyncpg"}
    assert not heavy & set(loaded)
    assert "everthread.testing" not in loaded


def test_the_public_names_are_there() -> None:
    import everthread

    assert all(hasattr(everthread, name) for name in everthread.__all__)
    assert sorted(everthread.__all__) == everthread.__all__
