"""An append is stored completely or not at all, for every reader."""

from __future__ import annotations

import asyncio

import pytest

from everthread.contract import Store
from everthread.errors import EverthreadError, LimitExceededError
from everthread.model import Retention
from everthread.testing.guarantees._base import KEY, GuaranteeTests, everything, part_of_turn, said, seqs, whole_turns
from everthread.testing.harness import Harness


class Atomic(GuaranteeTests):
    """A turn becomes visible completely, trimming included, or not at all."""

    async def test_a_reader_never_sees_half_a_turn(self, store: Store, other_store: Store) -> None:
        async def write() -> None:
            for turn in range(30):
                await store.append(KEY, part_of_turn("w", turn, 1 + turn % 7, padding=500))

        writing = asyncio.create_task(write())
        looks = 0
        while not writing.done():
            whole_turns((await other_store.read(KEY)).messages)
            looks += 1
            await asyncio.sleep(0)
        await writing
        assert looks > 0
        assert len(whole_turns(await everything(store))) == 30

    async def test_a_reader_never_sees_more_than_retention_keeps(self, store: Store, other_store: Store) -> None:
        keep = Retention(max_messages=5)

        async def write() -> None:
            for turn in range(40):
                await store.append(KEY, part_of_turn("w", turn, 2), retention=keep)

        writing = asyncio.create_task(write())
        while not writing.done():
            page = await other_store.read(KEY)
            assert len(page) == min(5, page.next_seq), "a reader saw a turn before its trimming"
            assert seqs(page) == list(range(page.head_seq, page.next_seq))
            await asyncio.sleep(0)
        await writing

    async def test_a_turn_with_one_message_too_large_leaves_nothing(self, harness: Harness) -> None:
        async with harness.open(max_message_bytes=200) as store:
            with pytest.raises(LimitExceededError):
                await store.append(KEY, [said("fits"), said("x" * 1000)])
            assert await store.get_thread(KEY) is None

    async def test_a_failed_append_leaves_those_sent_with_it_whole(self, store: Store) -> None:
        await store.append(KEY, [said("first")])

        async def one(number: int) -> object:
            wrong = 99 if number % 3 == 0 else None
            try:
                return await store.append(KEY, part_of_turn("w", number, 3), expected_seq=wrong)
            except EverthreadError as error:
                return error

        results = await asyncio.gather(*(one(number) for number in range(12)))
        failed = [number for number, result in enumerate(results) if isinstance(result, EverthreadError)]
        assert failed == [0, 3, 6, 9]
        kept = (await everything(store))[1:]
        assert whole_turns(kept) == [("w", number) for number in range(12) if number % 3]

    async def test_a_large_turn_is_kept_whole(self, store: Store) -> None:
        appended = await store.append(KEY, part_of_turn("w", 0, 1200))
        assert (appended.first_seq, appended.next_seq) == (0, 1200)
        assert whole_turns(await everything(store)) == [("w", 0)]
