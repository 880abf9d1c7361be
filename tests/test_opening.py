"""`open_store` finds engines, says what is wrong, and loads nothing that is not asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

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


@pytest.mark.parametrize("name", ["threads.db", "a b%20?#.sqlite3", "x.SQLITE"])
async def test_a_path_names_an_sqlite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (name, f"./{name}", tmp_path / name, str(tmp_path / name)):
        async with open_store(place) as store:
            await store.append(ThreadKey("a"), [NewMessage(b"1")])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    async with open_store(tmp_path / name) as store:
        assert len(await store.read(ThreadKey("a"))) == 4


async def test_each_memory_store_is_another() -> None:
    async with open_store("memory:") as one, open_store("memory:") as other:
        await one.append(ThreadKey("a"), [NewMessage(b"1")])
        assert await other.get_thread(ThreadKey("a")) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "threads",
        "threads.txt",
        "host:6379/threads.db",
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
    with pytest.raises(ConfigurationError, match="color"):
        open_store("memory:", color="red")


def test_an_unknown_scheme_names_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        open_store("nosuchscheme://x")
    assert {"memory", "redis", "sqlite"} <= set(schemes())


@pytest.mark.parametrize("value", ["no_such_module:Store", "everthread.engines.memory:NoSuchStore"])
def test_an_engine_that_cannot_be_loaded_is_a_typed_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(opening, "_entry_point", lambda scheme: EntryPoint(scheme, value, opening.GROUP))
    with pytest.raises(ConfigurationError, match="memory"):
        open_store("memory:")


def install(folder: Path, name: str, entry_points: str, code: str = "") -> None:
    """Makes a package of somebody else's in a folder of the import path."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_another_package_cannot_replace_an_engine(folder: Path) -> None:
    install(folder, "impostor", "[everthread.engines]\nmemory = impostor:Store\n", "raise SystemExit")
    assert isinstance(open_store("memory:"), MemoryStore)


def test_another_packages_engine_is_found(folder: Path) -> None:
    code = "from everthread.engines.memory import MemoryStore\nclass Store(MemoryStore): from_url = lambda url: Store()"
    install(folder, "addon", "[everthread.engines]\naddon = addon:Store\n", code)
    assert type(open_store("addon://x")).__module__ == "addon"


def test_two_packages_with_one_scheme_are_both_named(folder: Path) -> None:
    for name in ("left", "right"):
        install(folder, name, f"[everthread.engines]\nshared = {name}:Store\n")
    with pytest.raises(ConfigurationError, match="left:Store, right:Store"):
        open_store("shared://x")


@pytest.mark.parametrize(
    ("entry_points", "code"),
    [
        ("[everthread.engines]\nbroken = broken:Store\n", "1/0"),
        ("[everthread.engines]\nbroken = broken:Store\n", "def ("),
        ("[everthread.engines]\nbroken = broken:Store\n", "Store = 1"),
        ("[everthread.engines]\nbroken\n", ""),
        ("[everthread.engines]\nbroken = !!\n", ""),
    ],
)
def test_a_broken_package_breaks_no_other_engine(folder: Path, entry_points: str, code: str) -> None:
    install(folder, "broken", entry_points, code)
    sys.modules.pop("broken", None)
    assert isinstance(open_store("memory:"), MemoryStore)
    with pytest.raises(ConfigurationError):
        open_store("broken://x")
    assert "redis" in schemes()


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
