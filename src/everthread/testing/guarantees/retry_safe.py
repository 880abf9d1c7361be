"""An append may be sent again with the same id."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from everthread.contract import REMEMBERED_APPENDS, Store
from everthread.model import Appended, Retention, ThreadKey
from everthread.testing.cancelling import cancelled_at_every_wait
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    answering,
    calling,
    everything,
    part_of_turn,
    payloads,
    said,
    thread_of,
    whole_turns,
)
from everthread.testing.harness import Clock


class RetrySafe(GuaranteeTests):
    """The same append id takes effect once; a genuine repeat is kept."""

    async def test_a_repeated_append_takes_effect_once(self, store: Store) -> None:
        first = await store.append(KEY, [said("a"), said("b")], append_id="1")
        again = await store.append(KEY, [said("a"), said("b")], append_id="1")
        assert not first.replayed
        assert again == Appended(0, 2, replayed=True)
        assert await payloads(store) == [said("a").payload, said("b").payload]

    async def test_a_repeat_after_a_cancellation_takes_effect_once(self, store: Store) -> None:
        number = 0

        def append() -> Coroutine[Any, Any, Appended]:
            return store.append(KEY, part_of_turn("w", number, 3), append_id=str(number))

        async for _ in cancelled_at_every_wait(append):
            for _ in range(2):
                await append()
            assert whole_turns(await everything(store)).count(("w", number)) == 1
            number += 1

    async def test_a_genuine_repeat_is_kept_twice(self, store: Store) -> None:
        for _ in range(4):
            await store.append(KEY, [said("yes")])
            await store.append(KEY, [said("Done.")])
        assert await payloads(store) == [said("yes").payload, said("Done.").payload] * 4

    async def test_the_same_message_twice_in_one_turn_is_kept_twice(self, store: Store) -> None:
        await store.append(KEY, [said("yes"), said("yes")], append_id="1")
        await store.append(KEY, [said("yes"), said("yes")], append_id="2")
        assert await payloads(store) == [said("yes").payload] * 4

    async def test_a_repeat_returns_what_the_first_did_whatever_else_it_is_given(self, store: Store) -> None:
        await store.append(KEY, [said("a")], append_id="1", expected_seq=0)
        await store.append(KEY, [said("b")], append_id="2")
        retention = Retention(max_messages=0)
        again = await store.append(KEY, [said("x"), said("y")], append_id="1", expected_seq=0, retention=retention)
        assert again == Appended(0, 1, replayed=True)
        assert await payloads(store) == [said("a").payload, said("b").payload]

    async def test_a_repeat_is_no_activity(self, store: Store) -> None:
        await store.append(KEY, [said("a")], append_id="1", default_title="one")
        before = await store.get_thread(KEY)
        await asyncio.sleep(0.005)
        await store.append(KEY, [said("a")], append_id="1", default_title="two")
        assert await store.get_thread(KEY) == before

    async def test_the_same_id_at_the_same_time_takes_effect_once(self, store: Store, other_store: Store) -> None:
        both = (store, other_store)
        answers = await asyncio.gather(
            *(both[i % 2].append(KEY, [said("a"), said("b")], append_id="1") for i in range(20))
        )
        assert sorted(answer.replayed for answer in answers) == [False] + [True] * 19
        assert {(answer.first_seq, answer.next_seq) for answer in answers} == {(0, 2)}
        assert len(await everything(store)) == 2

    async def test_an_id_is_known_after_its_messages_were_trimmed(self, store: Store) -> None:
        await store.append(KEY, [said("a")], append_id="1")
        await store.append(KEY, [said("b")], retention=Retention(max_messages=1))
        assert await store.append(KEY, [said("a")], append_id="1") == Appended(0, 1, replayed=True)
        await store.append(KEY, [said("c")], append_id="3")
        await store.truncate(KEY, stop=0)
        assert (await store.append(KEY, [said("c")], append_id="3")).replayed
        assert await payloads(store) == []

    async def test_an_id_is_known_where_nothing_is_kept(self, store: Store) -> None:
        nothing = Retention(max_messages=0)
        first = await store.append(KEY, [said("a")], append_id="1", retention=nothing)
        again = await store.append(KEY, [said("a")], append_id="1", retention=nothing)
        assert (first.first_seq, first.next_seq) == (again.first_seq, again.next_seq) == (0, 1)
        assert again.replayed
        thread = await thread_of(store)
        assert (thread.count, thread.head_seq, thread.next_seq) == (0, 1, 1)

    async def test_the_newest_thousand_ids_are_known(self, store: Store) -> None:
        keep = Retention(max_messages=2)
        await store.append(KEY, [said("0")], append_id="0", retention=keep)
        others = range(1, REMEMBERED_APPENDS)
        await asyncio.gather(*(store.append(KEY, [said(str(i))], append_id=str(i), retention=keep) for i in others))
        before = await store.get_thread(KEY)
        again = await store.append(KEY, [said("0")], append_id="0", retention=keep)
        assert again == Appended(0, 1, replayed=True)
        assert await store.get_thread(KEY) == before

    async def test_an_id_is_known_after_the_expiry_was_put_off(self, timed: Store, clock: Clock) -> None:
        hour = Retention(expire_after=timedelta(hours=1))
        await timed.append(KEY, [said("a")], append_id="1", retention=hour)
        clock.advance(1800)
        await timed.append(KEY, [said("b")], retention=hour)
        clock.advance(1801)
        assert (await timed.append(KEY, [said("a")], append_id="1")).replayed

    async def test_ids_of_different_threads_are_different(self, store: Store) -> None:
        for thread in (KEY, ThreadKey("other", KEY.tenant), ThreadKey(KEY.thread_id, "other")):
            assert not (await store.append(thread, [said("a")], append_id="1")).replayed

    async def test_a_new_thread_of_the_same_id_remembers_nothing(self, store: Store) -> None:
        await store.append(KEY, [said("a")], append_id="1")
        await store.delete_thread(KEY)
        assert await store.append(KEY, [said("a")], append_id="1") == Appended(0, 1)

    async def test_a_repeated_tool_turn_takes_effect_once(self, store: Store) -> None:
        turn = [said("a"), calling("c"), answering("c")]
        for _ in range(3):
            await store.append(KEY, turn, append_id="1", retention=Retention(max_messages=2))
        assert await payloads(store) == [turn[1].payload, turn[2].payload]

    async def test_any_text_is_an_append_id(self, store: Store) -> None:
        ids = ["a:b", "a", "b", "*", "{a}", "\0", "é", "e\u0301", "💾", " ", "0", "x" * 512, "1", "01", "1.0", "null"]
        for append_id in ids:
            assert not (await store.append(KEY, [said(append_id)], append_id=append_id)).replayed
        for at, append_id in enumerate(ids):
            assert await store.append(KEY, [said("x")], append_id=append_id) == Appended(at, at + 1, replayed=True)
