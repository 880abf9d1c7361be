"""Listing, titles, metadata and deleting of threads."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from everthread.contract import MAX_METADATA_BYTES, Store
from everthread.errors import LimitExceededError, ThreadNotFoundError
from everthread.listing import every_thread
from everthread.model import Retention, ThreadKey
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    conflict,
    one_wins,
    pass_time,
    payloads,
    said,
    thread_of,
)
from everthread.testing.harness import Clock, Harness
from everthread.testing.machine import listed

LISTINGS = 6
"""The number of listings that are compared with the stored threads."""


_HOUR = Retention(expire_after=timedelta(hours=1))


class Listing(GuaranteeTests):
    """Pages of a tenant's threads, the newest activity first."""

    async def test_no_threads_make_an_empty_page(self, store: Store) -> None:
        page = await store.list_threads()
        assert (page.items, page.cursor) == ((), None)

    async def test_the_newest_activity_comes_first(self, timed: Store, clock: Clock) -> None:
        for name in ("a", "b", "c", "b"):
            await timed.append(ThreadKey(name), [said("x")])
            await pass_time(clock)
        assert [thread.key.thread_id for thread in await listed(timed)] == ["b", "c", "a"]

    @pytest.mark.parametrize("limit", [1, 2, 7, 50])
    async def test_pages_show_each_thread_once(self, timed: Store, clock: Clock, limit: int) -> None:
        # Seven threads a moment: a cursor by time alone would lose or repeat some.
        for _ in range(3):
            new = [ThreadKey(f"{clock():.0f}-{i}-é:*") for i in range(7)]
            await asyncio.gather(*(timed.append(key, [said("x")]) for key in new))
            await pass_time(clock)
        threads = await listed(timed, limit=limit)
        assert len({thread.key for thread in threads}) == len(threads) == 21
        times = [thread.updated_ms for thread in threads]
        assert times == sorted(times, reverse=True)

    async def test_a_page_may_be_read_while_threads_change(self, timed: Store, clock: Clock) -> None:
        keys = [ThreadKey(f"{i:02}") for i in range(12)]
        for key in keys:
            await timed.append(key, [said("x")])
            await pass_time(clock)
        first = await timed.list_threads(limit=5)
        await timed.append(keys[3], [said("y")])
        await timed.delete_thread(keys[5])
        await timed.append(ThreadKey("new"), [said("z")])
        seen = [thread.key for thread in first]
        cursor = first.cursor
        while cursor is not None:
            page = await timed.list_threads(limit=2, cursor=cursor)
            seen += [thread.key for thread in page]
            cursor = page.cursor
        still = [key for key in reversed(keys) if key not in (keys[3], keys[5])]
        assert [key for key in seen if key not in (keys[3], keys[5])] == still

    async def test_every_thread_finds_threads_that_move_to_the_front(self, timed: Store, clock: Clock) -> None:
        keys = [ThreadKey(str(i)) for i in range(9)]
        for key in keys:
            await timed.append(key, [said("x")])
            await pass_time(clock)
        oldest, seen = iter(keys), list[ThreadKey]()
        async for thread in every_thread(timed, page_size=3):
            seen.append(thread.key)
            # Each page moves one of the oldest, which no later page shows.
            if len(seen) in (1, 4, 7):
                await timed.append(next(oldest), [said("y")])
                await pass_time(clock)
        assert set(seen) == set(keys)

    async def test_a_listing_shows_every_thread_while_they_are_appended_to(
        self, store: Store, other_store: Store
    ) -> None:
        keys = [ThreadKey(str(i)) for i in range(6)]
        await asyncio.gather(*(store.append(key, [said("x")]) for key in keys))
        is_listed = False

        async def go_on(key: ThreadKey) -> None:
            while not is_listed:
                await store.append(key, [said("y")])

        writers = [asyncio.create_task(go_on(key)) for key in keys[:4]]
        pages = [await other_store.list_threads() for _ in range(LISTINGS)]
        is_listed = True
        await asyncio.gather(*writers)
        for page in pages:
            assert sorted(thread.key for thread in page) == keys, "a thread is missing, or is shown twice"

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

    async def test_large_metadata_makes_pages_short_and_loses_no_thread(self, store: Store) -> None:
        keys = [ThreadKey(str(i)) for i in range(24)]
        large = {"x": "x" * (MAX_METADATA_BYTES - 100)}
        for key in keys:
            await store.append(key, [said("x")])
            await store.update_thread(key, metadata=large)
        page = await store.list_threads(limit=1000)
        assert 0 < len(page) < len(keys)
        assert page.cursor is not None
        threads = await listed(store, limit=1000)
        assert sorted(thread.key for thread in threads) == sorted(keys)
        assert all(thread.metadata == large for thread in threads)


class Threads(GuaranteeTests):
    """Titles, metadata, revisions, deleting."""

    async def test_a_new_thread_is_plain(self, harness: Harness) -> None:
        async with harness.open() as store:
            await store.append(KEY, [said("a")])
            thread = await thread_of(store)
        assert thread.key == KEY
        assert (thread.head_seq, thread.next_seq, thread.count) == (0, 1, 1)
        assert (thread.title, thread.metadata, thread.revision, thread.expires_ms) == (None, {}, 0, None)
        assert thread.created_ms <= thread.updated_ms
        assert thread.created_at.tzinfo is not None

    async def test_times_tell_the_beginning_and_the_last_activity(self, timed: Store, clock: Clock) -> None:
        await timed.append(KEY, [said("a")])
        begun = await thread_of(timed)
        await pass_time(clock)
        await timed.append(KEY, [said("b")])
        later = await thread_of(timed)
        assert later.created_ms == begun.created_ms
        assert later.updated_ms > begun.updated_ms

    async def test_a_clock_set_back_leaves_times_in_order(self, timed: Store, clock: Clock) -> None:
        clock.advance(3600)
        await timed.append(KEY, [said("a"), said("b")])
        clock.advance(-60)
        changes = (lambda: timed.append(KEY, [said("c")], retention=_HOUR), lambda: timed.truncate(KEY, stop=1))
        for change in changes:
            await change()
            thread = await thread_of(timed)
            assert thread.updated_ms == thread.created_ms
            assert thread.expires_ms == thread.updated_ms + 3_600_000
            assert await listed(timed, KEY.tenant) == [thread]

    async def test_the_default_title_is_taken_once(self, store: Store) -> None:
        await store.append(KEY, [said("a")], default_title="first")
        await store.append(KEY, [said("b")], default_title="second")
        thread = await thread_of(store)
        assert (thread.title, thread.revision) == ("first", 0)

    async def test_an_existing_thread_gets_no_default_title(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.append(KEY, [said("b")], default_title="late")
        await store.truncate(KEY, stop=0)
        await store.append(KEY, [said("c")], default_title="later")
        thread = await thread_of(store)
        assert thread.title is None

    async def test_a_thread_that_begins_with_a_document_gets_the_default_title(self, store: Store) -> None:
        await store.put_document(KEY, "state", b"{}")
        await store.append(KEY, [said("a")], default_title="title")
        thread = await thread_of(store)
        assert thread.title == "title"

    async def test_the_default_title_does_not_replace_a_title(self, store: Store) -> None:
        await store.put_document(KEY, "state", b"{}")
        await store.update_thread(KEY, title="")
        await store.append(KEY, [said("a")], default_title="default")
        thread = await thread_of(store)
        assert thread.title == ""

    async def test_title_and_metadata_change_apart(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, title="title")
        await store.update_thread(KEY, metadata={"a": [1, {"b": None}], "big": 2**70})
        thread = await store.update_thread(KEY, title="other")
        assert (thread.title, thread.metadata, thread.revision) == ("other", {"a": [1, {"b": None}], "big": 2**70}, 3)
        thread = await store.update_thread(KEY, metadata={})
        assert (thread.title, thread.metadata, thread.revision) == ("other", {}, 4)

    async def test_a_change_is_no_activity_and_leaves_the_messages(self, timed: Store, clock: Clock) -> None:
        await timed.append(KEY, [said("a")])
        before = await thread_of(timed)
        await pass_time(clock)
        after = await timed.update_thread(KEY, title="title")
        assert (after.updated_ms, after.created_ms) == (before.updated_ms, before.created_ms)
        assert (after.count, after.size, after.next_seq) == (before.count, before.size, before.next_seq)
        assert await payloads(timed) == [said("a").payload]

    async def test_a_change_expects_a_revision(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, title="1", expected_revision=0)
        with conflict(1):
            await store.update_thread(KEY, title="2", metadata={"x": 1}, expected_revision=0)
        thread = await thread_of(store)
        assert (thread.title, thread.metadata, thread.revision) == ("1", {}, 1)

    async def test_of_many_changes_that_expect_one_revision_one_wins(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")])
        both = (store, other_store)
        await one_wins(lambda number: both[number % 2].update_thread(KEY, title=str(number), expected_revision=0))

    async def test_a_change_of_an_unknown_thread_is_refused(self, store: Store) -> None:
        with pytest.raises(ThreadNotFoundError):
            await store.update_thread(KEY, title="x")
        assert await store.get_thread(KEY) is None

    async def test_metadata_at_the_limit_fits_and_larger_is_refused(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        largest = {"x": "x" * (MAX_METADATA_BYTES - len('{"x":""}'))}
        assert (await store.update_thread(KEY, metadata=largest)).metadata == largest
        with pytest.raises(LimitExceededError) as caught:
            await store.update_thread(KEY, metadata={"x": largest["x"] + "x"})
        assert (caught.value.size, caught.value.limit) == (MAX_METADATA_BYTES + 1, MAX_METADATA_BYTES)
        thread = await thread_of(store)
        assert thread.metadata == largest

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
