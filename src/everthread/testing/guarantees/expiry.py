"""Whole threads are deleted some time after the last append."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from everthread.contract import Store
from everthread.model import MessagePage, Retention, ThreadKey
from everthread.testing.guarantees._base import KEY, GuaranteeTests, payloads, said, thread_of
from everthread.testing.harness import Clock, Harness
from everthread.testing.machine import listed

SOON = Retention(expire_after=timedelta(seconds=1))
"""For the last write of a test: on a busy machine another call may come too late."""
LATER = Retention(expire_after=timedelta(hours=1))


async def until_gone(store: Store, key: ThreadKey = KEY) -> None:
    """Wait for a thread to expire; fail if a call finds it that began ten seconds after its end."""
    began = time.time()
    while (thread := await store.get_thread(key)) is not None:
        assert thread.expires_ms is not None
        assert began < thread.expires_ms / 1000 + 10, "the thread did not expire"
        await asyncio.sleep(0.02)
        began = time.time()


class Expiry(GuaranteeTests):
    """An expired thread is in every way as if it had been deleted."""

    async def test_a_thread_tells_when_it_expires(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=LATER)
        thread = await thread_of(store)
        assert thread.expires_ms is not None
        assert abs(thread.expires_ms - thread.updated_ms - 3_600_000) <= 1000

    async def test_an_expired_thread_is_gone(self, store: Store) -> None:
        await store.append(KEY, [said("a")], append_id="1", default_title="old")
        await store.put_document(KEY, "d", b"1")
        await store.append(KEY, [said("b")], retention=SOON)
        await until_gone(store)
        assert await store.read(KEY) == MessagePage((), 0, 0)
        assert await store.read_last(KEY, 5) == MessagePage((), 0, 0)
        assert await store.list_documents(KEY) == ()
        assert await store.get_document(KEY, "d") is None
        assert await store.delete_document(KEY, "d") is False
        assert await listed(store, KEY.tenant) == []
        assert await store.delete_thread(KEY) is False
        assert await store.delete_tenant(KEY.tenant) == 0

    async def test_a_new_thread_after_it_begins_again(self, store: Store) -> None:
        await store.append(KEY, [said("a")], append_id="1", default_title="old")
        await store.update_thread(KEY, metadata={"old": True})
        await store.put_document(KEY, "d", b"1")
        await store.append(KEY, [said("b")], retention=SOON)
        await until_gone(store)
        again = await store.append(KEY, [said("c")], append_id="1", expected_seq=0)
        assert (again.first_seq, again.replayed) == (0, False)
        thread = await thread_of(store)
        assert (thread.count, thread.title, thread.metadata, thread.revision) == (1, None, {}, 0)
        assert thread.expires_ms is None
        assert await payloads(store) == [said("c").payload]
        assert await store.list_documents(KEY) == ()

    async def test_a_document_after_it_begins_a_new_thread(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.put_document(KEY, "d", b"1")
        await store.append(KEY, [said("b")], retention=SOON)
        await until_gone(store)
        assert (await store.put_document(KEY, "d", b"2", expected_revision=0)).revision == 1
        page = await store.read(KEY)
        assert (len(page), page.next_seq) == (0, 0)

    async def test_an_append_without_expiry_lifts_it(self, harness: Harness) -> None:
        other, clock = ThreadKey("expires", KEY.tenant), Clock()
        async with harness.open(clock=clock) as store:
            for key in (KEY, other):
                await store.append(key, [said("a")], retention=LATER)
                await store.put_document(key, "d", b"1")
            await store.append(KEY, [said("b")], retention=Retention())
            clock.advance(3601)
            assert await store.get_thread(other) is None
            thread = await thread_of(store)
            assert (thread.count, thread.expires_ms) == (2, None)
            assert await payloads(store) == [said("a").payload, said("b").payload]
            assert await store.list_documents(KEY) == ("d",)
            assert [listed_thread.key for listed_thread in await listed(store, KEY.tenant)] == [KEY]

    async def test_a_later_append_puts_it_off(self, harness: Harness) -> None:
        other, clock = ThreadKey("expires", KEY.tenant), Clock()
        async with harness.open(clock=clock) as store:
            for key in (KEY, other):
                await store.append(key, [said("a")], retention=LATER)
            clock.advance(1800)
            await store.append(KEY, [said("b")], retention=LATER)
            clock.advance(1801)
            assert await store.get_thread(other) is None
            assert await payloads(store) == [said("a").payload, said("b").payload]

    async def test_what_is_no_append_does_not_put_it_off(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")], retention=LATER)
        before = await thread_of(store)
        await store.update_thread(KEY, title="x")
        await store.put_document(KEY, "d", b"1")
        await store.truncate(KEY, stop=1)
        after = await thread_of(store)
        assert after.expires_ms == before.expires_ms

    async def test_expiry_leaves_other_threads(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=SOON)
        others = [ThreadKey("other", KEY.tenant), ThreadKey(KEY.thread_id)]
        for key in others:
            await store.append(key, [said("b")])
        await until_gone(store)
        for key in others:
            assert await payloads(store, key) == [said("b").payload]

    async def test_the_stores_own_expiry_holds(self, harness: Harness) -> None:
        async with harness.open(retention=SOON) as store:
            await store.append(KEY, [said("a")])
            await until_gone(store)
