"""Small results need small reads at any length of the thread."""

from __future__ import annotations

import asyncio

from everthread.contract import Store, read_all
from everthread.model import MessagePage, Retention, ThreadKey
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    answering,
    calling,
    everything,
    said,
    seqs,
    thread_of,
)


class Bounded(GuaranteeTests):
    """Pages contain the requested messages and the thread's first and next position."""

    async def test_an_unknown_thread_reads_as_an_empty_page(self, store: Store) -> None:
        assert await store.read(KEY) == MessagePage((), 0, 0)
        assert await store.read_last(KEY, 5) == MessagePage((), 0, 0)
        assert await store.get_thread(KEY) is None

    async def test_reading_takes_a_range_and_a_limit(self, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(10)])
        for start in range(12):
            for stop in (None, 0, 3, 10, 2**53 - 1):
                for limit in (None, 0, 1, 4, 100):
                    page = await store.read(KEY, start=start, stop=stop, limit=limit)
                    wanted = list(range(10))[start : 10 if stop is None else stop][:limit]
                    assert seqs(page) == wanted, (start, stop, limit)
                    assert (page.head_seq, page.next_seq) == (0, 10)

    async def test_reading_the_last_takes_a_count_and_an_end(self, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(10)])
        for count in (0, 1, 4, 10, 100, 2**53 - 1):
            for before in (None, 0, 1, 6, 10, 50, 2**53 - 1):
                page = await store.read_last(KEY, count, before=before)
                below = list(range(10 if before is None else min(before, 10)))
                assert seqs(page) == below[max(len(below) - count, 0) :], (count, before)
                assert (page.head_seq, page.next_seq) == (0, 10)

    async def test_reading_passes_over_trimmed_and_dropped_positions(self, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(6)])
        await store.truncate(KEY, start=2, stop=4)
        await store.append(KEY, [said("6"), said("7")])
        assert seqs(await store.read(KEY)) == [2, 3, 6, 7]
        assert seqs(await store.read(KEY, start=3, limit=2)) == [3, 6]
        assert seqs(await store.read(KEY, start=4, stop=7)) == [6]
        assert seqs(await store.read(KEY, start=0, stop=3)) == [2]
        assert seqs(await store.read_last(KEY, 3)) == [3, 6, 7]
        assert seqs(await store.read_last(KEY, 2, before=6)) == [2, 3]
        assert seqs(await store.read_last(KEY, 2, before=5)) == [2, 3]
        assert seqs(await store.read_last(KEY, 2, before=2)) == []

    async def test_fifty_undos_leave_every_position_where_it_was(self, store: Store) -> None:
        for undone in range(50):
            appended = await store.append(KEY, [said(str(2 * undone)), said("undone")])
            await store.truncate(KEY, stop=appended.first_seq + 1)
        kept = list(range(0, 100, 2))
        page = await store.read(KEY)
        assert (seqs(page), page.next_seq) == (kept, 100)
        assert [m.payload for m in page] == [said(str(seq)).payload for seq in kept]
        assert seqs(await store.read(KEY, start=31, limit=3)) == [32, 34, 36]
        assert seqs(await store.read_last(KEY, 3, before=61)) == [56, 58, 60]
        await store.truncate(KEY, start=21, stop=79)
        await store.append(KEY, [said("100")], retention=Retention(max_messages=20))
        assert seqs(await store.read_last(KEY, 99)) == [*range(42, 80, 2), 100]

    async def test_a_thread_is_paged_forward_and_backward(self, store: Store) -> None:
        for i in range(40):
            await store.append(KEY, [said(str(3 * i + part)) for part in range(3)])
        await store.truncate(KEY, start=5)
        forward = [m.seq async for m in read_all(store, KEY, page_size=7)]
        assert forward == list(range(5, 120))
        backward: list[int] = []
        before: int | None = None
        while page := await store.read_last(KEY, 7, before=before):
            backward[:0] = seqs(page)
            before = page[0].seq
        assert backward == forward

    async def test_a_page_behaves_as_a_sequence(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")])
        page = await store.read(KEY)
        assert len(page) == 2
        assert page[0].seq == 0
        assert [m.seq for m in page[-1:]] == [1]

    async def test_a_thread_tells_its_count_and_size(self, store: Store) -> None:
        def size(*texts: str) -> int:
            return sum(len(said(text).payload) for text in texts)

        async def told() -> tuple[int, int, int, int]:
            thread = await thread_of(store)
            return thread.count, thread.size, thread.head_seq, thread.next_seq

        await store.append(KEY, [said("a"), said("é"), said("ccc")])
        assert await told() == (3, size("a", "é", "ccc"), 0, 3)
        await store.append(KEY, [said("💾")], retention=Retention(max_messages=2))
        assert await told() == (2, size("ccc", "💾"), 2, 4)
        await store.truncate(KEY, stop=3)
        assert await told() == (1, size("ccc"), 2, 4)
        await store.truncate(KEY, start=4)
        assert await told() == (0, 0, 4, 4)

    async def test_a_long_thread_is_kept_and_counted(self, store: Store) -> None:
        turn = [said("user"), calling("c"), answering("c"), said("answer")]
        await asyncio.gather(*(store.append(KEY, turn) for _ in range(500)))
        thread = await thread_of(store)
        assert (thread.count, thread.size) == (2000, 500 * sum(len(m.payload) for m in turn))
        assert seqs(await store.read_last(KEY, 20)) == list(range(1980, 2000))
        assert seqs(await everything(store)) == list(range(2000))

    async def test_many_threads_at_once(self, store: Store) -> None:
        keys = [ThreadKey(f"thread-{i}") for i in range(100)]
        await asyncio.gather(*(store.append(key, [said(key.thread_id)]) for key in keys for _ in range(3)))
        pages = await asyncio.gather(*(store.read(key) for key in keys))
        for key, page in zip(keys, pages, strict=True):
            assert [m.payload for m in page] == [said(key.thread_id).payload] * 3
