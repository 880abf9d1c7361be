"""``everthread rewrap`` and ``new-key``, and the other commands on an encrypted store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everthread import ThreadKey, new_message, open_store
from everthread.contract import Store
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import keys_from_file
from tests.cli.driving import PROGRAM, piped
from tests.servers import Server

pytestmark = pytest.mark.slow

KEY = ThreadKey("trip", "acme")
SAID = new_message({"role": "user", "content": "A train to Zürich"})


def command(home: Path, *arguments: str, **settings: str):
    return piped("", *arguments, home=home, program=(PROGRAM,), **settings)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    made = command(tmp_path, "new-key", "2026")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "keys"
    path.write_text(made.stdout)
    return path


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/threads.db"
    return f"redis://127.0.0.1:{plain_redis_server.port}?prefix={fresh_prefix}"


def encrypted(url: str, key_file: Path) -> Store:
    return Encrypted(open_store(url), Keyring(keys_from_file(key_file)))


async def test_rewrap_encrypts_a_plain_store(url: str, tmp_path: Path, key_file: Path) -> None:
    async with open_store(url) as store:
        await store.append(KEY, [SAID] * 3, default_title="Trains")
    there = ("--store", url, "--tenant", "acme")
    keyring = {"EVERTHREAD_KEYRING": f"file:{key_file}"}
    would = command(tmp_path, "rewrap", *there, "--accept-plain", "--dry-run", **keyring)
    assert would.stdout == "Would encrypt 4 records again, in 1 thread.\n", would.stderr
    done = command(tmp_path, "rewrap", *there, "--accept-plain", "--json", **keyring)
    assert json.loads(done.stdout)["records"] == 4, done.stderr
    shown = command(tmp_path, "show", "trip", *there, **keyring)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("A train to Zürich") == 3
    assert "Trains" in command(tmp_path, "threads", *there, **keyring).stdout
    without = command(tmp_path, "show", "trip", *there)
    assert "train" not in without.stdout


async def test_rewrap_makes_a_new_key_and_keeps_the_old_one(url: str, tmp_path: Path, key_file: Path) -> None:
    async with encrypted(url, key_file) as store:
        await store.append(KEY, [SAID] * 3)
    there = ("--store", url, "--tenant", "acme", "--keyring", f"file:{key_file}")
    assert "Encrypted 0 records" in command(tmp_path, "rewrap", *there).stdout
    assert "Encrypted 3 records" in command(tmp_path, "rewrap", *there, "--new-key").stdout
    again = json.loads(command(tmp_path, "rewrap", *there, "--forget-old", "--json").stdout)
    assert (again["records"], again["keys_forgotten"]) == (0, False)
    async with encrypted(url, key_file) as store:
        assert [message.payload for message in await store.read(KEY)] == [SAID.payload] * 3


async def test_a_named_store_has_a_keyring(tmp_path: Path, key_file: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    async with encrypted(url, key_file) as store:
        await store.append(KEY, [SAID])
    added = command(tmp_path, "config", "add", "prod", url, "--tenant", "acme", "--keyring", f"file:{key_file}")
    assert added.returncode == 0, added.stderr
    assert "Zürich" in command(tmp_path, "show", "@prod", "trip").stdout


def test_chat_encrypts_its_messages(tmp_path: Path, key_file: Path) -> None:
    chat = ("chat", "--store", f"sqlite:///{tmp_path}/threads.db", "--model", "offline")
    run = piped("I am Ottilie\n", *chat, home=tmp_path, program=(PROGRAM,), EVERTHREAD_KEYRING=f"file:{key_file}")
    assert run.returncode == 0, run.stderr
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("threads.db*"))
    assert b"everthread-sealed" in kept
    assert b"Ottilie" not in kept


async def test_erasing_a_tenant_destroys_its_keys(tmp_path: Path, key_file: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    async with encrypted(url, key_file) as store:
        await store.append(KEY, [SAID])
    receipt = str(tmp_path / "receipt.jsonl")
    keyring = {"EVERTHREAD_KEYRING": f"file:{key_file}"}
    erased = command(tmp_path, "delete-tenant", "acme", "--store", url, "--yes", "--receipt", receipt, **keyring)
    assert erased.returncode == 0, erased.stderr
    async with open_store(url) as store:
        assert len(await store.list_threads("everthread:keys")) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Name the master keys"),
        (("--keyring", "c2VjcmV0c2VjcmV0"), "file:PATH or env:NAME"),
        (("--keyring", "file:/nowhere/keys"), "cannot be read: FileNotFoundError"),
        (("--keyring", "env:NO_SUCH_KEYS"), "NO_SUCH_KEYS holds no keys"),
    ],
)
async def test_missing_keys_are_reported(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    async with open_store(url):
        pass
    done = command(tmp_path, "rewrap", "--store", url, *arguments)
    assert done.returncode in {1, 2}
    # Errors of usage are wrapped at the width of the terminal.
    assert said in " ".join(done.stderr.split())
    assert "c2VjcmV0" not in done.stderr


def test_an_invalid_key_id_is_reported(tmp_path: Path) -> None:
    done = command(tmp_path, "new-key", "not an id")
    assert (done.returncode, done.stdout) == (1, "")
    assert "letters, digits" in done.stderr


def test_a_named_store_without_keyring_takes_the_keys_of_the_environment(tmp_path: Path, key_file: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    keyring = {"EVERTHREAD_KEYRING": f"file:{key_file}"}
    assert command(tmp_path, "config", "add", "home", url).returncode == 0
    said = piped("1\nsecret plan\n0\n", "@home", "--model", "offline", home=tmp_path, **keyring)
    assert said.returncode == 0, said.stderr
    assert "secret plan" in command(tmp_path, "search", "plan", "@home", **keyring).stdout
    assert "secret plan" not in command(tmp_path, "search", "--scan", "plan", "@home").stdout
    assert command(tmp_path, "rewrap", "@home", **keyring).returncode == 0
