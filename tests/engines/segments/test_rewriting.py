"""Rewriting payloads in the segment log: seen all at once by readers, kept by writers, and the former ones erased."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from everthread.contract import read_all
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.names import prefix_of
from everthread.engines.objects import ObjectStore
from everthread.errors import CorruptRecordError, LimitExceededError
from everthread.model import NewMessage, Retention, Rewrite, ThreadKey
from everthread.testing import Clock
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import MasterKey
from everthread.wrappers.encryption.rewrapping import rewrap
from tests.engines.segments.scripts import AT_ONCE, KEY, appending, message, opened, payloads_in
from tests.engines.storages import KilledError, MemoryStorage, WatchedStorage, killed_at

SECRETS = [NewMessage(b'"secret %d"' % number) for number in range(40)]


def changes(*numbers: int) -> list[Rewrite]:
    return [Rewrite(number, SECRETS[number].payload, b'"sealed %d"' % number) for number in numbers]


async def filled(storage: MemoryStorage) -> None:
    """A thread of 40 messages: some in a joined object, some in entries, some in entries that were joined since."""
    async with opened(storage) as store:
        for number, secret in enumerate(SECRETS):
            await store.append(KEY, [secret])
            if number == 25:
                await store.compact(KEY)
        assert {folder[0] for folder, _ in storage.objects} == {"r", "s", "t"}


async def test_after_a_rewrite_the_former_payloads_are_nowhere() -> None:
    storage = MemoryStorage()
    await filled(storage)
    async with opened(storage) as store:
        assert await store.rewrite(KEY, changes(*range(40))) == 40
        assert b"secret" not in payloads_in(storage)
        assert [m.payload for m in await store.read(KEY)] == [b'"sealed %d"' % number for number in range(40)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_repeated_killed_rewrite_leaves_no_former_payload(after: bool) -> None:
    for step in itertools.count():
        storage = MemoryStorage()
        await filled(storage)
        dying = ObjectStore(killed_at(storage, step, after=after), fence=AT_ONCE)
        with contextlib.suppress(KilledError):
            await dying.rewrite(KEY, changes(*range(40)))
            break
        async with opened(storage, fence=AT_ONCE) as store:
            await store.rewrite(KEY, changes(*range(40)))
            assert b"secret" not in payloads_in(storage), f"killed at operation {step}"
            assert len(await store.read(KEY)) == 40
    assert step > 10


async def test_compaction_empties_young_entries_of_a_killed_rewrite() -> None:
    """The objects that it replaced are removed then if they are an hour old, as any that nothing refers to."""
    storage = MemoryStorage()
    async with opened(storage) as store:
        for secret in SECRETS[:5]:
            await store.append(KEY, [secret])

    async def die(what: str) -> None:
        if what == "list":
            raise KilledError

    watched = WatchedStorage(storage)
    async with opened(watched) as dying:
        await dying.read(KEY)
        # The thread is known, so the first listing is the one that looks for what must go.
        watched.before = die
        with pytest.raises(KilledError):
            await dying.rewrite(KEY, changes(*range(5)))
    assert b"secret" in payloads_in(storage)
    async with opened(storage, sizes=Sizes(compact_after=4)) as store:
        for number in range(4):
            await appending(number)(store)
    assert b"secret" not in payloads_in(storage)


async def test_readers_see_a_whole_rewrite_or_none() -> None:
    storage = MemoryStorage()
    await filled(storage)
    old = [secret.payload for secret in SECRETS]
    new = [b'"sealed %d"' % number if number % 3 else old[number] for number in range(40)]
    seen: list[bool] = []
    async with opened(storage) as warm:
        await warm.read(KEY)

        async def look(_: str) -> None:
            async with opened(storage) as cold:
                found = [m.payload for m in await cold.read(KEY)]
                assert found in (old, new)
                assert found == [m.payload for m in await warm.read(KEY)]
                seen.append(found == new)

        async with opened(WatchedStorage(storage, before=look, after=look)) as store:
            assert await store.rewrite(KEY, changes(*(number for number in range(40) if number % 3))) == 26
    assert seen == sorted(seen)
    assert {False, True} == set(seen)


async def test_a_rewrite_keeps_concurrent_changes() -> None:
    storage, numbers = MemoryStorage(), itertools.count(100)
    await filled(storage)
    left = 12
    async with opened(storage) as other:

        async def interfere(what: str) -> None:
            nonlocal left
            if what != "create" or not left:
                return
            left -= 1
            await appending(next(numbers), count=1, retention=Retention(max_messages=39))(other)
            if left % 3 == 0:
                await other.compact(KEY)

        async with opened(WatchedStorage(storage, before=interfere)) as store:
            assert await store.rewrite(KEY, changes(*range(40))) == 27
        kept = [m.payload async for m in read_all(other, KEY)]
        appended = [message(number * 100).payload for number in range(100, 112)]
        assert kept == [b'"sealed %d"' % number for number in range(13, 40)] + appended
        assert b"secret" not in payloads_in(storage)


async def test_many_messages_are_rewritten_with_few_requests() -> None:
    storage = MemoryStorage()
    await filled(storage)
    watched = WatchedStorage(storage)
    async with opened(watched) as store:
        await store.read(KEY)
        watched.calls.clear()
        await store.rewrite(KEY, changes(*range(40)))
        assert watched.calls["get"] <= 2
        # The joined object anew, the entries' messages together, and the entry.
        assert watched.calls["create"] == 3


async def test_a_rewrite_beyond_the_object_size_is_refused() -> None:
    storage = MemoryStorage()
    storage.max_object_bytes = 1024 * 1024 + 100
    async with opened(storage) as store:
        await store.append(KEY, [message(0), message(1)])
        objects = dict(storage.objects)
        with pytest.raises(LimitExceededError, match="a thread"):
            await store.rewrite(KEY, [Rewrite(0, message(0).payload, b'"%s"' % (b"x" * 90))])
        assert storage.objects == objects
        assert await store.rewrite(KEY, [Rewrite(0, message(0).payload, b'"%s"' % (b"x" * 60))]) == 1


async def test_a_thread_that_is_sealed_leaves_nothing_in_plain() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for secret in SECRETS[:9]:
            await store.append(KEY, [secret], default_title="secret")
        await store.update_thread(KEY, title="secret title", metadata={"secret": "x" * 5000})
        await store.update_thread(KEY, title="secret again", metadata={"secret": True})
        await store.put_document(KEY, "d", b'"secret"')
    keyring = Keyring(lambda _: MasterKey("m", bytes(32)))
    async with Encrypted(ObjectStore(storage), keyring, accept_plain=True) as sealed:
        await sealed.rewrap_thread(KEY)
        assert b"secret" not in payloads_in(storage)
        assert [m.payload for m in await sealed.read(KEY)] == [secret.payload for secret in SECRETS[:9]]


async def test_keys_are_forgotten_beside_writers_and_nothing_is_lost() -> None:
    storage, clock = MemoryStorage(), Clock()
    keyring = Keyring(lambda _: MasterKey("m", bytes(32)))
    async with (
        Encrypted(ObjectStore(storage), keyring, clock=clock, wall=clock) as sealed,
        Encrypted(ObjectStore(storage), keyring, clock=clock, wall=clock) as writing,
    ):
        keys = [ThreadKey(str(number), KEY.tenant) for number in range(4)]
        for key in keys:
            await writing.append(key, [message(0)] * 3)
        await sealed.keys.rotate(KEY.tenant)
        clock.advance(1000)
        is_done = False

        async def write(key: ThreadKey) -> None:
            while not is_done:
                await writing.append(key, [message(1)])

        writers = [asyncio.create_task(write(key)) for key in keys[:2]]
        assert (await rewrap(sealed, KEY.tenant, forget_old=True)).keys_forgotten
        is_done = True
        await asyncio.gather(*writers)
    async with Encrypted(ObjectStore(storage), keyring) as sealed:
        for key in keys:
            assert len(await sealed.read(key)) >= 3


async def test_a_thread_that_cannot_be_read_keeps_the_keys() -> None:
    storage, clock = MemoryStorage(), Clock()
    keyring = Keyring(lambda _: MasterKey("m", bytes(32)))
    keys = [ThreadKey(name, KEY.tenant) for name in "abc"]
    async with Encrypted(ObjectStore(storage), keyring, clock=clock, wall=clock) as sealed:
        for key in keys:
            await sealed.append(key, [message(0)])
        old = await sealed.keys.current(KEY.tenant)
        await sealed.keys.rotate(KEY.tenant)
    ((folder, name),) = [each for each in storage.objects if each[0] == prefix_of(keys[1]).entries]
    entry = storage.objects[folder, name][0]
    await storage.put(folder, name, entry[:-40])
    clock.advance(1000)
    async with Encrypted(ObjectStore(storage), keyring, clock=clock, wall=clock) as sealed:
        with pytest.raises(CorruptRecordError):
            await rewrap(sealed, KEY.tenant, forget_old=True)
        assert await sealed.keys.find(KEY.tenant, old.id) == old
        # The others are done.
        await storage.put(folder, name, entry)
        assert (await rewrap(sealed, KEY.tenant, dry_run=True)).records == 1
