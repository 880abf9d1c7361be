"""A thread's own retention goes before the store's, and an append's before both."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest

from everthread.contract import Store
from everthread.errors import ConfigurationError, ThreadNotFoundError
from everthread.model import Retention, ThreadKey
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    answering,
    calling,
    one_wins,
    payloads,
    said,
    seqs,
    thread_of,
)
from everthread.testing.guarantees.expiry import LATER, SOON, until_gone
from everthread.testing.harness import Harness

TWO = Retention(max_messages=2)
THREE = Retention(max_messages=3)


class OwnRetention(GuaranteeTests):
    """The retention of ``update_thread(retention=…)`` applies to all later appends of every writer."""

    async def test_a_new_thread_has_none_of_its_own(self, harness: Harness) -> None:
        async with harness.open(retention=TWO) as store:
            await store.append(KEY, [said("a")], retention=THREE)
            assert (await thread_of(store)).retention is None

    async def test_it_is_told_and_counts_as_a_change(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")])
        own = Retention(max_messages=5, expire_after=timedelta(hours=2))
        changed = await store.update_thread(KEY, retention=own)
        assert (changed.retention, changed.revision, changed.title) == (own, 1, None)
        assert await other_store.get_thread(KEY) == changed
        assert (await store.list_threads(KEY.tenant)).items == (changed,)

    async def test_it_holds_for_every_writer_from_the_next_append_on(self, store: Store, other_store: Store) -> None:
        await other_store.append(KEY, [said(str(i)) for i in range(5)])
        await store.update_thread(KEY, retention=TWO)
        assert seqs(await other_store.read(KEY)) == [0, 1, 2, 3, 4]
        await other_store.append(KEY, [said("5")])
        assert seqs(await store.read(KEY)) == [4, 5]
        await store.append(KEY, [said("6")])
        assert seqs(await other_store.read(KEY)) == [5, 6]

    async def test_it_goes_before_the_stores(self, harness: Harness) -> None:
        async with harness.open(retention=TWO) as store:
            await store.append(KEY, [said("0")])
            await store.update_thread(KEY, retention=THREE)
            await store.append(KEY, [said(str(i)) for i in range(1, 6)])
            assert seqs(await store.read(KEY)) == [3, 4, 5]

    async def test_an_appends_goes_before_it(self, store: Store) -> None:
        await store.append(KEY, [said("0")])
        await store.update_thread(KEY, retention=TWO)
        await store.append(KEY, [said(str(i)) for i in range(1, 6)], retention=THREE)
        assert seqs(await store.read(KEY)) == [3, 4, 5]
        await store.append(KEY, [said("6")])
        assert seqs(await store.read(KEY)) == [5, 6]

    async def test_of_turns_that_are_sent_together_each_follows_what_holds_for_it(self, store: Store) -> None:
        own, given, plain = (ThreadKey(name, KEY.tenant) for name in ("own", "given", "plain"))
        for key in (own, given, plain):
            await store.append(key, [said("0")])
        for key in (own, given):
            await store.update_thread(key, retention=Retention(2, timedelta(hours=1)))
        turn = [said("1"), said("2"), said("3")]
        await asyncio.gather(
            store.append(own, turn),
            store.append(given, turn, retention=THREE),
            store.append(plain, turn),
            store.append(own, [said("4")]),
        )
        kept = [seqs(await store.read(key)) for key in (own, given, plain)]
        assert kept == [[3, 4], [1, 2, 3], [0, 1, 2, 3]]
        threads = [await store.get_thread(key) for key in (own, given, plain)]
        assert [thread is not None and thread.expires_ms is not None for thread in threads] == [True, False, False]

    async def test_a_thread_can_be_told_to_keep_everything(self, harness: Harness) -> None:
        everything = Retention()
        async with harness.open(retention=Retention(2, timedelta(hours=1))) as store:
            await store.append(KEY, [said("0")])
            changed = await store.update_thread(KEY, retention=everything)
            assert (changed.retention, changed.expires_ms) == (everything, None)
            await store.append(KEY, [said(str(i)) for i in range(1, 6)])
            assert len(await store.read(KEY)) == 6
            assert (await thread_of(store)).expires_ms is None

    async def test_a_thread_can_be_told_to_keep_no_message(self, store: Store) -> None:
        await store.append(KEY, [said("0")])
        await store.update_thread(KEY, retention=Retention(max_messages=0))
        assert (await store.append(KEY, [said("1")])).next_seq == 2
        page = await store.read(KEY)
        assert (seqs(page), page.head_seq, page.next_seq) == ([], 2, 2)

    async def test_it_cuts_no_result_from_its_call(self, store: Store) -> None:
        await store.append(KEY, [said("a"), calling("c")])
        await store.update_thread(KEY, retention=THREE)
        await store.append(KEY, [answering("c"), said("b"), said("c")])
        assert seqs(await store.read(KEY)) == [3, 4]

    async def test_inherit_gives_the_thread_back_to_the_store(self, harness: Harness) -> None:
        async with harness.open(retention=Retention(3, timedelta(hours=1))) as store:
            await store.append(KEY, [said("0")])
            await store.update_thread(KEY, retention=Retention())
            changed = await store.update_thread(KEY, retention="inherit")
            assert (changed.retention, changed.revision) == (None, 2)
            assert changed.expires_ms == changed.updated_ms + 3_600_000
            await store.append(KEY, [said(str(i)) for i in range(1, 6)])
            assert seqs(await store.read(KEY)) == [3, 4, 5]

    async def test_other_changes_leave_it(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, retention=Retention(2, timedelta(hours=1)))
        before = await thread_of(store)
        changed = await store.update_thread(KEY, title="title", metadata={"a": 1})
        assert (changed.retention, changed.expires_ms) == (before.retention, before.expires_ms)
        await store.truncate(KEY, stop=0)
        assert (await thread_of(store)).retention == before.retention

    async def test_setting_it_leaves_the_rest(self, store: Store) -> None:
        await store.append(KEY, [said("a")], default_title="title")
        await store.update_thread(KEY, metadata={"a": 1})
        before = await thread_of(store)
        after = await store.update_thread(KEY, retention=TWO)
        assert (after.title, after.metadata) == ("title", {"a": 1})
        assert (after.created_ms, after.updated_ms, after.count) == (before.created_ms, before.updated_ms, 1)

    async def test_a_deleted_thread_takes_it_along(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, retention=TWO)
        await store.delete_thread(KEY)
        await store.append(KEY, [said(str(i)) for i in range(5)])
        assert (await thread_of(store)).retention is None
        assert len(await store.read(KEY)) == 5

    async def test_of_many_that_change_one_revision_one_wins(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")])
        both, own = (store, other_store), [Retention(max_messages=number) for number in range(12)]
        won = await one_wins(lambda at: both[at % 2].update_thread(KEY, retention=own[at], expected_revision=0))
        assert (await thread_of(store)).retention == own[won]

    async def test_what_is_no_retention_is_refused(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        for wrong in (2, "keep", {"max_messages": 2}):
            with pytest.raises(ConfigurationError):
                await store.update_thread(KEY, retention=cast(Any, wrong))
        assert (await thread_of(store)).revision == 0
        await store.delete_thread(KEY)
        with pytest.raises(ThreadNotFoundError):
            await store.update_thread(KEY, retention=TWO)


class OwnExpiry(GuaranteeTests):
    """A thread's own ``expire_after`` changes its expiry immediately."""

    async def test_it_counts_from_the_last_activity(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        changed = await store.update_thread(KEY, retention=LATER)
        assert changed.expires_ms == changed.updated_ms + 3_600_000
        assert await thread_of(store) == changed

    async def test_taking_it_away_keeps_the_thread(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=LATER)
        changed = await store.update_thread(KEY, retention=TWO)
        assert changed.expires_ms is None
        assert await thread_of(store) == changed

    async def test_a_later_end_holds_and_an_earlier_too(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=LATER)
        await store.put_document(KEY, "d", b"1")
        changed = await store.update_thread(KEY, retention=Retention(expire_after=timedelta(days=9)))
        assert changed.expires_ms == changed.updated_ms + 9 * 86_400_000
        with suppress(ThreadNotFoundError):  # where this comes too late to see it
            await store.update_thread(KEY, retention=SOON)
        await until_gone(store)
        assert await payloads(store) == []
        assert await store.get_document(KEY, "d") is None
        assert (await store.list_threads(KEY.tenant)).items == ()
        assert (await store.append(KEY, [said("new")])).first_seq == 0

    async def test_every_append_puts_it_off(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.update_thread(KEY, retention=LATER)
        await other_store.append(KEY, [said("b")])
        thread = await thread_of(store)
        assert thread.expires_ms is not None
        assert abs(thread.expires_ms - thread.updated_ms - 3_600_000) <= 1000

    async def test_an_end_that_is_past_ends_it_now(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await asyncio.sleep(0.02)
        await store.update_thread(KEY, retention=Retention(expire_after=timedelta(milliseconds=1)))
        assert await store.get_thread(KEY) is None
        assert await payloads(store) == []
