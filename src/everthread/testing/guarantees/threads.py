"""Listing, titles, metadata and deleting of threads."""

from __future__ import annotations

import asyncio

import pytest

from everthread.contract import Store
from everthread.errors import ConflictError, LimitExceededError, ThreadNotFoundError
from everthread.model import Retention, Thread, ThreadKey
from everthread.testing.guarantees._base import KEY, GuaranteeTests, payloads, said
from everthread.testing.guarantees.truncating import pass_time
from everthread.testing.harness import Clock, Harness


async def listed(store: Store, tenant: str = "", *, limit: int = 50) -> list[Thread]:
    """A tenant's threads, by pages."""
    threads: list[Thread] = []
    cursor: str | None = None
    while True:
        page = await store.list_threads(tenant, limit=limit, cursor=cursor)
        assert len(page) <= limit
        threads += page
        cursor = page.cursor
        if cursor is None:
            return threads


class Listing(GuaranteeTests):
    """Pages of a tenant's threads, the newest activity first."""

    async def test_no_threads_make_an_empty_page(self, store: Store) -> None:
        page = await store.list_threads()
        assert (page.items, page.cursor) == ((), None)

    async def test_the_newest_activity_comes_first(self, harness: Harness) -> None:
        clock = Clock()
        async with harness.open(clock=clock) as store:
            for name in ("a", "b", "c", "b"):
                await store.append(ThreadKey(name), [said("x")])
                await pass_time(clock)
            assert [thread.key.thread_id for thread in await listed(store)] == ["b", "c", "a"]

    @pytest.mark.parametrize("limit", [1, 2, 7, 50])
    async def test_pages_show_each_thread_once(self, harness: Harness, limit: int) -> None:
        # Seven threads a moment: a cursor by time alone would lose or repeat some.
        clock = Clock()
        async with harness.open(clock=clock) as store:
            for _ in range(3):
                new = [ThreadKey(f"{clock():.0f}-{i}-é:*") for i in range(7)]
                await asyncio.gather(*(store.append(key, [said("x")]) for key in new))
                await pass_time(clock)
            threads = await listed(store, limit=limit)
            assert len({thread.key for thread in threads}) == len(threads) == 21
            times = [thread.updated_ms for thread in threads]
            assert times == sorted(times, reverse=True)

    async def test_a_page_may_be_read_while_threads_change(self, harness: Harness) -> None:
        clock = Clock()
        async with harness.open(clock=clock) as store:
            keys = [ThreadKey(f"{i:02}") for i in range(12)]
            for key in keys:
                await store.append(key, [said("x")])
                await pass_time(clock)
            first = await store.list_threads(limit=5)
            await store.append(keys[3], [said("y")])
            await store.delete_thread(keys[5])
            await store.append(ThreadKey("new"), [said("z")])
            seen = [thread.key for thread in first]
            cursor = first.cursor
            while cursor is not None:
                page = await store.list_threads(limit=2, cursor=cursor)
                seen += [thread.key for thread in page]
                cursor = page.cursor
            still = [key for key in reversed(keys) if key not in (keys[3], keys[5])]
            assert [key for key in seen if key not in (keys[3], keys[5])] == still

    async def test_a_cursor_outlives_the_store_that_gave_it(self, store: Store, other_store: Store) -> None:
        for i in range(4):
            await store.append(ThreadKey(str(i)), [said("x")])
        first = await store.list_threads(limit=3)
        rest = await other_store.list_threads(limit=3, cursor=first.cursor)
        assert sorted(thread.key.thread_id for thread in [*first, *rest]) == ["0", "1", "2", "3"]

    async def test_listing_tells_what_get_thread_tells(self, store: Store) -> None:
        for i in range(3):
            key = ThreadKey(f"{i}:é", "tenant")
            await store.append(key, [said("a"), said("b")], retention=Retention(max_messages=1), default_title=f"t{i}")
            await store.update_thread(key, metadata={"i": i})
        for thread in await listed(store, "tenant"):
            assert thread == await store.get_thread(thread.key)

    async def test_more_threads_than_a_page_holds_are_asked_for(self, store: Store) -> None:
        keys = [ThreadKey(f"{i}") for i in range(1100)]
        await asyncio.gather(*(store.append(key, [said("x")]) for key in keys))
        page = await store.list_threads(limit=100_000)
        assert 0 < len(page) <= 1100
        assert {thread.key for thread in await listed(store, limit=400)} == set(keys)


class Threads(GuaranteeTests):
    """Titles, metadata, revisions, deleting."""

    async def test_a_new_thread_is_plain(self, harness: Harness) -> None:
        async with harness.open() as store:
            await store.append(KEY, [said("a")])
            thread = await store.get_thread(KEY)
        assert thread is not None
        assert thread.key == KEY
        assert (thread.head_seq, thread.next_seq, thread.count) == (0, 1, 1)
        assert (thread.title, thread.metadata, thread.revision, thread.expires_ms) == (None, {}, 0, None)
        assert thread.created_ms <= thread.updated_ms
        assert thread.created_at.tzinfo is not None

    async def test_times_tell_the_beginning_and_the_last_activity(self, harness: Harness) -> None:
        clock = Clock()
        async with harness.open(clock=clock) as store:
            await store.append(KEY, [said("a")])
            begun = await store.get_thread(KEY)
            await pass_time(clock)
            await store.append(KEY, [said("b")])
            later = await store.get_thread(KEY)
        assert begun is not None
        assert later is not None
        assert later.created_ms == begun.created_ms
        assert later.updated_ms > begun.updated_ms

    async def test_the_default_title_is_taken_once(self, store: Store) -> None:
        await store.append(KEY, [said("a")], default_title="first")
        await store.append(KEY, [said("b")], default_title="second")
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert (thread.title, thread.revision) == ("first", 0)

    async def test_the_default_title_does_not_replace_a_title(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, title="")
        await store.append(KEY, [said("b")], default_title="default")
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert thread.title == ""

    async def test_title_and_metadata_change_apart(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, title="title")
        await store.update_thread(KEY, metadata={"a": [1, {"b": None}], "big": 2**70})
        thread = await store.update_thread(KEY, title="other")
        assert (thread.title, thread.metadata, thread.revision) == ("other", {"a": [1, {"b": None}], "big": 2**70}, 3)
        thread = await store.update_thread(KEY, metadata={})
        assert (thread.title, thread.metadata, thread.revision) == ("other", {}, 4)

    async def test_a_change_is_no_activity_and_leaves_the_messages(self, harness: Harness) -> None:
        clock = Clock()
        async with harness.open(clock=clock) as store:
            await store.append(KEY, [said("a")])
            before = await store.get_thread(KEY)
            await pass_time(clock)
            after = await store.update_thread(KEY, title="title")
            assert before is not None
            assert (after.updated_ms, after.created_ms) == (before.updated_ms, before.created_ms)
            assert (after.count, after.size, after.next_seq) == (before.count, before.size, before.next_seq)
            assert await payloads(store) == [said("a").payload]

    async def test_a_change_expects_a_revision(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, title="1", expected_revision=0)
        with pytest.raises(ConflictError) as caught:
            await store.update_thread(KEY, title="2", metadata={"x": 1}, expected_revision=0)
        assert caught.value.actual == 1
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert (thread.title, thread.metadata, thread.revision) == ("1", {}, 1)

    async def test_of_many_changes_that_expect_one_revision_one_wins(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")])
        both = (store, other_store)

        async def one(number: int) -> bool:
            try:
                await both[number % 2].update_thread(KEY, title=str(number), expected_revision=0)
            except ConflictError:
                return False
            return True

        assert sum(await asyncio.gather(*(one(n) for n in range(12)))) == 1

    async def test_a_change_of_an_unknown_thread_is_refused(self, store: Store) -> None:
        with pytest.raises(ThreadNotFoundError):
            await store.update_thread(KEY, title="x")
        assert await store.get_thread(KEY) is None

    async def test_metadata_that_is_too_large_is_refused(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        with pytest.raises(LimitExceededError):
            await store.update_thread(KEY, metadata={"x": "x" * (1024 * 1024)})

    async def test_deleting_forgets_everything_and_may_be_repeated(self, store: Store) -> None:
        await store.append(KEY, [said("a")], append_id="1", default_title="title")
        await store.put_document(KEY, "summary", b"1")
        assert await store.delete_thread(KEY) is True
        assert await store.delete_thread(KEY) is False
        assert await store.get_thread(KEY) is None
        assert await payloads(store) == []
        assert await store.list_documents(KEY) == ()
        assert await store.get_document(KEY, "summary") is None
        assert await listed(store, KEY.tenant) == []

    async def test_deleting_a_tenant_forgets_its_threads_alone(self, store: Store) -> None:
        for tenant in ("", "a", "ab"):
            for i in range(25):
                await store.append(ThreadKey(str(i), tenant), [said(tenant)])
        await store.put_document(ThreadKey("only a document", "a"), "d", b"1")
        assert await store.delete_tenant("a") == 26
        assert await store.delete_tenant("a") == 0
        assert await listed(store, "a") == []
        assert await store.get_document(ThreadKey("only a document", "a"), "d") is None
        assert len(await listed(store, "")) == len(await listed(store, "ab")) == 25
        assert await store.delete_tenant("") == 25
        assert len(await listed(store, "ab")) == 25
