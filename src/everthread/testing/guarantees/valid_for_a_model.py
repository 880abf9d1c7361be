"""Trimming leaves what a model service accepts: no tool result without its call."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import strategies as st

from everthread.contract import Store
from everthread.model import NewMessage, Retention
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    answering,
    calling,
    everything,
    for_examples,
    said,
    seqs,
)
from everthread.testing.harness import Harness
from everthread.testing.strategies import turns

USER, ANSWER = said("user"), said("answer")
_PARALLEL = [USER, calling("a", "b"), answering("a"), answering("b"), ANSWER]
_HOSTED = NewMessage(b'{"hosted":true}', calls=("h",), results=("h",))

TRIMMED: dict[str, tuple[list[list[NewMessage]], int, list[int]]] = {
    "a result in a later turn": ([[USER, calling("c")], [said("yes")], [answering("c"), ANSWER]], 3, [4]),
    "parallel calls, kept": ([_PARALLEL], 4, [1, 2, 3, 4]),
    "parallel calls, dropped": ([_PARALLEL], 2, [4]),
    "calls that overlap": ([[calling("a"), calling("b"), answering("a"), answering("b"), ANSWER]], 3, [4]),
    "one call after another": ([[calling("a"), answering("a"), calling("b"), answering("b"), ANSWER]], 4, [2, 3, 4]),
    "an id used again": ([[calling("call_0"), answering("call_0")]] * 4, 5, [4, 5, 6, 7]),
    "a message that answers its own call": ([[USER, _HOSTED, ANSWER]], 2, [1, 2]),
    "an unanswered call": ([[USER, calling("c"), said("never mind"), ANSWER]], 3, [1, 2, 3]),
    "a result without a call": ([[USER, answering("unknown"), ANSWER]], 2, [2]),
}
"""Turns, the number of messages to keep, and the positions that are left."""


async def kept_of(store: Store, *all_turns: Sequence[NewMessage], keep: int) -> list[int]:
    """The positions that are left after turns were appended with ``max_messages``."""
    for turn in all_turns:
        await store.append(KEY, turn, retention=Retention(max_messages=keep))
    return seqs(await everything(store))


class ValidForAModel(GuaranteeTests):
    """A call and its result are kept or dropped together."""

    @pytest.mark.parametrize("keep", [0, 1, 2, 5, 200])
    async def test_plain_messages_are_kept_exactly(self, store: Store, keep: int) -> None:
        for i in range(12):
            await store.append(KEY, [said(str(i))], retention=Retention(max_messages=keep))
            assert seqs(await store.read(KEY)) == list(range(i + 1))[max(i + 1 - keep, 0) :]

    async def test_no_limit_keeps_everything(self, store: Store) -> None:
        for i in range(5):
            await store.append(KEY, [said(str(i))], retention=Retention())
        assert len(await everything(store)) == 5

    async def test_the_stores_own_retention_holds_where_an_append_says_nothing(self, harness: Harness) -> None:
        async with harness.open(retention=Retention(max_messages=2)) as store:
            await store.append(KEY, [said(str(i)) for i in range(5)])
            assert seqs(await store.read(KEY)) == [3, 4]
            await store.append(KEY, [said("5"), said("6")], retention=Retention(max_messages=3))
            assert seqs(await store.read(KEY)) == [4, 5, 6]
            await store.append(KEY, [said("7"), said("8")], retention=Retention())
            assert seqs(await store.read(KEY)) == [4, 5, 6, 7, 8]

    @pytest.mark.parametrize(("keep", "left"), [(4, [0, 1, 2, 3]), (3, [1, 2, 3]), (2, [3]), (1, [3]), (0, [])])
    async def test_a_result_is_not_cut_from_its_call(self, store: Store, keep: int, left: list[int]) -> None:
        assert await kept_of(store, [USER, calling("c"), answering("c"), ANSWER], keep=keep) == left

    @pytest.mark.parametrize("case", TRIMMED)
    async def test_trimming_keeps_a_call_with_its_result(self, store: Store, case: str) -> None:
        all_turns, keep, left = TRIMMED[case]
        assert await kept_of(store, *all_turns, keep=keep) == left

    async def test_a_result_whose_call_was_dropped_is_not_left_at_the_head(self, store: Store) -> None:
        await kept_of(store, [calling("c")], [said("a"), said("b")], keep=2)
        assert await kept_of(store, [answering("c"), ANSWER], keep=2) == [4]

    async def test_truncating_the_head_moves_up(self, store: Store) -> None:
        await store.append(KEY, [USER, calling("c"), said("x"), answering("c"), ANSWER, USER])
        done = await store.truncate(KEY, start=2)
        assert (done.removed, done.head_seq, done.next_seq) == (4, 4, 6)
        assert seqs(await store.read(KEY)) == [4, 5]

    async def test_truncating_the_tail_moves_down(self, store: Store) -> None:
        await store.append(KEY, [USER, calling("c"), said("x"), answering("c"), ANSWER, USER])
        done = await store.truncate(KEY, stop=3)
        assert (done.removed, done.head_seq, done.next_seq) == (5, 0, 6)
        assert seqs(await store.read(KEY)) == [0]

    async def test_a_call_whose_result_was_dropped_too_is_not_open(self, store: Store) -> None:
        await store.append(KEY, [USER, calling("c"), answering("c"), ANSWER])
        await store.truncate(KEY, stop=1)
        # This result answers no kept message; it must not be linked to the dropped call.
        await store.append(KEY, [said("again"), answering("c"), ANSWER])
        done = await store.truncate(KEY, start=4)
        assert seqs(await store.read(KEY)) == [4, 5, 6]
        assert done.removed == 1


class ValidForAModelProperties(GuaranteeTests):
    """The same after any sequence of turns."""

    def test_no_trimming_separates_a_result_from_its_call(self, harness: Harness) -> None:
        async def check(all_turns: list[list[NewMessage]], keep: int) -> None:
            async with harness.open() as store:
                await store.delete_thread(KEY)
                links = Links()
                for turn in all_turns:
                    before = await store.read(KEY)
                    links.add(turn, before.head_seq)
                    await store.append(KEY, turn, retention=Retention(max_messages=keep))
                    kept = await store.read(KEY)
                    assert len(kept) <= keep
                    assert seqs(kept) == list(range(kept.head_seq, kept.next_seq))
                    links.check(kept.head_seq, was_trimmed=kept.head_seq > before.head_seq)

        for_examples(check, st.lists(turns(), min_size=1, max_size=6), st.integers(0, 8))


class Links:
    """Which results answer which calls, worked out the long way from all that was ever written."""

    def __init__(self) -> None:
        self._next = 0
        self._open: dict[str, int] = {}
        self._pairs: list[tuple[int, int]] = []
        self._orphans: set[int] = set()

    def add(self, turn: Sequence[NewMessage], head: int) -> None:
        """Add a turn to a thread that has ``head`` as its oldest kept position."""
        self._open = {call_id: at for call_id, at in self._open.items() if at >= head}
        for at, message in enumerate(turn, self._next):
            own = set(message.calls) & set(message.results)
            for call_id in set(message.results) - own:
                if call_id in self._open:
                    self._pairs.append((self._open.pop(call_id), at))
                else:
                    self._orphans.add(at)
            self._open.update(dict.fromkeys(set(message.calls) - own, at))
        self._next += len(turn)

    def check(self, head: int, *, was_trimmed: bool) -> None:
        """Fail if the messages from ``head`` on could not be sent to a model."""
        cut = [pair for pair in self._pairs if pair[0] < head <= pair[1]]
        assert not cut, f"kept from {head} on, results are cut from their calls: {cut}"
        if was_trimmed and head < self._next:
            assert head not in self._orphans, f"a result without its call was left at the head ({head})"
