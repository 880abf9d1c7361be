"""A tenant is sealed anew beside its readers and writers; a run that was killed and begun again ends as a clean one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everthread import (
    ConflictError,
    EncryptionKeyError,
    NewMessage,
    SupportsRewrite,
    SupportsSearch,
    ThreadKey,
    UnsupportedError,
    new_message,
    open_store,
)
from everthread.capabilities import capability
from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.engines.sqlite import SqliteStore
from everthread.testing import Clock
from everthread.wrappers import ForwardingStore
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import new_master_key
from everthread.wrappers.encryption.rewrapping import Rewrapped, rewrap
from tests.servers import Server
from tests.wrappers.sealed_places import KEYRING, MASTER, source_of

pytestmark = pytest.mark.slow

KEY = ThreadKey("a", "acme")
SAID = new_message({"role": "user", "content": "correct horse battery staple"})


async def fill(store: Store, count: int = 3) -> None:
    for i in range(count):
        key = ThreadKey(f"thread {i}", "acme")
        await store.append(key, [SAID, NewMessage(b"%d" % i)], default_title=f"title {i}")
        await store.append(key, [SAID] * (i + 1))
        if i % 2:
            await store.update_thread(key, metadata={"i": i})
            await store.put_document(key, "d", b'{"i":%d}' % i)


async def content(store: Store) -> list[Any]:
    """All that is in the tenant, revisions included, times and sizes not."""
    found: list[Any] = []
    for thread in sorted(await store.list_threads("acme"), key=lambda thread: thread.key):
        page = await store.read(thread.key)
        names = await store.list_documents(thread.key)
        documents = [await store.get_document(thread.key, name) for name in names]
        found += [thread.key, thread.title, thread.metadata, thread.revision, thread.next_seq, thread.updated_ms]
        found += [(m.seq, m.payload, m.format, m.turn, m.created_ms) for m in page]
        found += [(d.name, d.value, d.revision) for d in documents if d is not None]
    return found


def without_revisions(found: list[Any]) -> list[Any]:
    return [
        part[:2] if isinstance(part, tuple) and len(part) == 3 else part for part in found if not isinstance(part, int)
    ]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def inner(request: pytest.FixtureRequest, tmp_path: Path, fresh_prefix: str):
    if request.param == "redis":
        server: Server = request.getfixturevalue("plain_redis_server")
        store = open_store(f"redis://127.0.0.1:{server.port}/0", prefix=fresh_prefix)
    else:
        store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "t.db", synchronous="normal")
    async with store:
        yield store


async def test_after_a_rotation_everything_is_sealed_with_the_new_key(inner: Store) -> None:
    store = Encrypted(inner, KEYRING)
    await fill(store, 4)
    before = without_revisions(await content(store))
    old = await store.keys.current("acme")
    new = await store.keys.rotate("acme")
    done = await rewrap(store, "acme")
    # 18 messages, 4 titles (two of them with metadata), 2 documents.
    assert done == Rewrapped(4, 24)
    assert without_revisions(await content(store)) == before
    raw = repr(await content(inner))
    assert old.id not in raw
    assert new.id in raw
    assert await rewrap(store, "acme") == Rewrapped(4, 0)


async def test_a_dry_run_counts_and_changes_nothing(inner: Store) -> None:
    store = Encrypted(inner, KEYRING)
    await fill(store)
    await store.keys.rotate("acme")
    before = await content(inner)
    assert (await rewrap(store, "acme", dry_run=True)).records == 16
    assert await content(inner) == before


async def test_a_plain_store_becomes_an_encrypted_one(inner: Store) -> None:
    await fill(inner)
    before = without_revisions(await content(inner))
    await rewrap(Encrypted(inner, KEYRING, accept_plain=True), "acme")
    assert without_revisions(await content(Encrypted(inner, KEYRING))) == before
    raw = repr(await content(inner))
    assert "horse" not in raw
    assert "title" not in raw


async def test_what_was_searchable_before_it_was_sealed_is_not_found_any_more(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "t.db") as inner:
        assert capability(inner, SupportsSearch)
        await inner.append(KEY, [SAID])
        assert len(await inner.search("acme", "horse")) == 1
        await rewrap(Encrypted(inner, KEYRING, accept_plain=True), "acme")
        assert len(await inner.search("acme", "horse")) == 0


async def test_writers_beside_it_lose_nothing(inner: Store) -> None:
    store = Encrypted(inner, KEYRING)
    await fill(store, 3)
    await store.keys.rotate("acme")
    key = ThreadKey("thread 1", "acme")

    async def write() -> None:
        for i in range(30):
            await store.append(key, [NewMessage(b'"%d"' % i)])
            await store.put_document(key, "d", b"%d" % i)

    await asyncio.gather(write(), rewrap(store, "acme"), rewrap(store, "acme"))
    assert [m.payload for m in await store.read(key, start=4)] == [b'"%d"' % i for i in range(30)]
    document = await store.get_document(key, "d")
    assert document is not None
    assert document.value == b"29"
    assert (await rewrap(store, "acme")).records == 0


class MovesWhileListed(ForwardingStore):
    """Makes the last thread active between the pages of a listing, so that it moves past the rest of it."""

    carries = frozenset({SupportsRewrite})
    moved = False

    async def list_threads(self, tenant="", *, limit=50, cursor=None):
        page = await super().list_threads(tenant, limit=min(limit, 2), cursor=cursor)
        if cursor is None and not self.moved:
            self.moved = True
            await self._inner.truncate(ThreadKey("thread 0", "acme"), stop=1)
        return page


async def test_a_thread_that_moves_past_the_listing_is_not_missed() -> None:
    clock = Clock()
    inner = MemoryStore(clock=clock)
    for i in range(5):
        await Encrypted(inner, KEYRING).append(ThreadKey(f"thread {i}", "acme"), [SAID] * 2)
        clock.advance(1)
    store = Encrypted(MovesWhileListed(inner), KEYRING)
    await store.keys.rotate("acme")
    await rewrap(store, "acme")
    assert (await rewrap(Encrypted(inner, KEYRING), "acme")).records == 0


async def test_old_keys_are_forgotten_only_when_nothing_needs_them() -> None:
    threads: Threads = {}
    clock = Clock()
    store = Encrypted(MemoryStore(threads), KEYRING, clock=clock, wall=clock)
    await fill(store)
    old = await store.keys.current("acme")
    await store.keys.rotate("acme")
    assert not (await rewrap(store, "acme", forget_old=True)).keys_forgotten
    # Another process may not have noticed the new key yet.
    assert not (await rewrap(store, "acme", forget_old=True)).keys_forgotten
    assert await store.keys.find("acme", old.id) == old
    clock.advance(121)
    assert (await rewrap(store, "acme", forget_old=True)).keys_forgotten
    with pytest.raises(EncryptionKeyError):
        await store.keys.find("acme", old.id)
    assert len(await content(store)) == len(await content(Encrypted(MemoryStore(threads), KEYRING)))


async def test_a_key_that_was_made_meanwhile_does_not_make_older_ones_forgotten() -> None:
    clock = Clock()
    store = Encrypted(MemoryStore(), KEYRING, clock=clock, wall=clock)
    await fill(store)
    used = await store.keys.current("acme")
    await store.keys.rotate("acme")
    clock.advance(1000)
    assert not await store.keys.forget_before("acme", used.id)
    assert len(await content(store)) > 10


async def test_a_new_master_key_seals_the_tenants_keys() -> None:
    inner = MemoryStore()
    await fill(Encrypted(inner, KEYRING))
    new = new_master_key("m2")
    assert (await rewrap(Encrypted(inner, Keyring(source_of(new, MASTER))), "acme")).keys_resealed
    again = Encrypted(inner, Keyring(source_of(new)))
    assert not (await rewrap(again, "acme")).keys_resealed
    assert len(await content(again)) > 10


async def test_a_store_that_cannot_rewrite_says_so() -> None:
    store = Encrypted(ForwardingStore(MemoryStore()), KEYRING)
    await store.append(KEY, [SAID])
    with pytest.raises(UnsupportedError):
        await rewrap(store, "acme")


async def test_a_change_of_the_title_meanwhile_wins() -> None:
    class ChangesFirst(MemoryStore):
        changed = False

        async def update_thread(self, key, **changes):
            if not self.changed and changes.get("expected_revision") is not None:
                self.changed = True
                await elsewhere.update_thread(key, title="theirs")
            return await super().update_thread(key, **changes)

    threads: Threads = {}
    elsewhere = Encrypted(MemoryStore(threads), KEYRING)
    await elsewhere.append(KEY, [SAID], default_title="ours")
    store = Encrypted(ChangesFirst(threads), KEYRING)
    await store.keys.rotate("acme")
    await rewrap(store, "acme")
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert thread.title == "theirs"
    with pytest.raises(ConflictError):
        await store.update_thread(KEY, title="x", expected_revision=0)


def run(path: Path, *, kill_after: int | None = None) -> None:
    """Rewraps the file; kills the process when it is in the middle of the thread after so many."""
    command = [sys.executable, "-m", "tests.wrappers.rewrapping_process", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if kill_after is None:
            process.communicate()
            assert process.returncode == 0
            return
        for _ in range(1 + kill_after):
            assert process.stdout.readline() == b"done\n"
        process.kill()


async def test_a_rewrapping_killed_at_any_moment_can_be_repeated(tmp_path: Path) -> None:
    clean, killed = tmp_path / "clean.db", tmp_path / "killed.db"
    async with SqliteStore(clean) as plain:
        for i in range(40):
            key = ThreadKey(f"thread {i}", "acme")
            await plain.append(key, [SAID] * 60, default_title=f"title {i}")
            await plain.put_document(key, "d", b"%d" % i)
    shutil.copy(clean, killed)
    run(clean)
    for threads in (0, 1, 7, 20, 38):
        run(killed, kill_after=threads)
    run(killed)
    async with Encrypted(SqliteStore(clean), KEYRING) as one, Encrypted(SqliteStore(killed), KEYRING) as other:
        assert await content(one) == await content(other)
        assert (await rewrap(other, "acme")).records == 0
    assert b"horse" not in msgspec.json.encode(str(await content(SqliteStore(killed))))
