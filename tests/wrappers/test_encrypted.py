"""An encrypted store keeps every guarantee, and an attacker who has only the store cannot read its content."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    EncryptionKeyError,
    InvalidIdentifierError,
    LimitExceededError,
    NewMessage,
    Retention,
    ThreadKey,
    open_store,
)
from everthread._validation import KEYS_TENANT
from everthread.contract import MAX_METADATA_BYTES, Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.engines.sqlite import SqliteStore
from everthread.testing import (
    Clock,
    CorruptibleHarness,
    CorruptionSuite,
    FaultyStore,
    Harness,
    ImportSuite,
    RewriteSuite,
    StoreContractSuite,
    look_alikes,
)
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import MasterKey, new_master_key
from everthread.wrappers.encryption.sealing import DataKey, Seal
from everthread.wrappers.redacted import Redacted
from tests.servers import Server
from tests.wrappers.harnesses import memory_place, sqlite_places
from tests.wrappers.sealed_places import (
    KEYRING,
    MASTER,
    CorruptibleEncryptedHarness,
    EncryptedHarness,
    source_of,
)

KEY = ThreadKey("a", "acme")
PRIVATE = "correct horse battery staple"
SAID = NewMessage(msgspec.json.encode({"role": "user", "content": PRIVATE}), "chat-completions")


@pytest.mark.essential_first
class TestOverMemory(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return EncryptedHarness(memory_place, lambda store: store)


@pytest.mark.front
class TestOverSqlite(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return EncryptedHarness(sqlite_places(tmp_path), lambda store: store)


class TestAfterCorruption(CorruptionSuite):
    @pytest.fixture
    def harness(self) -> CorruptibleHarness:
        return CorruptibleEncryptedHarness(memory_place, lambda store: store)


async def fill(store: Store, key: ThreadKey = KEY) -> None:
    """Says the private words in every place that a store has for them."""
    await store.append(key, [SAID, SAID], default_title=PRIVATE)
    await store.update_thread(key, metadata={PRIVATE: [PRIVATE]})
    await store.put_document(key, "d", SAID.payload)


async def check_filled(store: Store, key: ThreadKey = KEY) -> None:
    thread, document = await store.get_thread(key), await store.get_document(key, "d")
    assert thread is not None
    assert document is not None
    assert [message.payload for message in await store.read(key)] == [SAID.payload] * 2
    assert (thread.title, thread.metadata, document.value) == (PRIVATE, {PRIVATE: [PRIVATE]}, SAID.payload)


@pytest.fixture
def threads() -> Threads:
    return {}


def memory(threads: Threads, keyring: Keyring = KEYRING, **options) -> Encrypted:
    return Encrypted(MemoryStore(threads), keyring, **options)


# What is on the disk


async def test_nothing_that_was_said_is_on_the_disk(tmp_path: Path) -> None:
    async with Encrypted(SqliteStore(tmp_path / "t.db"), KEYRING) as store:
        await fill(store)
        await check_filled(store)
        found = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert len(found) > 1000
    assert PRIVATE.encode() not in found
    assert MASTER.secret not in found


async def test_nothing_that_was_said_is_on_a_redis_server(plain_redis_server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/0"
    async with Encrypted(open_store(url, prefix=fresh_prefix), KEYRING) as store:
        await fill(store)
        await check_filled(store)
    async with open_store(url, prefix=fresh_prefix) as bare:
        page, thread, document = await bare.read(KEY), await bare.get_thread(KEY), await bare.get_document(KEY, "d")
        assert thread is not None
        assert document is not None
        kept = [m.payload for m in page] + [document.value, msgspec.json.encode(thread.metadata)]
        assert PRIVATE not in f"{kept}{thread.title}"


async def test_equal_messages_are_sealed_differently(threads: Threads) -> None:
    async with memory(threads) as store:
        await store.append(KEY, [SAID] * 50)
    assert len({message.payload for message in threads[KEY].messages}) == 50


async def test_keys_are_not_shown(threads: Threads) -> None:
    store = memory(threads)
    data_key = await store.keys.current("acme")
    for thing in (MASTER, data_key, KEYRING, store, store.keys):
        assert "\\x" not in repr(thing)
    assert data_key.secret not in b"".join(d.value for log in threads.values() for d in log.documents.values())


# Records that were moved or changed


async def test_a_record_opens_in_its_own_thread_only(threads: Threads) -> None:
    async with memory(threads) as store:
        for other in (ThreadKey("b", "acme"), ThreadKey("a", ""), ThreadKey("a", "other")):
            await store.append(other, [SAID])
            await store.append(KEY, [SAID])
            threads[other].messages[0] = threads[KEY].messages[0]
            with pytest.raises((CorruptRecordError, EncryptionKeyError)):
                await store.read(other)


async def test_a_sealed_value_opens_in_its_own_place_only(threads: Threads) -> None:
    async with memory(threads) as store:
        await fill(store)
        log = threads[KEY]
        log.documents["other"] = msgspec.structs.replace(log.documents["d"], name="other")
        with pytest.raises(CorruptRecordError, match="document 'other'"):
            await store.get_document(KEY, "other")
        assert log.title is not None
        log.metadata = msgspec.json.encode({"everthread-sealed": log.title.partition(":")[2]})
        with pytest.raises(CorruptRecordError, match="metadata"):
            await store.get_thread(KEY)


async def test_a_changed_byte_is_told_with_its_position(threads: Threads) -> None:
    async with memory(threads) as store:
        await store.append(KEY, [SAID] * 3)
        messages = threads[KEY].messages
        sealed = messages[1].payload
        for at in range(len(sealed) - 60, len(sealed) - 2):
            changed = sealed[:at] + (b"A" if sealed[at : at + 1] != b"A" else b"B") + sealed[at + 1 :]
            messages[1] = msgspec.structs.replace(messages[1], payload=changed)
            with pytest.raises(CorruptRecordError, match="position 1"):
                await store.read(KEY)
        for cut in (
            b'{"everthread-sealed":""}',
            b'{"everthread-sealed":"v1..."}',
            b'{"everthread-sealed":"v2.x.y"}',
            b"1",
        ):
            messages[1] = msgspec.structs.replace(messages[1], payload=cut)
            with pytest.raises((CorruptRecordError, EncryptionKeyError)):
                await store.read(KEY)
        assert len(await store.read(KEY, start=2)) == 1


@given(look_alikes(), st.binary(max_size=50))
def test_no_two_threads_open_each_others_values(pair: tuple[ThreadKey, ThreadKey], value: bytes) -> None:
    data_key = DataKey("k", bytes(32))
    token = Seal(pair[0], "message").close(data_key, value)
    assert Seal(pair[0], "message").open(data_key, token) == value
    for other in (Seal(pair[1], "message"), Seal(pair[0], "title"), Seal(pair[0], "document", "message")):
        with pytest.raises(CorruptRecordError):
            other.open(data_key, token)


# Keys


async def test_a_wrong_master_key_is_told(threads: Threads) -> None:
    await fill(memory(threads))
    wrong = memory(threads, Keyring(source_of(MasterKey("m1", bytes(32)))))
    for call in (wrong.read(KEY), wrong.get_thread(KEY), wrong.list_threads("acme"), wrong.append(KEY, [SAID])):
        with pytest.raises(EncryptionKeyError, match="'m1' does not open the keys of tenant 'acme'"):
            await call


async def test_a_missing_master_key_is_told(threads: Threads) -> None:
    await fill(memory(threads))
    with pytest.raises(EncryptionKeyError, match="no key 'm1'"):
        await memory(threads, Keyring(source_of(new_master_key("m2")))).read(KEY)
    with pytest.raises(EncryptionKeyError, match="to seal with"):
        await memory({}, Keyring(lambda key_id: None)).append(KEY, [SAID])


async def test_a_source_that_fails_is_told_without_its_words(threads: Threads) -> None:
    def failing(key_id: str | None) -> MasterKey:
        raise OSError("token hvs.secret was refused")

    with pytest.raises(EncryptionKeyError, match="OSError") as caught:
        await memory(threads, Keyring(failing)).append(KEY, [SAID])
    assert "hvs" not in str(caught.value)
    assert threads == {}


async def test_a_vault_may_be_asked_with_an_async_function(threads: Threads) -> None:
    async def vault(key_id: str | None) -> MasterKey:
        await asyncio.sleep(0)
        return MASTER

    await fill(memory(threads, Keyring(vault)))
    await check_filled(memory(threads))


async def test_two_processes_that_meet_a_new_tenant_agree_on_one_key(tmp_path: Path) -> None:
    place = sqlite_places(tmp_path)()
    stores = [Encrypted(place(), KEYRING) for _ in range(8)]
    await asyncio.gather(*(store.append(KEY, [SAID]) for store in stores))
    for store in stores:
        assert [message.payload for message in await store.read(KEY)] == [SAID.payload] * 8
    for store in stores:
        await store.aclose()


async def test_after_a_rotation_old_messages_still_open(threads: Threads) -> None:
    store, elsewhere = memory(threads), memory(threads)
    await fill(store)
    await check_filled(elsewhere)
    before = await store.keys.current("acme")
    after = await store.keys.rotate("acme")
    await store.append(KEY, [SAID])
    assert after != before
    assert f".{after.id}.".encode() in threads[KEY].messages[-1].payload
    # A process that still seals with the old key reads what the new one sealed, and the other way round.
    await elsewhere.append(KEY, [SAID])
    assert [m.payload for m in await elsewhere.read(KEY)] == [m.payload for m in await store.read(KEY)]


async def test_another_process_uses_the_new_key_before_long(threads: Threads) -> None:
    clock = Clock()
    store, elsewhere = memory(threads), memory(threads, clock=clock)
    await elsewhere.append(KEY, [SAID])
    new = await store.keys.rotate("acme")
    clock.advance(61)
    assert await elsewhere.keys.current("acme") == new


async def test_a_new_master_key_seals_the_tenants_keys_anew(threads: Threads) -> None:
    await fill(memory(threads))
    new = new_master_key("m2")
    both = memory(threads, Keyring(source_of(new, MASTER)))
    await check_filled(both)
    assert await both.keys.reseal("acme")
    await check_filled(memory(threads, Keyring(source_of(new))))
    with pytest.raises(EncryptionKeyError):
        await memory(threads).read(KEY)


async def test_a_shredded_tenant_is_unreadable_also_in_a_copy(threads: Threads) -> None:
    key_store: Threads = {}
    keyring = Keyring(source_of(MASTER), store=MemoryStore(key_store))
    store = memory(threads, keyring)
    await fill(store)
    await fill(store, ThreadKey("a", "other"))
    backup = {KEY: threads[KEY], ThreadKey("a", "other"): threads[ThreadKey("a", "other")]}
    assert await store.shred_tenant("acme") == 1
    restored = memory(backup, keyring)
    with pytest.raises(EncryptionKeyError, match="destroyed"):
        await restored.read(KEY)
    await check_filled(restored, ThreadKey("a", "other"))
    # The tenant may begin again, with a key of its own.
    await fill(store)
    await check_filled(store)


async def test_the_tenant_that_holds_the_keys_is_out_of_reach(threads: Threads) -> None:
    store = memory(threads)
    await fill(store)
    key = ThreadKey("x", KEYS_TENANT)
    by_key = (store.append(key, [SAID]), store.read(key), store.read_last(key, 1), store.delete_thread(key))
    by_tenant = (store.list_threads(key.tenant), store.delete_tenant(key.tenant), store.shred_tenant(key.tenant))
    for call in (*by_key, *by_tenant):
        with pytest.raises(InvalidIdentifierError):
            await call
    assert [thread.key for thread in await store.list_threads("acme")] == [KEY]
    await check_filled(memory(threads))


async def test_a_keyring_must_be_one() -> None:
    with pytest.raises(ConfigurationError):
        Encrypted(MemoryStore(), b"secret")  # pyright: ignore
    with pytest.raises(ConfigurationError):
        Keyring("keys.txt")  # pyright: ignore


async def test_a_redaction_that_would_see_only_what_is_sealed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Put Redacted around"):
        Encrypted(FaultyStore(Redacted(MemoryStore(), str), []), KEYRING)
    store = Redacted(Encrypted(MemoryStore(), KEYRING), lambda text: text.replace("horse", "***"))
    await fill(store)
    assert b"correct *** battery" in (await store.read(KEY))[0].payload


# Sizes, and stores that were not encrypted before


async def test_the_largest_values_fit_when_they_are_sealed(threads: Threads) -> None:
    async with memory(threads) as store:
        title = "💾" * 1000
        await store.append(KEY, [NewMessage(b'"' + b"x" * 11_999_998 + b'"')], default_title=title)
        metadata: dict[str, object] = {"x": "x" * (MAX_METADATA_BYTES - len('{"x":""}'))}
        assert (await store.update_thread(KEY, metadata=metadata)).metadata == metadata
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert thread.title == title
        with pytest.raises(LimitExceededError):
            await store.append(KEY, [NewMessage(b'"' + b"x" * 11_999_999 + b'"')])


async def test_sealing_adds_a_third_and_a_little(threads: Threads) -> None:
    async with memory(threads) as store:
        await store.append(KEY, [NewMessage(b'"' + os.urandom(600).hex().encode() + b'"')])
        thread = await store.get_thread(KEY)
    assert thread is not None
    assert thread.size <= 1202 * 4 / 3 + 100


async def test_plain_records_are_refused_unless_they_are_expected(threads: Threads) -> None:
    await fill(MemoryStore(threads))
    strict = memory(threads)
    for call in (strict.read(KEY), strict.get_thread(KEY), strict.get_document(KEY, "d")):
        with pytest.raises(CorruptRecordError, match="accept_plain"):
            await call
    await check_filled(memory(threads, accept_plain=True))


async def test_trimming_keeps_calls_and_results_together(threads: Threads) -> None:
    async with memory(threads) as store:
        await store.append(KEY, [SAID, NewMessage(b"1", calls=("c",))])
        await store.append(KEY, [NewMessage(b"2", results=("c",)), SAID], retention=Retention(max_messages=2))
        assert [message.seq for message in await store.read(KEY)] == [3]
