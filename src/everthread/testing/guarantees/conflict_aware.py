"""With ``expected_seq`` an append happens only at that position."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError, ThreadNotFoundError
from everthread.model import Appended, Retention, Truncated
from everthread.testing.guarantees._base import KEY, GuaranteeTests, conflict, one_wins, payloads, said


class ConflictAware(GuaranteeTests):
    """A conflict is refused, carries the actual position, and writes nothing."""

    async def test_the_expected_position_is_accepted(self, store: Store) -> None:
        assert await store.append(KEY, [said("a")], expected_seq=0) == Appended(0, 1)
        assert await store.append(KEY, [said("b")], expected_seq=1) == Appended(1, 2)

    async def test_another_position_is_refused_and_nothing_is_written(self, store: Store) -> None:
        with conflict(0):
            await store.append(KEY, [said("a")], expected_seq=3)
        assert await store.get_thread(KEY) is None
        await store.append(KEY, [said("a"), said("b")])
        before = await store.get_thread(KEY)
        for wrong in (0, 1, 3, 2**53 - 1):
            with conflict(2):
                await store.append(
                    KEY, [said("x")], expected_seq=wrong, retention=Retention(max_messages=0), default_title="x"
                )
        assert await store.get_thread(KEY) == before
        assert await payloads(store) == [said("a").payload, said("b").payload]

    async def test_a_refused_id_may_be_used_again(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        with pytest.raises(ConflictError):
            await store.append(KEY, [said("b")], append_id="1", expected_seq=0)
        assert await store.append(KEY, [said("b")], append_id="1", expected_seq=1) == Appended(1, 2)

    async def test_of_many_that_expect_one_position_one_wins(self, store: Store, other_store: Store) -> None:
        both = (store, other_store)
        turns = [[said(str(number)), said("x")] for number in range(12)]
        won = await one_wins(lambda number: both[number % 2].append(KEY, turns[number], expected_seq=0))
        assert await payloads(store) == [message.payload for message in turns[won]]

    async def test_the_position_after_trimming_is_the_next_one(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")], retention=Retention(max_messages=0))
        with conflict(2):
            await store.append(KEY, [said("c")], expected_seq=0)
        assert (await store.append(KEY, [said("c"), said("d")], expected_seq=2)).first_seq == 2
        await store.truncate(KEY, stop=3)
        with conflict(4):
            await store.append(KEY, [said("e")], expected_seq=3)


class ConflictAwareDropping(GuaranteeTests):
    """With ``expected_seq`` no message is dropped that the caller has not seen."""

    async def test_truncate_at_the_expected_position_is_done(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b"), said("c")])
        assert await store.truncate(KEY, stop=2, expected_seq=3) == Truncated(1, 0, 3)
        assert await store.truncate(KEY, start=1, expected_seq=3) == Truncated(1, 1, 3)
        assert await payloads(store) == [said("b").payload]

    async def test_truncate_at_another_position_drops_nothing(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b"), said("c")])
        before = await store.get_thread(KEY)
        for wrong in (0, 2, 4, 2**53 - 1):
            with conflict(3):
                await store.truncate(KEY, start=1, stop=2, expected_seq=wrong)
        assert await store.get_thread(KEY) == before
        assert len(await store.read(KEY)) == 3

    async def test_delete_at_the_expected_position_is_done(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")])
        assert await store.delete_thread(KEY, expected_seq=2) is True
        assert await store.get_thread(KEY) is None
        await store.put_document(KEY, "d", b"1")
        assert await store.delete_thread(KEY, expected_seq=0) is True
        assert await store.list_documents(KEY) == ()

    async def test_delete_at_another_position_deletes_nothing(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")])
        await store.put_document(KEY, "d", b"1")
        before = await store.get_thread(KEY)
        for wrong in (0, 1, 3):
            with conflict(2):
                await store.delete_thread(KEY, expected_seq=wrong)
        assert await store.get_thread(KEY) == before
        assert await store.list_documents(KEY) == ("d",)
        assert [thread.key for thread in await store.list_threads(KEY.tenant)] == [KEY]

    async def test_what_is_not_there_is_no_conflict(self, store: Store) -> None:
        with pytest.raises(ThreadNotFoundError):
            await store.truncate(KEY, stop=0, expected_seq=5)
        assert await store.delete_thread(KEY, expected_seq=5) is False

    async def test_no_turn_that_came_meanwhile_is_dropped(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("first")])
        dropped: list[int] = []

        async def append() -> None:
            for i in range(30):
                await store.append(KEY, [said(f"{i}")])

        async def undo() -> None:
            # Drops the last message that it saw; each success drops exactly that one.
            for _ in range(30):
                page = await other_store.read_last(KEY, 1)
                try:
                    done = await other_store.truncate(KEY, stop=page[0].seq, expected_seq=page.next_seq)
                except (ConflictError, IndexError):
                    continue
                dropped.append(done.removed)

        await asyncio.gather(append(), undo())
        assert set(dropped) <= {1}
        assert len(await store.read(KEY)) == 31 - len(dropped)

    async def test_positions_that_cannot_be_are_refused(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        for wrong in (-1, 2**53, "1", 1.0, True):
            with pytest.raises(ConfigurationError):
                await store.truncate(KEY, stop=0, expected_seq=cast(Any, wrong))
            with pytest.raises(ConfigurationError):
                await store.delete_thread(KEY, expected_seq=cast(Any, wrong))
        assert len(await store.read(KEY)) == 1
