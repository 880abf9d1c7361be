"""The tests that every vector index passes. Needs the extra ``recall``.

    class TestMyIndex(VectorIndexSuite):
        @pytest.fixture
        def make_index(self, tmp_path):
            return lambda: MyIndex(tmp_path, FunctionEmbedder(..., name="test", dimensions=64))

Each call of ``make_index`` returns an index on the same place that is not open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from everthread.model import ThreadKey
from everthread.recall.index import Entry, Mark, VectorIndex

KEY = ThreadKey("trip", "a")
MARK = Mark(created_ms=1, head_seq=0, next_seq=4, count=4, size=100)


def vector(dimensions: int, seed: int) -> NDArray[np.float32]:
    """Return a vector of length 1, always the same for a seed."""
    made = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return (made / np.linalg.norm(made)).astype(np.float32)


class VectorIndexSuite:
    """Holds an index to `everthread.recall.VectorIndex`."""

    @pytest.fixture
    async def index(self, make_index: Callable[[], VectorIndex]) -> AsyncIterator[VectorIndex]:
        made = make_index()
        await made.open()
        yield made
        await made.aclose()

    def entry(self, index: VectorIndex, turn: int, *, part: int = 0, seed: int | None = None) -> Entry:
        made = vector(index.dimensions, turn * 100 + part if seed is None else seed)
        return Entry(turn, turn + 1, part, turn, 1000 + turn, bytes([turn % 256, part]) * 4, made)

    async def test_entries_and_marks_come_back(self, index: VectorIndex) -> None:
        entries = [self.entry(index, 0), self.entry(index, 2), self.entry(index, 2, part=1)]
        assert await index.add(KEY, entries, MARK, expected=None)
        assert await index.marks([KEY, ThreadKey("other", "a")]) == {KEY: MARK}
        assert await index.entries(KEY) == {(each.turn, each.part): each.digest for each in entries}
        assert (await index.count("a"), await index.count("b")) == (3, 0)

    async def test_an_exact_vector_is_the_nearest(self, index: VectorIndex) -> None:
        entries = [self.entry(index, turn) for turn in range(0, 60, 2)]
        await index.add(KEY, entries, MARK, expected=None)
        for each in entries[::7]:
            best = (await index.nearest("a", each.vector, 3))[0]
            assert (best.key, best.turn, best.seq, best.digest) == (KEY, each.turn, each.seq, each.digest)
            assert best.score == pytest.approx(1, abs=0.02)

    async def test_scores_fall_and_a_turn_comes_once(self, index: VectorIndex) -> None:
        parts = [self.entry(index, turn, part=part) for turn in (0, 2, 4) for part in range(3)]
        await index.add(KEY, parts, MARK, expected=None)
        near = await index.nearest("a", vector(index.dimensions, 77), 10)
        assert sorted(each.turn for each in near) == [0, 2, 4]
        assert [each.score for each in near] == sorted((each.score for each in near), reverse=True)

    async def test_tenants_never_meet(self, index: VectorIndex) -> None:
        mine, same = self.entry(index, 0), ThreadKey(KEY.thread_id, "b")
        await index.add(KEY, [mine], MARK, expected=None)
        assert not await index.nearest("b", mine.vector, 5)
        await index.add(same, [self.entry(index, 2, seed=5)], MARK, expected=None)
        assert [each.key for each in await index.nearest("a", mine.vector, 5)] == [KEY]
        assert await index.delete_tenant("a") == 1
        assert (await index.count("a"), await index.count("b")) == (0, 1)
        assert not await index.nearest("a", mine.vector, 5)
        assert list(await index.tenants()) == ["b"]

    async def test_a_stale_mark_changes_nothing(self, index: VectorIndex) -> None:
        assert await index.add(KEY, [self.entry(index, 0)], MARK, expected=None)
        other = Mark(1, 0, 9, 9, 9)
        assert not await index.add(KEY, [self.entry(index, 2)], other, expected=None)
        assert not await index.add(KEY, [self.entry(index, 2)], other, expected=other, remove=[(0, 0)])
        assert (await index.marks([KEY]))[KEY] == MARK
        assert list(await index.entries(KEY)) == [(0, 0)]

    async def test_of_two_followers_one_adds(self, make_index: Callable[[], VectorIndex]) -> None:
        first, second = make_index(), make_index()
        await first.open()
        await second.open()
        added = await asyncio.gather(
            *(each.add(KEY, [self.entry(each, 0)], MARK, expected=None) for each in (first, second))
        )
        assert sorted(added) == [False, True]
        assert await second.count("a") == 1
        await first.aclose()
        await second.aclose()

    async def test_entries_are_replaced_and_removed_in_one_step(self, index: VectorIndex) -> None:
        await index.add(KEY, [self.entry(index, 0), self.entry(index, 2)], MARK, expected=None)
        replaced, more = self.entry(index, 0, seed=999), Mark(1, 0, 6, 6, 6)
        assert await index.add(KEY, [replaced], more, expected=MARK, remove=[(2, 0)])
        assert list(await index.entries(KEY)) == [(0, 0)]
        assert (await index.nearest("a", replaced.vector, 1))[0].score == pytest.approx(1, abs=0.02)

    async def test_removed_threads_are_gone(self, index: VectorIndex) -> None:
        mine = self.entry(index, 0)
        await index.add(KEY, [mine], MARK, expected=None)
        assert await index.nearest("a", mine.vector, 1)
        await index.remove(KEY)
        assert not await index.nearest("a", mine.vector, 1)
        assert not await index.marks([KEY])
        assert not await index.entries(KEY)

    async def test_threads_are_listed_in_pages(self, index: VectorIndex) -> None:
        names = sorted(f"t{number}" for number in range(7))
        for name in names:
            await index.add(ThreadKey(name, "a"), [], MARK, expected=None)
        found: list[str] = []
        while some := await index.threads("a", after=found[-1] if found else "", limit=3):
            found += some
        assert found == names

    async def test_another_connection_sees_what_was_added(self, make_index: Callable[[], VectorIndex]) -> None:
        writer, reader = make_index(), make_index()
        first = self.entry(writer, 0)
        await writer.add(KEY, [first], MARK, expected=None)
        assert len(await reader.nearest("a", first.vector, 5)) == 1
        later = self.entry(writer, 2)
        await writer.add(KEY, [later], Mark(1, 0, 6, 6, 6), expected=MARK)
        assert (await reader.nearest("a", later.vector, 5))[0].turn == later.turn
        await writer.aclose()
        await reader.aclose()

    async def test_names_of_any_text_are_kept_apart(self, index: VectorIndex) -> None:
        for number, name in enumerate(("a/b", "a:b", "a%b", "a\0b", "ä b", "'; DROP TABLE x; --")):
            key = ThreadKey(name, name)
            await index.add(key, [self.entry(index, number * 2)], MARK, expected=None)
            assert [each.key for each in await index.nearest(name, vector(index.dimensions, 1), 5)] == [key]
