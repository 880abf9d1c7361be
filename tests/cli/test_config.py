"""Named stores: a file without secrets."""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from everthread import ConfigurationError, ThreadKey, new_message, open_store
from everthread.cli.durations import LONGEST, duration_of, in_words
from everthread.cli.group import everthread
from everthread.cli.named_stores import NamedStore, NamedStores, as_toml, check_name, load, save
from everthread.cli.places import find_place
from tests.cli.driving import PROGRAM, Tty


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "config.toml"
    monkeypatch.setenv("EVERTHREAD_CONFIG", str(path))
    for name in ("EVERTHREAD_STORE", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(everthread, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def printing(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({text!r})")


def test_a_store_is_named_used_shown_and_removed(config: Path, tmp_path: Path) -> None:
    assert run("config", "add", "home", f"sqlite:///{tmp_path}/a.db").exit_code == 0
    asyncio.run(open_store(f"sqlite:///{tmp_path}/a.db").open())
    assert run("threads", "@home").exit_code == 0
    assert json.loads(run("config", "show", "--json").stdout) == {
        "name": "home",
        "url": f"sqlite:///{tmp_path}/a.db",
        "schema": 1,
    }
    assert run("config", "path").stdout == f"{config}\n"
    assert run("config", "remove", "@home").exit_code == 0
    result = run("threads", "@home")
    assert result.exit_code == 1
    assert "no store @home" in result.stderr
    assert (tmp_path / "a.db").exists()


def test_no_named_stores_show_no_table(tmp_path: Path) -> None:
    with Tty(home=tmp_path, program=(PROGRAM, "config", "show")) as terminal:
        assert terminal.exit_status() == 0
        assert "No stores are named yet" in terminal.raw
        assert "secret from" not in terminal.raw


@pytest.mark.usefixtures("config")
def test_a_taken_name_requires_replace() -> None:
    run("config", "add", "a", "memory:")
    assert run("config", "add", "a", "sqlite:///b.db").exit_code == 2
    assert load().get("a").url == "memory:"
    assert run("config", "add", "a", "sqlite:///b.db", "--replace").exit_code == 0
    assert load().get("a").url == "sqlite:///b.db"


@pytest.mark.parametrize("url", ["redis://:geheim@h/0", "redis://u:geheim@h/0", "postgresql://h/d?password=geheim"])
def test_a_url_with_a_secret_is_refused(url: str, config: Path) -> None:
    result = run("config", "add", "prod", url)
    assert result.exit_code == 1
    assert "geheim" not in result.output
    assert "--password-env" in result.stderr
    assert not config.exists()


def test_a_secret_in_the_file_is_refused_without_printing_it(config: Path) -> None:
    config.parent.mkdir()
    config.write_text('[stores.prod]\nurl = "redis://:geheim@h/0"\n')
    for command in (("config", "show"), ("threads", "@prod")):
        result = run(*command)
        assert result.exit_code == 1
        assert "geheim" not in result.output


def test_a_password_comes_from_a_variable_or_a_command(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "p@ss/w:rd")
    by_variable = NamedStore("redis://app@[::1]:6380/0", password_env="SECRET", tenant="acme")
    by_command = NamedStore("redis://cache.example", password_command=printing("p%"))
    save(NamedStores({"a": by_variable, "b": by_command}))
    place = find_place("@a")
    assert (place.url, place.tenant) == ("redis://app:p%40ss%2Fw%3Ard@[::1]:6380/0", "acme")
    assert "ss" not in repr(place)
    assert find_place("@a", "other").tenant == "other"
    assert find_place("@b").url == "redis://:p%25@cache.example"
    assert "p@ss" not in config.read_text()


@pytest.mark.usefixtures("config")
def test_a_whole_url_comes_from_a_variable_or_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URL", "redis://u:p@h/0")
    save(NamedStores({"a": NamedStore(url_env="URL"), "b": NamedStore(url_command=printing("memory:"))}))
    assert find_place("@a").url == "redis://u:p@h/0"
    assert find_place("@b").url == "memory:"
    assert "u:p" not in run("config", "show").output


async def _kept(url: str, thread_id: str) -> tuple[int, float | None]:
    async with open_store(url) as store:
        thread = await store.get_thread(ThreadKey(thread_id))
    assert thread is not None
    expires = None if thread.expires_ms is None else (thread.expires_ms - thread.updated_ms) / 1000
    return thread.count, expires


def test_the_limits_of_a_named_store_apply_to_appends(config: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/small.db?max_message_bytes=1000"

    async def write() -> None:
        async with open_store(url) as store:
            for number in range(5):
                await store.append(ThreadKey("trip"), [new_message({"role": "user", "content": str(number)})])

    asyncio.run(write())
    assert run("config", "add", "small", url, "--max-messages", "3", "--expire-after", "336h").exit_code == 0
    assert run("config", "show").stdout.endswith("\t3 messages, 2w\n")
    assert run("fork", "@small", "trip", "--id", "other").exit_code == 0
    assert asyncio.run(_kept(url, "trip")) == (5, None)
    assert asyncio.run(_kept(url, "other")) == (3, 14 * 86_400)
    assert load(config).get("small").expire_after == "2w"


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("memory:", "--max-messages", "-1"), "max-messages"),
        (("memory:", "--expire-after", "soon"), "not a duration"),
        (("memory:", "--expire-after", "0d"), "not a duration"),
        (("memory:?max_messages=5", "--max-messages", "7"), "twice"),
    ],
    ids=["count", "words", "zero", "twice"],
)
def test_invalid_limits_are_refused(options: tuple[str, ...], says: str) -> None:
    result = run("config", "add", "small", *options)
    assert result.exit_code != 0
    assert says in result.stderr
    assert load().stores == {}


@pytest.mark.usefixtures("config")
def test_the_environment_can_name_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    save(NamedStores({"a": NamedStore("memory:", tenant="acme")}))
    monkeypatch.setenv("EVERTHREAD_STORE", "@a")
    assert (find_place(None).url, find_place(None).tenant) == ("memory:", "acme")
    assert find_place("sqlite:///b.db").tenant == ""


@pytest.mark.parametrize(
    ("store", "says"),
    [
        (NamedStore("redis://h", password_env="NOT_SET"), "NOT_SET"),
        (NamedStore("redis://h", password_command=("/no/such/program",)), "/no/such/program"),
        (NamedStore("redis://h", password_command=(sys.executable, "-c", "raise SystemExit(3)")), "CalledProcessError"),
        (NamedStore("redis://h", password_command=printing("")), "printed nothing"),
        (NamedStore("sqlite:///a.db", password_command=printing("x")), "names a host"),
    ],
)
def test_a_secret_that_cannot_be_fetched_is_an_error(store: NamedStore, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        store.full_url({})


@pytest.mark.parametrize(
    "text",
    [
        "stores = 7",
        "[stores.a]\nurl = 7",
        "[stores.a]",
        '[stores.a]\nurl = "memory:"\nurl_env = "X"',
        '[stores.a]\nurl = "redis://h"\npassword_env = "X"\npassword_command = ["y"]',
        '[stores.a]\nurl = "no scheme"',
        '[stores.a]\nurl = "memory:"\nunknown = 1',
        '[stores.a]\nurl = "memory:"\nmax_messages = -1',
        '[stores.a]\nurl = "memory:"\nmax_messages = true',
        '[stores.a]\nurl = "memory:"\nexpire_after = "soon"',
        '[stores.a]\nurl = "memory:"\nexpire_after = 90',
        "not toml",
    ],
)
def test_an_invalid_file_is_an_error_that_names_it(text: str, config: Path) -> None:
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(ConfigurationError, match=r"config\.toml"):
        load()


@pytest.mark.parametrize("name", ["", "a b", "-a", "a.b", "ü", "a]"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        check_name(name)


def test_the_file_is_private(config: Path) -> None:
    save(NamedStores({"a": NamedStore("memory:")}))
    assert config.stat().st_mode & 0o077 == 0


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(texts, min_size=1), texts, st.none() | st.integers(0, 2**53 - 1))
def test_a_saved_store_is_loaded_unchanged(words: list[str], tenant: str, most: int | None) -> None:
    store = NamedStore(url_command=("echo", *words), password_env="a", tenant=tenant, max_messages=most)
    saved = tomllib.loads(as_toml(NamedStores({"a-b_1": store})))
    assert msgspec.convert(saved, NamedStores).get("a-b_1") == store


@given(
    st.timedeltas(timedelta(seconds=1), timedelta(days=9_000)).map(
        lambda span: timedelta(seconds=span // timedelta(seconds=1))
    )
)
def test_a_duration_in_words_is_the_same_duration(duration: timedelta) -> None:
    words = in_words(duration)
    assert len(words) > LONGEST or duration_of(words) == duration
