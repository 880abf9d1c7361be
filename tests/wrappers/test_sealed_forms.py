"""What is authenticated with sealed records and key lists, and what the former forms of both still are good for."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from everthread import CorruptRecordError, EncryptionKeyError, InvalidIdentifierError, NewMessage, ThreadKey
from everthread._validation import KEYS_TENANT
from everthread.engines.memory import MemoryStore, Threads
from everthread.testing import Clock
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.rewrapping import rewrap
from tests.wrappers.sealed_places import KEYRING, MASTER, source_of

KEY = ThreadKey("a", "acme")
LIST = ThreadKey(hashlib.sha256(b"acme").hexdigest(), KEYS_TENANT)
FORMER_KEYS = (
    b'[{"id":"78c0a2ccdb9b","made":1796031221,"master":"m1","sealed":"XFqT2qxVnmahNSi1mqwt/vtpVuhwcODEVyCX6T0E/ChrdiKO'
    b'Jr3KCRVhyYC1V6QdRQiljfObu83p2EzE"},{"id":"2e69691a6258","made":1796031221,"master":"m1","sealed":"l1tBi9bC+9j4JDmx'
    b'9FNY77703CbnbK8VvqLmojp3w32+i3KNM7LawEWLFKJKg3EMiv4g/EgOW+R3MtVl"}]'
)
FORMER_MESSAGES = (
    b'{"everthread-sealed":"v1.78c0a2ccdb9b.QwVJIdZxcus/FOAYZ023VODmGkRd2IzYINgktUi6GOEi"}',
    b'{"everthread-sealed":"v1.2e69691a6258.RT8MmEMTK0x9pCBQ5cI3GNy1A+YBEWIgnr2HntdcXGs7"}',
)
FORMER_TITLE = "everthread-sealed:v1.78c0a2ccdb9b.e+DWc7AztaBevBSd+xpHtiv15qo8m2znQ73yVc8sfiYbMmSIUw=="
FORMER_DOCUMENT = b'{"everthread-sealed":"v1.2e69691a6258.0s0Z/zw/5wiTU0pEg4qIoXd6S3K6esfgvoyV+O/6FZr4"}'


@pytest.fixture
def threads() -> Threads:
    return {}


def encrypted(threads: Threads, keyring: Keyring = KEYRING, **options) -> Encrypted:
    return Encrypted(MemoryStore(threads), keyring, **options)


async def former(threads: Threads) -> None:
    """Writes what the release before wrote."""
    inner = MemoryStore(threads)
    await inner.put_document(LIST, "keys", FORMER_KEYS)
    for payload in FORMER_MESSAGES:
        await inner.append(KEY, [NewMessage(payload, "chat-completions")], default_title=FORMER_TITLE)
    await inner.put_document(KEY, "d", FORMER_DOCUMENT)


async def check_former(store: Encrypted) -> None:
    assert [message.payload for message in await store.read(KEY)] == [b'"old"', b'"new"']
    thread, document = await store.get_thread(KEY), await store.get_document(KEY, "d")
    assert thread is not None
    assert document is not None
    assert (thread.title, document.value) == ("old title", b'"doc"')


def key_list(threads: Threads) -> bytes:
    return next(log for key, log in threads.items() if key.tenant == KEYS_TENANT).documents["keys"].value


async def put_key_list(threads: Threads, value: bytes) -> None:
    await MemoryStore(threads).put_document(LIST, "keys", value)


async def test_what_the_release_before_sealed_still_opens(threads: Threads) -> None:
    await former(threads)
    await check_former(encrypted(threads))


async def test_rewrapping_brings_records_and_keys_to_the_newest_form(threads: Threads) -> None:
    await former(threads)
    done = await rewrap(encrypted(threads), "acme")
    assert (done.records, done.keys_resealed) == (4, True)
    assert msgspec.json.decode(key_list(threads))["v"] == 2
    assert all(b"v2." in message.payload for message in threads[KEY].messages)
    await check_former(encrypted(threads))
    again = await rewrap(encrypted(threads), "acme")
    assert (again.records, again.keys_resealed) == (0, False)


async def test_a_message_does_not_open_under_another_format(threads: Threads) -> None:
    store = encrypted(threads)
    await store.append(KEY, [NewMessage(b'"x"', "chat-completions")])
    log = threads[KEY]
    log.messages[0] = msgspec.structs.replace(log.messages[0], format="openai-agents")
    with pytest.raises(CorruptRecordError, match="position 0"):
        await store.read(KEY)


async def test_a_key_list_is_void_once_anything_in_it_is_changed(threads: Threads) -> None:
    store = encrypted(threads)
    await store.append(KEY, [NewMessage(b'"x"')])
    await store.keys.rotate("acme")
    genuine = msgspec.json.decode(key_list(threads))
    for change in (
        {"generation": genuine["generation"] + 1},
        {"master": "m2"},
        {"sealed": genuine["sealed"][:20] + "AAAA" + genuine["sealed"][24:]},
    ):
        await put_key_list(threads, msgspec.json.encode({**genuine, **change}))
        with pytest.raises(EncryptionKeyError):
            await encrypted(threads, Keyring(lambda _: MASTER)).read(KEY)
    await put_key_list(threads, msgspec.json.encode(genuine))
    assert [message.payload for message in await encrypted(threads).read(KEY)] == [b'"x"']


async def test_a_key_list_opens_for_its_tenant_alone(threads: Threads) -> None:
    store = encrypted(threads)
    await store.append(KEY, [NewMessage(b'"x"')])
    other = ThreadKey(hashlib.sha256(b"other").hexdigest(), KEYS_TENANT)
    await MemoryStore(threads).put_document(other, "keys", key_list(threads))
    with pytest.raises(EncryptionKeyError):
        await store.append(ThreadKey("a", "other"), [NewMessage(b'"x"')])


@pytest.mark.parametrize("older", ["the first version", "a lower generation"])
async def test_a_process_refuses_an_older_list_than_it_saw(older: str, threads: Threads) -> None:
    clock = Clock()
    await former(threads)
    store = encrypted(threads, clock=clock)
    await store.keys.reseal("acme")
    former_list = FORMER_KEYS if older == "the first version" else key_list(threads)
    await store.keys.rotate("acme")
    await put_key_list(threads, former_list)
    clock.advance(100)
    with pytest.raises(EncryptionKeyError, match="older"):
        await store.read(KEY)
    await check_former(encrypted(threads))


async def test_keys_made_anew_after_destruction_are_taken_elsewhere(threads: Threads) -> None:
    clock = Clock()
    store, other = encrypted(threads, clock=clock, wall=clock), encrypted(threads, clock=clock, wall=clock)
    await store.append(KEY, [NewMessage(b'"x"')])
    for _ in range(5):
        await store.keys.rotate("acme")
    await other.shred_tenant("acme")
    clock.advance(100)
    await encrypted(threads, clock=clock, wall=clock).append(KEY, [NewMessage(b'"y"')])
    assert [message.payload for message in await store.read(KEY)] == [b'"y"']


async def test_rewrapping_reports_a_list_of_the_first_version(threads: Threads) -> None:
    await former(threads)
    told = [(await rewrap(encrypted(threads), "acme", dry_run=dry)).keys_in_first_form for dry in (True, False, True)]
    assert told == [True, True, False]


async def test_keys_are_kept_until_every_writer_has_the_new_one(threads: Threads) -> None:
    clock = Clock()
    patient = encrypted(threads, Keyring(source_of(MASTER), refresh_after=3600), clock=clock, wall=clock)
    quick = encrypted(threads, clock=clock, wall=clock)
    await quick.append(KEY, [NewMessage(b'"x"')])
    await patient.append(KEY, [NewMessage(b'"y"')])
    await quick.keys.rotate("acme")
    clock.advance(3000)
    await patient.append(KEY, [NewMessage(b'"z"')])
    assert not (await rewrap(quick, "acme", forget_old=True)).keys_forgotten
    clock.advance(5000)
    assert (await rewrap(quick, "acme", forget_old=True)).keys_forgotten
    assert [message.payload for message in await quick.read(KEY)] == [b'"x"', b'"y"', b'"z"']


async def test_an_append_that_outlives_its_key_is_sealed_with_the_next(threads: Threads) -> None:
    clock = Clock()

    class Slow(MemoryStore):
        """Lets the key be replaced and forgotten while an append is on its way."""

        is_slow = False

        async def append(self, key, messages, **options):
            if self.is_slow:
                await other.keys.rotate("acme")
                clock.advance(1000)
                assert (await rewrap(other, "acme", forget_old=True)).keys_forgotten
            return await super().append(key, messages, **options)

    other = encrypted(threads, clock=clock, wall=clock)
    inner = Slow(threads)
    store = Encrypted(inner, KEYRING, clock=clock, wall=clock)
    await store.append(KEY, [NewMessage(b'"x"')])
    inner.is_slow = True
    await store.append(KEY, [NewMessage(b'"y"'), NewMessage(b'"z"')])
    assert [message.payload for message in await encrypted(threads).read(KEY)] == [b'"x"', b'"y"', b'"z"']


async def test_a_title_that_does_not_open_stops_no_listing(threads: Threads) -> None:
    store = encrypted(threads)
    for name in "abc":
        await store.append(ThreadKey(name, "acme"), [NewMessage(b'"x"')], default_title=name)
    threads[ThreadKey("b", "acme")].title = threads[ThreadKey("a", "acme")].title
    titles = {thread.key.thread_id: thread.title for thread in await store.list_threads("acme")}
    assert titles == {"a": "a", "b": None, "c": "c"}
    with pytest.raises(CorruptRecordError):
        await store.get_thread(ThreadKey("b", "acme"))


async def test_a_damaged_record_stops_no_other_from_being_rewrapped(threads: Threads) -> None:
    clock = Clock()
    store = encrypted(threads, clock=clock, wall=clock)
    for name in "abc":
        await store.append(ThreadKey(name, "acme"), [NewMessage(b'"x"')] * 2)
    log = threads[ThreadKey("b", "acme")]
    log.messages[0] = msgspec.structs.replace(log.messages[0], payload=log.messages[0].payload[:-9] + b'AAAAAAA"}')
    old = await store.keys.current("acme")
    await store.keys.rotate("acme")
    clock.advance(1000)
    with pytest.raises(CorruptRecordError, match="position 0"):
        await rewrap(store, "acme", forget_old=True)
    raw = b"".join(message.payload for key, log in threads.items() if key.tenant == "acme" for message in log.messages)
    assert raw.count(old.id.encode()) == 1
    assert await store.keys.find("acme", old.id) == old


async def test_the_tenant_of_the_keys_cannot_be_a_view(threads: Threads) -> None:
    with pytest.raises(InvalidIdentifierError):
        MemoryStore(threads).tenant("everthread:keys")
