"""Positions come from the store; turns stay contiguous."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from everthread.contract import Store
from everthread.model import Appended, Retention
from everthread.testing.guarantees._base import KEY, GuaranteeTests, everything, part_of_turn, said, seqs, whole_turns
from everthread.testing.harness import Clock, Harness


class Ordered(GuaranteeTests):
    """Each turn is contiguous, nothing is lost, and positions are dense and never reused."""

    async def test_positions_count_from_zero(self, store: Store) -> None:
        first = await store.append(KEY, [said("a"), said("b")])
        second = await store.append(KEY, [said("c")])
        assert (first.first_seq, first.next_seq, first.replayed) == (0, 2, False)
        assert (second.first_seq, second.next_seq) == (2, 3)
        assert [(m.seq, m.turn) for m in await everything(store)] == [(0, 0), (1, 0), (2, 2)]

    @pytest.mark.parametrize("writers", [2, 25])
    async def test_concurrent_tasks_do_not_interleave(self, store: Store, writers: int) -> None:
        async def write(writer: int) -> list[int]:
            return [
                (await store.append(KEY, part_of_turn(str(writer), turn, 1 + (writer + turn) % 4))).first_seq
                for turn in range(8)
            ]

        answers = await asyncio.gather(*(write(writer) for writer in range(writers)))
        kept = await everything(store)
        assert seqs(kept) == list(range(len(kept)))
        assert sorted(whole_turns(kept)) == sorted((str(w), turn) for w in range(writers) for turn in range(8))
        assert sorted({m.turn for m in kept}) == sorted(first for answer in answers for first in answer)

    async def test_two_stores_do_not_interleave(self, store: Store, other_store: Store) -> None:
        async def write(by: Store, writer: str) -> None:
            for turn in range(25):
                await by.append(KEY, part_of_turn(writer, turn, 3))

        await asyncio.gather(write(store, "a"), write(other_store, "b"))
        kept = await everything(store)
        assert seqs(kept) == list(range(150))
        turns = whole_turns(kept)
        assert sorted(turns) == sorted((writer, turn) for writer in "ab" for turn in range(25))
        for writer in "ab":
            assert [turn for by, turn in turns if by == writer] == list(range(25)), "one writer's turns changed places"

    async def test_appends_made_while_the_store_opens_keep_their_order(self, harness: Harness) -> None:
        async with aclosing(harness.open()) as store:
            appends: list[asyncio.Task[Appended]] = []
            while not any(append.done() for append in appends) and len(appends) < 300:
                appends += [asyncio.create_task(store.append(KEY, [said("x")])) for _ in range(2)]
                await asyncio.sleep(0)
            results = await asyncio.gather(*appends)
            assert [result.first_seq for result in results] == list(range(len(results)))

    async def test_appends_made_at_once_land_in_the_order_made(self, store: Store) -> None:
        await asyncio.gather(*(store.append(KEY, [said(str(i))]) for i in range(100)))
        assert [m.payload for m in await everything(store)] == [said(str(i)).payload for i in range(100)]

    async def test_a_clock_that_goes_backwards_changes_no_order(self, timed: Store, clock: Clock) -> None:
        for i in range(5):
            await timed.append(KEY, [said(str(i))])
            clock.advance(-60)
        assert [m.payload for m in await everything(timed)] == [said(str(i)).payload for i in range(5)]

    async def test_trimming_changes_no_position(self, store: Store) -> None:
        for i in range(7):
            await store.append(KEY, [said(str(i))], retention=Retention(max_messages=3))
        page = await store.read(KEY)
        assert seqs(page) == [4, 5, 6]
        assert (page.head_seq, page.next_seq) == (4, 7)

    async def test_positions_of_a_dropped_tail_are_not_given_again(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b"), said("c")])
        await store.truncate(KEY, stop=1)
        assert (await store.append(KEY, [said("d")])).first_seq == 3
        page = await store.read(KEY)
        assert [(m.seq, m.turn) for m in page] == [(0, 0), (3, 3)]
        assert (page.head_seq, page.next_seq) == (0, 4)

    async def test_positions_go_on_after_everything_was_dropped(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")], retention=Retention(max_messages=0))
        assert (await store.append(KEY, [said("c")])).first_seq == 2
        await store.truncate(KEY, stop=0)
        assert (await store.append(KEY, [said("d")])).first_seq == 3

    async def test_a_deleted_thread_begins_again_at_zero(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        assert await store.delete_thread(KEY)
        assert (await store.append(KEY, [said("b")])).first_seq == 0
