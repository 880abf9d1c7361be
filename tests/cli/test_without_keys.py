"""A command without keys writes no plain text to an encrypted store, and reports the missing keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from everthread import EncryptionKeyError, NewMessage, ThreadKey, new_message, open_store
from everthread.capabilities import SupportsRewrite, capability
from everthread.cli.places import Place
from everthread.cli.runner import open_place
from everthread.cli.without_keys import WithoutKeys
from everthread.engines.memory import MemoryStore, Threads
from everthread.model import Rewrite
from everthread.testing import FaultyStore
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import keys_from_file, new_master_key
from tests.cli.driving import PROGRAM, piped
from tests.meanwhile import Meanwhile
from tests.wrappers.sealed_places import KEYRING

KEY = ThreadKey("trip")
SAID = new_message({"role": "user", "content": "a train to Rome"})


@pytest.fixture
async def threads() -> Threads:
    threads: Threads = {}
    store = Encrypted(MemoryStore(threads), KEYRING)
    await store.append(KEY, [SAID, SAID], default_title="title")
    await store.update_thread(KEY, metadata={"a": 1})
    await store.put_document(KEY, "d", b"1")
    return threads


async def test_nothing_in_plain_text_is_written(threads: Threads) -> None:
    store = WithoutKeys(MemoryStore(threads))
    assert capability(store, SupportsRewrite)
    (kept, _) = await store.read(KEY)
    sealed = NewMessage(kept.payload)
    calls: list[Any] = [
        store.append(KEY, [sealed, SAID]),
        store.append(KEY, [sealed], default_title="plain"),
        store.update_thread(KEY, title="plain"),
        store.update_thread(KEY, metadata={"plain": 1}),
        store.put_document(KEY, "d", b"2"),
        store.put_document(ThreadKey("new"), "d", b"2"),
        store.rewrite(KEY, [Rewrite(0, kept.payload, SAID.payload)]),
    ]
    for call in calls:
        with pytest.raises(EncryptionKeyError, match="EVERTHREAD_KEYRING"):
            await call
    with_keys = Encrypted(MemoryStore(threads), KEYRING)
    thread = await with_keys.get_thread(KEY)
    assert thread is not None
    assert (thread.title, thread.metadata, thread.count) == ("title", {"a": 1}, 2)
    assert [message.payload for message in await with_keys.read(KEY)] == [SAID.payload] * 2


async def test_calls_that_need_no_key_work(threads: Threads) -> None:
    store = WithoutKeys(MemoryStore(threads))
    assert (await store.truncate(KEY, start=1)).removed == 1
    (kept,) = await store.read(KEY)
    # A raw copy that is brought back.
    await store.append(KEY, [NewMessage(kept.payload, kept.format)])
    assert [m.payload for m in await Encrypted(MemoryStore(threads), KEYRING).read(KEY)] == [SAID.payload] * 2
    assert await store.delete_tenant("") == 1


async def test_a_plain_store_is_checked_once() -> None:
    inner = FaultyStore(MemoryStore(), [])
    store = WithoutKeys(inner)
    for _ in range(3):
        await store.append(KEY, [SAID], default_title="title")
    await store.put_document(KEY, "d", b"2")
    assert inner.made == ["list_threads", *["append"] * 3, "put_document"]


async def test_reading_encrypted_data_prints_a_remark(threads: Threads, capsys: Any) -> None:
    for look in (lambda s: s.read(KEY), lambda s: s.get_thread(KEY), lambda s: s.list_threads()):
        async with WithoutKeys(MemoryStore(threads)) as store:
            await look(store)
        assert "memory: is encrypted" in capsys.readouterr().err
    async with WithoutKeys(MemoryStore()) as store:
        await store.append(KEY, [SAID], default_title="title")
        await store.read(KEY)
    assert capsys.readouterr().err == ""


async def test_commands_without_keys_write_no_plain_text(tmp_path: Path) -> None:
    keys, url = tmp_path / "keys", f"sqlite:///{tmp_path}/t.db"
    keys.write_text(new_master_key("2026").to_line() + "\n")
    keys.chmod(0o600)
    async with Encrypted(open_store(url), Keyring(keys_from_file(keys))) as store:
        await store.append(KEY, [SAID, SAID], default_title="title")
    for command in (("rename", "trip", "plain"), ("tag", "trip", "a=b"), ("fork", "trip", "--at", "1")):
        refused = piped("", *command[1:], "--store", url, home=tmp_path, program=(PROGRAM, command[0]))
        assert refused.returncode == 1
        assert "cannot be written to without its keys" in refused.stderr
    for command in (("search", "rome"), ("threads",), ("show", "trip")):
        looked = piped("", *command[1:], "--store", url, home=tmp_path, program=(PROGRAM, command[0]))
        assert looked.returncode == 0
        assert "is encrypted" in looked.stderr
    found = piped(
        "", "rome", "--store", url, home=tmp_path, program=(PROGRAM, "search"), EVERTHREAD_KEYRING=f"file:{keys}"
    )
    assert [line.split("\t")[1] for line in found.stdout.splitlines()] == ["1", "0"]
    assert "is encrypted" not in found.stderr
    async with open_place(Place(url, keyring=f"file:{keys}")) as store:
        assert [thread.title for thread in await store.list_threads()] == ["title"]


async def test_appends_keep_the_order_of_their_calls() -> None:
    async def be_slow() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    # Only the first look for keys is slow: it must not be overtaken.
    store = WithoutKeys(Meanwhile(MemoryStore(), "list_threads", be_slow))
    turns = await asyncio.gather(*(store.append(KEY, [SAID], expected_seq=number) for number in range(5)))
    assert [turn.first_seq for turn in turns] == list(range(5))
