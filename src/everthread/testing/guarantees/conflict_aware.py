"""With ``expected_seq`` an append happens only at that position."""

from __future__ import annotations

import asyncio

import pytest

from everthread.contract import Store
from everthread.errors import ConflictError
from everthread.model import Appended, Retention
from everthread.testing.guarantees._base import KEY, GuaranteeTests, payloads, said


class ConflictAware(GuaranteeTests):
    """A conflict is refused, carries the actual position, and writes nothing."""

    async def test_the_expected_position_is_accepted(self, store: Store) -> None:
        assert await store.append(KEY, [said("a")], expected_seq=0) == Appended(0, 1)
        assert await store.append(KEY, [said("b")], expected_seq=1) == Appended(1, 2)

    async def test_another_position_is_refused_and_nothing_is_written(self, store: Store) -> None:
        with pytest.raises(ConflictError) as caught:
            await store.append(KEY, [said("a")], expected_seq=3)
        assert caught.value.actual == 0
        assert await store.get_thread(KEY) is None
        await store.append(KEY, [said("a"), said("b")])
        before = await store.get_thread(KEY)
        for wrong in (0, 1, 3, 2**53 - 1):
            with pytest.raises(ConflictError) as caught:
                await store.append(
                    KEY, [said("x")], expected_seq=wrong, retention=Retention(max_messages=0), default_title="x"
                )
            assert caught.value.actual == 2
        assert await store.get_thread(KEY) == before
        assert await payloads(store) == [said("a").payload, said("b").payload]

    async def test_a_refused_id_may_be_used_again(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        with pytest.raises(ConflictError):
            await store.append(KEY, [said("b")], append_id="1", expected_seq=0)
        assert await store.append(KEY, [said("b")], append_id="1", expected_seq=1) == Appended(1, 2)

    async def test_of_many_that_expect_one_position_one_wins(self, store: Store, other_store: Store) -> None:
        both = (store, other_store)

        async def one(number: int) -> int:
            try:
                await both[number % 2].append(KEY, [said(str(number)), said("x")], expected_seq=0)
            except ConflictError as error:
                return -error.actual
            return number

        won, *lost = sorted(await asyncio.gather(*(one(n) for n in range(20))), reverse=True)
        assert lost == [-2] * 19
        assert await payloads(store) == [said(str(won)).payload, said("x").payload]

    async def test_the_position_after_trimming_is_the_next_one(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")], retention=Retention(max_messages=0))
        with pytest.raises(ConflictError) as caught:
            await store.append(KEY, [said("c")], expected_seq=0)
        assert caught.value.actual == 2
        assert (await store.append(KEY, [said("c"), said("d")], expected_seq=2)).first_seq == 2
        await store.truncate(KEY, stop=3)
        with pytest.raises(ConflictError) as caught:
            await store.append(KEY, [said("e")], expected_seq=3)
        assert caught.value.actual == 4
