"""What was erased or encrypted is in none of SQLite's files any more."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

from everthread import NewMessage, ThreadKey, new_message
from everthread._validation import KEYS_TENANT
from everthread.engines.sqlite import SqliteStore
from everthread.operations.erase import erase_tenant
from everthread.wrappers.encryption.encrypted import Encrypted
from everthread.wrappers.encryption.rewrapping import rewrap
from tests.wrappers.sealed_places import KEYRING

WORDS = ("Xylophon", "Quittenbrot")


def said(text: str) -> list[NewMessage]:
    return [new_message({"role": "user", "content": f"{text} and more"})]


def found(path: Path, *wanted: str) -> set[tuple[str, str]]:
    """In which of the files each of these stands, in whatever case."""
    files = [file for file in path.parent.iterdir() if file.name.startswith(path.name)]
    return {
        (file.name, text) for file in files for text in wanted if text.lower().encode() in file.read_bytes().lower()
    }


async def fill(store: SqliteStore | Encrypted, tenant: str, word: str) -> None:
    for number in range(12):
        key = ThreadKey(f"{word}-thread-{number}", tenant)
        await store.append(key, [*said(word), *said("x" * 9000 + word)], default_title=f"{word} title")
        await store.update_thread(key, metadata={"of": f"{word} metadata"})
        await store.put_document(key, "note", f'"{word} note"'.encode())


async def test_an_erased_tenant_is_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as store:
        for tenant, word in zip(("gone", "kept"), WORDS, strict=True):
            await fill(store, tenant, word)
        assert len(await store.search("gone", WORDS[0], limit=100)) == 12
        await store.append(ThreadKey("later", "gone"), said(WORDS[0]))
        assert found(path, WORDS[0])
        erased = await erase_tenant(store, "gone", tmp_path / "receipt")
        assert erased.remains == ()
        assert found(path, WORDS[0]) == set()
        assert found(path, WORDS[1]) != set()
        assert len(await store.list_threads("kept")) == 12


async def test_deleting_a_tenant_leaves_no_words(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as store:
        await fill(store, "gone", WORDS[0])
        await store.search("gone", WORDS[0])
        await store.delete_tenant("gone")
        assert found(path, WORDS[0]) == set()


async def test_a_store_that_was_encrypted_holds_no_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as plain:
        await fill(plain, "acme", WORDS[0])
        await plain.search("acme", WORDS[0])
    async with Encrypted(SqliteStore(path), KEYRING, accept_plain=True) as store:
        done = await rewrap(store, "acme")
        assert done.remains == ()
        # A thread's id stays readable.
        assert found(path, f"{WORDS[0]} ") == set()
        assert found(path, WORDS[0]) == {(path.name, WORDS[0])}


async def test_a_shredded_tenants_keys_are_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Encrypted(SqliteStore(path), KEYRING) as store:
        await fill(store, "gone", WORDS[0])
        db = sqlite3.connect(path)
        keys_of = "SELECT value FROM documents JOIN threads ON threads.id = thread WHERE tenant = ?"
        (keys,) = db.execute(keys_of, (KEYS_TENANT,)).fetchone()
        db.close()
        (sealed,) = re.findall(r"[A-Za-z0-9+/=_-]{60,}", keys.decode())
        assert found(path, sealed)
        await store.shred_tenant("gone")
        assert found(path, sealed) == set()
        assert (tmp_path / "x.db-wal").stat().st_size == 0


async def test_a_reader_that_holds_the_log_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, busy_timeout=0.1) as store:
        await fill(store, "gone", WORDS[0])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM threads").fetchone()
        erased = await erase_tenant(store, "gone", tmp_path / "receipt")
        (remains,) = erased.remains
        assert "x.db-wal" in remains
        last = (tmp_path / "receipt").read_bytes().splitlines()[-1]
        assert json.loads(last)["remains"] == [remains]
        reader.execute("COMMIT")
        reader.close()
        assert await store.erase_remains() == ()
        assert found(path, WORDS[0]) == set()
