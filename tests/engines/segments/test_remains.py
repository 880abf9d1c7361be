"""What the segment log leaves behind, and what it removes when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from everthread.engines._segments.compaction import Sizes
from everthread.engines.objects import ObjectStore
from everthread.errors import (
    ConflictError,
    ThreadNotFoundError,
)
from everthread.model import NewMessage, Retention, ThreadKey
from everthread.testing import Clock
from tests.engines.segments.scripts import (
    AT_ONCE,
    KEY,
    SCRIPT,
    appending,
    message,
    opened,
    operations_of,
    payloads_in,
    repeated,
    run,
)
from tests.engines.storages import MemoryStorage, killed_at


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_nothing_superfluous_stays_after_a_kill_and_a_later_compaction(after: bool) -> None:
    async def swept(storage: MemoryStorage) -> dict[str, int]:
        async with opened(storage, fence=AT_ONCE) as store:
            await store.compact(KEY)
            await store.list_threads(KEY.tenant)
        folders = [folder[0] for folder, _ in storage.objects]
        return {folder: folders.count(folder) for folder in "tsdr"}

    clean = MemoryStorage()
    async with opened(clean, fence=AT_ONCE) as store:
        await run(store, SCRIPT)
    expected = await swept(clean)
    for step in range(await operations_of(SCRIPT)):
        storage = MemoryStorage()
        dying = ObjectStore(killed_at(storage, step, after=after), clock=lambda: 1_000_000.0, fence=AT_ONCE)
        done = await run(dying, SCRIPT)
        async with opened(storage, fence=AT_ONCE) as store:
            if done < len(SCRIPT):
                await repeated(store, SCRIPT[done])
            await run(store, SCRIPT[done + 1 :])
        assert await swept(storage) == expected, f"killed at operation {step}"


async def test_a_deleted_thread_leaves_no_content_and_an_empty_listing() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(100):
            await store.append(KEY, [NewMessage(b'"secret"')], default_title="secret", append_id=f"secret{number}")
        await store.put_document(KEY, "secret", b'"secret"')
        await store.update_thread(KEY, metadata={"secret": "secret" * 1000})
        await store.compact(KEY)
        assert await store.delete_thread(KEY)
    assert b"secret" not in payloads_in(storage)
    assert {folder[0] for folder, _ in storage.objects} == {"t"}


async def test_an_expired_thread_is_removed_by_the_next_listing() -> None:
    storage, clock = MemoryStorage(), Clock()
    async with ObjectStore(storage, clock=clock) as store:
        await store.append(KEY, [NewMessage(b'"secret"')], retention=Retention(expire_after=timedelta(seconds=1)))
        clock.advance(2)
        assert not (await store.list_threads(KEY.tenant)).items
    assert b"secret" not in payloads_in(storage)


async def test_compaction_empties_trimmed_entries() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [NewMessage(b'"secret"')])
        await store.append(KEY, [message(1)], retention=Retention(max_messages=1))
        await store.compact(KEY)
        assert b"secret" not in payloads_in(storage)
        assert [m.seq for m in await store.read(KEY)] == [1]


async def test_a_change_deletes_the_objects_it_drops() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        for number in range(3):
            await appending(number)(store)
        await store.compact(KEY)
        await store.compact(KEY)
        await store.update_thread(KEY, metadata={"large": "x" * 9000})
    assert [folder[0] for folder, _ in storage.objects].count("s") == 3, "turns, append ids and metadata"
    async with opened(storage) as store:
        await store.update_thread(KEY, metadata={"small": 1})
        await store.append(KEY, [message(0)], retention=Retention(max_messages=1))
    assert [folder[0] for folder, _ in storage.objects].count("s") == 1, "the append ids"


async def test_names_of_entries_are_freed_only_after_the_grace_time() -> None:
    storage = MemoryStorage()
    async with opened(storage) as late:
        await appending(0)(late)
        async with opened(storage) as store:
            for number in range(1, 2 * Sizes().compact_after):
                await appending(number)(store)
            await store.compact(KEY)
        # The one that has seen nothing of all this creates no entry that was there before.
        await appending(999)(late)
        assert [m.seq for m in await late.read(KEY)] == list(range(4 * Sizes().compact_after + 2))


async def test_a_long_thread_has_few_objects_of_bounded_size() -> None:
    storage = MemoryStorage()
    async with opened(storage, fence=AT_ONCE) as store:
        for number in range(1500):
            await appending(number, count=4)(store)
            if number % Sizes().compact_after == 0:
                # Lets compaction, which runs beside, keep up with a storage that takes no time.
                await store.compact(KEY)
        expected = [message(number * 100 + at).payload for number in range(1500) for at in range(4)]
        assert [m.payload for m in await store.read(KEY)] == expected
    segments = [data.count(b"\n") for (folder, _), (data, _, _) in storage.objects.items() if folder[0] == "s"]
    assert len(segments) < 20
    assert max(segments) <= Sizes().full_messages + 1


async def test_metadata_that_is_refused_leaves_nothing() -> None:
    storage = MemoryStorage()
    async with opened(storage) as store:
        await store.append(KEY, [message(0)])
        with pytest.raises(ConflictError):
            await store.update_thread(KEY, metadata={"a": "x" * 9000}, expected_revision=5)
        with pytest.raises(ThreadNotFoundError):
            await store.update_thread(ThreadKey("none"), metadata={"a": "x" * 9000})
    assert b"xxx" not in payloads_in(storage)
