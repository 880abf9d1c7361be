"""A thread that comes from elsewhere gets the times that it had there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from everthread.contract import Store, SupportsImport
from everthread.errors import ConfigurationError, InvalidIdentifierError, ThreadNotFoundError
from everthread.model import Retention, Thread, ThreadKey
from everthread.testing.guarantees._base import KEY, GuaranteeTests, payloads, said
from everthread.testing.guarantees.expiry import LATER
from everthread.testing.guarantees.threads import listed
from everthread.testing.guarantees.truncating import pass_time
from everthread.testing.harness import Clock, Harness

BEGUN = datetime(2024, 2, 29, 23, 59, 59, 123_000, UTC)
LAST = datetime(2025, 6, 1, tzinfo=UTC)


async def restore(
    store: Store, key: ThreadKey = KEY, *, created_at: datetime = BEGUN, updated_at: datetime = LAST
) -> Thread:
    """Restores times, which the store must be able to."""
    assert isinstance(store, SupportsImport)
    return await store.restore_times(key, created_at=created_at, updated_at=updated_at)


class Imports(GuaranteeTests):
    """``restore_times`` sets when a thread was begun and last active, and its place in the listing."""

    async def test_the_times_are_kept(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")], default_title="title")
        await store.update_thread(KEY, metadata={"a": 1}, retention=Retention(max_messages=9))
        before = await store.get_thread(KEY)
        restored = await restore(store)
        assert (restored.created_at, restored.updated_at) == (BEGUN, LAST)
        assert await other_store.get_thread(KEY) == restored
        assert before is not None
        assert (restored.title, restored.metadata, restored.revision) == ("title", {"a": 1}, before.revision)
        assert (restored.retention, restored.count, restored.size) == (before.retention, 1, before.size)
        assert await payloads(store) == [said("a").payload]

    async def test_the_listing_follows(self, harness: Harness) -> None:
        clock = Clock()
        async with harness.open(clock=clock) as store:
            keys = [ThreadKey(name) for name in "abcd"]
            for key in keys:
                await store.append(key, [said("x")])
                await pass_time(clock)
            for days, key in enumerate(keys):
                await restore(store, key, updated_at=LAST - timedelta(days=days))
            assert [thread.key for thread in await listed(store, limit=2)] == keys
            await store.append(keys[2], [said("y")])
            assert [thread.key for thread in await listed(store, limit=2)] == [keys[i] for i in (2, 0, 1, 3)]

    async def test_a_thread_can_be_moved_forward_again(self, store: Store) -> None:
        for key in (KEY, ThreadKey("other", KEY.tenant)):
            await store.append(key, [said("a")])
            await restore(store, key)
        await restore(store, updated_at=LAST + timedelta(milliseconds=1))
        assert [thread.key for thread in await listed(store, KEY.tenant)] == [KEY, ThreadKey("other", KEY.tenant)]

    async def test_it_may_be_sent_again(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        first = await restore(store)
        assert await restore(store) == first
        assert len(await listed(store, KEY.tenant)) == 1

    async def test_activity_after_it_counts_from_now(self, harness: Harness) -> None:
        clock = Clock()
        async with harness.open(clock=clock) as store:
            await store.append(KEY, [said("a")])
            before = await store.get_thread(KEY)
            await restore(store)
            await pass_time(clock)
            await store.append(KEY, [said("b")])
            after = await store.get_thread(KEY)
            assert before is not None
            assert after is not None
            assert after.created_at == BEGUN
            assert after.updated_ms > before.updated_ms

    async def test_the_time_left_counts_from_the_last_activity(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=LATER)
        before = await store.get_thread(KEY)
        assert before is not None
        soon = before.updated_at - timedelta(minutes=30)
        restored = await restore(store, updated_at=soon)
        assert restored.expires_ms is not None
        assert abs(restored.expires_ms - restored.updated_ms - 3_600_000) <= 1000
        assert await store.get_thread(KEY) == restored

    async def test_a_thread_that_would_have_expired_is_gone(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=LATER)
        await restore(store)
        assert await store.get_thread(KEY) is None
        assert await listed(store, KEY.tenant) == []

    async def test_times_without_a_zone_are_in_utc(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        restored = await restore(store, created_at=BEGUN.replace(tzinfo=None), updated_at=LAST.replace(tzinfo=None))
        assert (restored.created_at, restored.updated_at) == (BEGUN, LAST)

    async def test_a_thread_without_messages_has_times_too(self, store: Store) -> None:
        await store.put_document(KEY, "d", b"1")
        await restore(store)
        assert [thread.updated_at for thread in await listed(store, KEY.tenant)] == [LAST]

    async def test_times_that_cannot_be_are_refused(self, store: Store) -> None:
        assert isinstance(store, SupportsImport)
        with pytest.raises(ThreadNotFoundError):
            await restore(store)
        await store.append(KEY, [said("a")])
        before = await store.get_thread(KEY)
        for created_at, updated_at in (
            (LAST, BEGUN),
            (datetime(1969, 12, 31, tzinfo=UTC), LAST),
            (cast(Any, 0), LAST),
            (BEGUN, cast(Any, None)),
        ):
            with pytest.raises(ConfigurationError):
                await store.restore_times(KEY, created_at=created_at, updated_at=updated_at)
        with pytest.raises(InvalidIdentifierError):
            await store.restore_times(cast(Any, "thread"), created_at=BEGUN, updated_at=LAST)
        assert await store.get_thread(KEY) == before
