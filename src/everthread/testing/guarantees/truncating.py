"""The head or the tail of a thread is dropped permanently."""

from __future__ import annotations

import asyncio

import pytest

from everthread.contract import Store
from everthread.errors import ThreadNotFoundError
from everthread.model import ThreadKey, Truncated
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    answering,
    pass_time,
    payloads,
    said,
    seqs,
    thread_of,
)
from everthread.testing.harness import Clock


class Truncating(GuaranteeTests):
    """``truncate`` keeps a range as a slice would."""

    @pytest.mark.parametrize(
        ("start", "stop", "left"),
        [
            (3, None, [3, 4, 5]),
            (None, 2, [0, 1]),
            (1, 3, [1, 2]),
            (0, None, [0, 1, 2, 3, 4, 5]),
            (None, 6, [0, 1, 2, 3, 4, 5]),
            (None, 2**53 - 1, [0, 1, 2, 3, 4, 5]),
            (None, 0, []),
            (6, None, []),
            (2**53 - 1, None, []),
            (4, 2, []),
            (2, 2, []),
        ],
    )
    async def test_a_range_is_kept(self, store: Store, start: int | None, stop: int | None, left: list[int]) -> None:
        await store.append(KEY, [said(str(i)) for i in range(6)])
        done = await store.truncate(KEY, start=start, stop=stop)
        assert done == Truncated(6 - len(left), left[0] if left else 6, 6)
        page = await store.read(KEY)
        assert (seqs(page), page.head_seq, page.next_seq) == (left, done.head_seq, 6)

    async def test_nothing_to_drop_changes_nothing(self, store: Store) -> None:
        await store.append(KEY, [answering("unknown"), said("a"), said("b")])
        before = await payloads(store)
        assert (await store.truncate(KEY, start=0)).removed == 0
        assert (await store.truncate(KEY, stop=3)).removed == 0
        assert await payloads(store) == before

    async def test_dropping_the_tail_leaves_the_head_alone(self, store: Store) -> None:
        await store.append(KEY, [answering("unknown"), said("a"), said("b")])
        assert await store.truncate(KEY, stop=2) == Truncated(1, 0, 3)
        assert seqs(await store.read(KEY)) == [0, 1]

    async def test_truncating_twice_is_truncating_once(self, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(6)])
        await store.truncate(KEY, start=2, stop=4)
        assert await store.truncate(KEY, start=2, stop=4) == Truncated(0, 2, 6)
        assert seqs(await store.read(KEY)) == [2, 3]

    async def test_an_unknown_thread_is_refused(self, store: Store) -> None:
        with pytest.raises(ThreadNotFoundError):
            await store.truncate(KEY, stop=0)
        assert await store.get_thread(KEY) is None

    async def test_a_thread_without_messages_stays_a_thread(self, store: Store) -> None:
        await store.append(KEY, [said("a")], default_title="title")
        await store.truncate(KEY, stop=0)
        thread = await thread_of(store)
        assert (thread.count, thread.size, thread.title) == (0, 0, "title")
        assert [listed.key for listed in await store.list_threads(KEY.tenant)] == [KEY]

    async def test_undo_is_activity_and_dropping_the_head_is_not(self, timed: Store, clock: Clock) -> None:
        first, second = ThreadKey("1"), ThreadKey("2")
        for key in (first, second):
            await timed.append(key, [said("a"), said("b"), said("c")])
            await pass_time(clock)
        before = await thread_of(timed, first)
        await timed.truncate(first, start=1)
        after = await thread_of(timed, first)
        assert after.updated_ms == before.updated_ms
        assert [thread.key for thread in await timed.list_threads()] == [second, first]
        await timed.truncate(first, stop=2)
        assert [thread.key for thread in await timed.list_threads()] == [first, second]

    async def test_it_may_run_beside_appends(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("first")])

        async def append() -> None:
            for i in range(30):
                await store.append(KEY, [said(f"{i}a"), said(f"{i}b")])

        async def truncate() -> None:
            for _ in range(15):
                page = await other_store.read_last(KEY, 3)
                await other_store.truncate(KEY, start=page.head_seq + 1)

        await asyncio.gather(append(), truncate())
        page = await store.read(KEY)
        assert page.next_seq == 61
        assert seqs(page) == list(range(page.head_seq, 61))
        thread = await thread_of(store)
        assert (thread.count, thread.size) == (len(page), sum(len(m.payload) for m in page))
